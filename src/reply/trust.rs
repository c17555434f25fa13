//! The words of `trust`.

use super::{Text, Words};
use crate::store::pins::{Keys, SeenDevice};

/// A person and what is known of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Full user id.
    pub user: String,
    /// Their keys.
    pub keys: Keys,
    /// A pin of the configuration: it wins.
    pub configured: Option<String>,
    /// Whether the identity that the homeserver serves is the trusted one.
    pub vouched: bool,
}

impl Person {
    /// Gives the pinned master key.
    #[must_use]
    pub fn pinned(&self) -> Option<&str> {
        self.configured.as_deref().or(self.keys.pin.as_ref().map(|pin| pin.key.as_str()))
    }

    /// Whether the identity that the homeserver serves counts for nothing.
    fn is_suspended(&self) -> bool {
        self.pinned().is_some() && !self.vouched
    }
}

/// Writes a key as clients show it: groups of four.
fn grouped(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

/// What makes a device count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The signature of its user's pinned identity.
    Identity,
    /// Its own pinned key.
    Devices,
    /// Nothing.
    Any,
}

pub(super) fn words(proof: Proof, people: &[Person], advice: &[String]) -> Words {
    let mut text = Text::new();
    if proof == Proof::Any {
        text = text.say("⚠️ Any device of these people counts (trust.mode = any).").line();
    }
    for (i, person) in people.iter().enumerate() {
        if i > 0 {
            text = text.line();
        }
        text = match proof {
            Proof::Identity => identity(text, person),
            Proof::Devices | Proof::Any => text.say("• ").strong(&person.user),
        };
        for seen in &person.keys.devices {
            text = device(text.line(), proof, person, seen);
        }
    }
    for advice in advice {
        text = text.line().say("🔧 For whoever runs Pilothouse: ").say(advice).say(".");
    }
    text.words()
}

fn identity(text: Text, person: &Person) -> Text {
    let keys = &person.keys;
    match (person.pinned(), keys.master.as_deref()) {
        (Some(_), Some(shown)) if !person.is_suspended() => {
            let text = text.say("✅ ").strong(&person.user).say(": trusted");
            match &keys.pin {
                Some(pin) if person.configured.is_none() => text
                    .say(", since ")
                    .say(&pin.since.strftime("%Y-%m-%d").to_string())
                    .say(" by ")
                    .say(pin.by.as_str()),
                _ => text.say(" by configuration"),
            }
            .line()
            .say("   identity ")
            .code(&grouped(shown))
        }
        (Some(pin), Some(shown)) => {
            let why = if pin == shown {
                ": suspended, the bot's account had verified another identity. It is now "
            } else {
                ": suspended, the identity has changed. It is now "
            };
            let text = text.say("⛔ ").strong(&person.user).say(why).code(&grouped(shown)).line();
            match person.configured {
                Some(_) => text.say("   The configuration pins the old one (trust.pins): it is changed there."),
                None => text
                    .say("   If you have compared it with them: ")
                    .code(&format!("trust accept {} {shown}", person.user)),
            }
        }
        (None, Some(shown)) => {
            text.say("➖ ").strong(&person.user).say(": not met yet; identity ").code(&grouped(shown))
        }
        (_, None) => text
            .say("⚠️ ")
            .strong(&person.user)
            .say(": has no cross-signing identity. They cannot read here until they set one up ")
            .say("(Element: Settings, Encryption, Set up recovery)."),
    }
}

fn device(text: Text, proof: Proof, person: &Person, seen: &SeenDevice) -> Text {
    let pin = person.keys.device_pins.get(&seen.device);
    let (counts, why) = match (proof, pin) {
        (Proof::Any, _) => (true, ""),
        (Proof::Identity, _) if seen.signed && person.is_suspended() => {
            (false, ", verified by an identity that was not accepted")
        }
        (Proof::Identity, _) if seen.signed => (true, ""),
        (Proof::Identity, _) => (false, ", not verified by its owner"),
        (Proof::Devices, Some(pin)) if pin.key == seen.ed25519 => (true, ", pinned"),
        (Proof::Devices, Some(_)) => (false, ", its key has changed"),
        (Proof::Devices, None) => (false, ", not accepted"),
    };
    let text = text.say("   ").say(if counts { "✓ " } else { "✗ " }).code(&seen.device);
    let text = match &seen.name {
        Some(name) => text.say(" ").say(name),
        None => text,
    };
    let text = text.say(why);
    match (counts, proof) {
        (false, Proof::Devices) => text
            .say("; if you have compared its key: ")
            .code(&format!("trust accept {} {} {}", person.user, seen.device, seen.ed25519)),
        (false, _) => text.say(", key ").code(&seen.ed25519),
        (true, _) => text,
    }
}

pub(super) fn repinned(user: &str, device: Option<&str>, fingerprint: &str) -> Words {
    let text = Text::new().say("✅ ").strong(user);
    match device {
        Some(device) => text.say(": device ").code(device).say(" is trusted with the key "),
        None => text.say(" is trusted with the identity "),
    }
    .code(&grouped(fingerprint))
    .say(".")
    .words()
}

pub(super) fn not_shown(user: &str, device: Option<&str>, shown: Option<&str>) -> Words {
    let text = Text::new().say("🚫 Nothing was changed: that is not the key of ").strong(user);
    let text = match device {
        Some(device) => text.say("'s device ").code(device),
        None => text,
    };
    match shown {
        Some(shown) => text.say(". The homeserver shows ").code(&grouped(shown)).say(". Compare again."),
        None => text.say(". The homeserver shows none."),
    }
    .words()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::store::pins::{By, Pin};

    #[test]
    fn a_device_of_a_suspended_identity_is_not_shown_as_one_that_counts() {
        let told = |shown: &str, vouched| {
            let pin = Pin { key: "PINNED".to_owned(), since: Timestamp::UNIX_EPOCH, by: By::FirstContact };
            let device = |signed| SeenDevice {
                device: if signed { "SIGNED" } else { "UNSIGNED" }.to_owned(),
                ed25519: "key".to_owned(),
                name: None,
                signed,
            };
            let keys = Keys {
                pin: Some(pin),
                master: Some(shown.to_owned()),
                devices: vec![device(true), device(false)],
                ..Keys::default()
            };
            let person = Person { user: "@anna:hs".to_owned(), keys, configured: None, vouched };
            words(Proof::Identity, &[person], &[]).plain
        };
        let trusted = told("PINNED", true);
        assert!(trusted.contains("✓ SIGNED") && trusted.contains("✗ UNSIGNED"), "{trusted}");
        let suspended = told("ANOTHER", false);
        assert!(suspended.contains("✗ SIGNED") && suspended.contains("✗ UNSIGNED"), "{suspended}");
        assert!(suspended.contains("not accepted"), "{suspended}");

        let violated = told("PINNED", false);
        assert!(violated.contains("suspended, the bot's account had verified another identity"), "{violated}");
        assert!(violated.contains("✗ SIGNED") && violated.contains("trust accept @anna:hs PINNED"), "{violated}");
    }
}
