//! Why somebody may not, in words that say what to do.

use super::{Text, Words};
use crate::message::Why;
use crate::policy::Refusal;

pub(super) fn words(who: &str, refusal: &Refusal) -> Words {
    let text = Text::new().say("🚫 ");
    match refusal {
        Refusal::Stranger => text.say("Not for you."),
        Refusal::Unproven(why) => return unproven(who, why),
        Refusal::NotAllowed { verb, target: Some(target) } => {
            text.say("The rules here do not let you ").code(verb.word()).say(" ").strong(target).say(".")
        }
        Refusal::NotAllowed { verb, target: None } => {
            text.say("The rules here do not let you use ").code(verb.word()).say(".")
        }
        Refusal::TooMany { target, max } => {
            text.strong(target).say(&format!(" may have at most {max} replicas (max_replicas in the configuration)."))
        }
        Refusal::StartZero => text.say("Zero replicas is a ").code("stop").say("."),
        Refusal::OwnKey => text
            .say("Nobody can vouch for their own new key. Ask another trusted person here, or run ")
            .code("pilothouse trust accept")
            .say(" on the machine."),
        Refusal::NotAPerson(user) => text.strong(user).say(" is not among the allowed people."),
        Refusal::Unguarded { verb, target } => {
            let text = text.say("The usage guard may not ").code(verb.word());
            let text = target.iter().fold(text, |text, target| text.say(" ").strong(target));
            text.say(": no rule with ").code("mode = \"act\"").say(" names it.")
        }
        Refusal::DevicesNotPinned => {
            text.say("Devices are not pinned here: leave the device out and name the identity's fingerprint.")
        }
        Refusal::PinNeedsProof => text
            .say("Whom to trust is not taken from here: without encryption, or with trust.mode = any, nothing proves who writes. ")
            .say("Write it in an encrypted room where devices are proven, or run ")
            .code("pilothouse trust accept")
            .say(" on the machine."),
    }
    .words()
}

/// Says it in a word or two, for `history`.
#[must_use]
pub fn in_a_word(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Stranger => "a stranger",
        Refusal::Unproven(why) => match why {
            Why::PlaintextRoom => "unencrypted room",
            Why::PlaintextEvent => "unencrypted",
            Why::MismatchedSender => "false sender",
            Why::UnknownDevice => "unknown device",
            Why::NoIdentity => "no identity",
            Why::UnsignedDevice { .. } => "unverified device",
            Why::IdentityChanged { .. } => "changed identity",
            Why::NewDevice { .. } => "new device",
            Why::ForwardedKey => "forwarded key",
            Why::Replayed => "replayed",
        },
        Refusal::NotAllowed { .. } => "not allowed",
        Refusal::TooMany { .. } => "too many",
        Refusal::StartZero => "zero replicas",
        Refusal::OwnKey => "own key",
        Refusal::NotAPerson(_) => "not among the people",
        Refusal::DevicesNotPinned => "devices are not pinned",
        Refusal::Unguarded { .. } => "no rule of the guard",
        Refusal::PinNeedsProof => "not proven",
    }
}

fn unproven(who: &str, why: &Why) -> Words {
    let text = Text::new().say("🚫 Not done: ");
    match why {
        Why::PlaintextRoom => text.say("this room is not encrypted. Commands count in encrypted rooms only."),
        Why::PlaintextEvent => {
            text.say("that message came unencrypted into an encrypted room, so anybody on the way could have written it.")
        }
        Why::MismatchedSender => {
            text.say("the encryption of that message belongs to somebody else than its sender. Tell whoever runs the homeserver.")
        }
        Why::UnknownDevice => text.say("the device that sent it is unknown or was logged out."),
        Why::NoIdentity => text
            .say("your account has no cross-signing identity. Set one up (in Element: Settings, Encryption, Set up recovery) and send it again."),
        Why::UnsignedDevice { device } => text
            .say("your device ")
            .code(device)
            .say(" is not verified by you. Verify it from another device of yours, or with your recovery key, and send it again."),
        Why::IdentityChanged { fingerprint } => text
            .say("your cryptographic identity has changed since I first met you. If it was you, another trusted person compares this fingerprint with you and writes ")
            .code(&format!("trust accept {who} {fingerprint}"))
            .say("."),
        Why::NewDevice { device, fingerprint } => text
            .say("your device ")
            .code(device)
            .say(" is new to me. Another trusted person compares its key with you and writes ")
            .code(&format!("trust accept {who} {device} {fingerprint}"))
            .say("."),
        Why::ForwardedKey => text.say("its key came over another device, so it does not prove who wrote it. Please send it again."),
        Why::Replayed => text.say("that message was sent before; somebody played it again. Nothing was done."),
    }
    .words()
}
