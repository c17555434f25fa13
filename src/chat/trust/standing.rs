//! The rule: from what is known about a message to whether it is its sender's word; pure.

use crate::config::TrustMode;
use crate::message::{Standing, Why};

/// All that the rule looks at. Keys are unpadded base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The room's state says that it is encrypted.
    pub(crate) room_encrypted: bool,
    /// `trust.plaintext` names the room.
    pub(crate) plaintext_allowed: bool,
    /// How it was encrypted; `None` for a plaintext event.
    pub(crate) cipher: Option<Cipher>,
    /// The sender's identity as the homeserver serves it now.
    pub(crate) identity: Option<Identity>,
    /// The pinned master key.
    pub(crate) pin: Option<PinnedKey>,
    /// The sending device as the homeserver serves it now; `None` if it is unknown or gone.
    pub(crate) device: Option<Device>,
    /// The same ciphertext was seen in another event.
    pub(crate) replayed: bool,
}

/// How a message was encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cipher {
    /// Curve25519 key of the device that made the session.
    pub(crate) curve25519: String,
    /// How the session is bound to a device of the sender.
    pub(crate) link: Link,
    /// Another device handed the session's key on.
    pub(crate) forwarded: bool,
}

/// How a Megolm session is bound to a device of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// To a device that its user's identity has signed.
    Signed,
    /// To a device that it has not signed.
    Unsigned,
    /// To no device that is known.
    Missing,
    /// The key came from a place that proves nothing, such as a backup.
    Insecure,
    /// To another user than the event's sender.
    Mismatched,
}

/// A cross-signing identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its master key.
    pub(crate) master: String,
    /// The bot's account had verified another identity of this user.
    pub(crate) violation: bool,
}

/// A master key that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PinnedKey {
    /// The key.
    pub(crate) master: String,
    /// Configured or accepted by somebody, rather than met first.
    pub(crate) deliberate: bool,
}

/// A device as the homeserver serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its id.
    pub(crate) id: String,
    /// Its signing key.
    pub(crate) ed25519: String,
    /// Its identity key.
    pub(crate) curve25519: String,
    /// Its owner's current identity has signed it.
    pub(crate) signed: bool,
    /// The signing key that is pinned for its id (mode `devices`).
    pub(crate) pinned: Option<String>,
}

/// Judges a message by `trust.mode`.
pub(crate) fn judge(mode: TrustMode, evidence: &Evidence) -> Standing {
    match objection(mode, evidence) {
        Some(why) => Standing::Unproven(why),
        // What anybody on the homeserver could have written must not reach beyond where it is believed.
        None if !evidence.room_encrypted || mode == TrustMode::Any => Standing::Believed,
        None => Standing::Proven,
    }
}

fn objection(mode: TrustMode, evidence: &Evidence) -> Option<Why> {
    if !evidence.room_encrypted {
        return (!evidence.plaintext_allowed).then_some(Why::PlaintextRoom);
    }
    let Some(cipher) = &evidence.cipher else { return Some(Why::PlaintextEvent) };
    match cipher.link {
        Link::Mismatched => return Some(Why::MismatchedSender),
        Link::Insecure => return Some(Why::ForwardedKey),
        Link::Missing => return Some(Why::UnknownDevice),
        Link::Signed | Link::Unsigned => {}
    }
    if cipher.forwarded {
        return Some(Why::ForwardedKey);
    }
    // The session keeps what was true when it began: the device must still be there, with the same key.
    let Some(device) = evidence.device.as_ref().filter(|device| device.curve25519 == cipher.curve25519) else {
        return Some(Why::UnknownDevice);
    };
    match mode {
        TrustMode::Identity => {
            let Some(identity) = &evidence.identity else { return Some(Why::NoIdentity) };
            if !is_trusted(evidence.pin.as_ref(), identity) {
                return Some(Why::IdentityChanged { fingerprint: identity.master.clone() });
            }
            if !device.signed || cipher.link == Link::Unsigned {
                return Some(Why::UnsignedDevice { device: device.id.clone() });
            }
        }
        TrustMode::Devices => {
            if device.pinned.as_ref() != Some(&device.ed25519) {
                return Some(Why::NewDevice { device: device.id.clone(), fingerprint: device.ed25519.clone() });
            }
        }
        TrustMode::Any => {}
    }
    evidence.replayed.then_some(Why::Replayed)
}

/// Whether an identity is the pinned one. In the place of one that the bot's account had verified, only a deliberate pin counts.
pub(crate) fn is_trusted(pin: Option<&PinnedKey>, identity: &Identity) -> bool {
    pin.is_some_and(|pin| pin.master == identity.master && (pin.deliberate || !identity.violation))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [TrustMode; 3] = [TrustMode::Identity, TrustMode::Devices, TrustMode::Any];

    fn proven() -> Evidence {
        Evidence {
            room_encrypted: true,
            plaintext_allowed: false,
            cipher: Some(Cipher { curve25519: "curve".to_owned(), link: Link::Signed, forwarded: false }),
            identity: Some(Identity { master: "master".to_owned(), violation: false }),
            pin: Some(PinnedKey { master: "master".to_owned(), deliberate: false }),
            device: Some(Device {
                id: "PHONE".to_owned(),
                ed25519: "ed".to_owned(),
                curve25519: "curve".to_owned(),
                signed: true,
                pinned: Some("ed".to_owned()),
            }),
            replayed: false,
        }
    }

    type Change = fn(&mut Evidence);

    /// What is changed in sound evidence, and the objection in the modes `identity`, `devices` and `any`.
    fn table() -> Vec<(&'static str, Change, [Option<Why>; 3])> {
        let all = |why: Option<Why>| [why.clone(), why.clone(), why];
        let unsigned = || Some(Why::UnsignedDevice { device: "PHONE".to_owned() });
        let changed = || Some(Why::IdentityChanged { fingerprint: "other".to_owned() });
        let new = || Some(Why::NewDevice { device: "PHONE".to_owned(), fingerprint: "ed".to_owned() });
        vec![
            ("nothing", |_| {}, all(None)),
            ("plaintext room", |e| e.room_encrypted = false, all(Some(Why::PlaintextRoom))),
            (
                "plaintext room that is allowed",
                |e| (e.room_encrypted, e.plaintext_allowed, e.cipher) = (false, true, None),
                all(None),
            ),
            ("plaintext event", |e| e.cipher = None, all(Some(Why::PlaintextEvent))),
            (
                "plaintext event in an encrypted room that is named in trust.plaintext",
                |e| (e.plaintext_allowed, e.cipher) = (true, None),
                all(Some(Why::PlaintextEvent)),
            ),
            ("forged sender", |e| link(e, Link::Mismatched), all(Some(Why::MismatchedSender))),
            ("key from a backup", |e| link(e, Link::Insecure), all(Some(Why::ForwardedKey))),
            ("forwarded key", |e| e.cipher.as_mut().unwrap().forwarded = true, all(Some(Why::ForwardedKey))),
            ("session of an unknown device", |e| link(e, Link::Missing), all(Some(Why::UnknownDevice))),
            ("deleted device", |e| e.device = None, all(Some(Why::UnknownDevice))),
            (
                "device with other keys",
                |e| "new".clone_into(&mut e.device.as_mut().unwrap().curve25519),
                all(Some(Why::UnknownDevice)),
            ),
            ("no identity", |e| e.identity = None, [Some(Why::NoIdentity), None, None]),
            (
                "identity reset",
                |e| "other".clone_into(&mut e.identity.as_mut().unwrap().master),
                [changed(), None, None],
            ),
            (
                "identity reset and device not signed yet",
                |e| {
                    "other".clone_into(&mut e.identity.as_mut().unwrap().master);
                    e.device.as_mut().unwrap().signed = false;
                },
                [changed(), None, None],
            ),
            (
                "identity that the bot's account had verified otherwise, met first",
                |e| e.identity.as_mut().unwrap().violation = true,
                [Some(Why::IdentityChanged { fingerprint: "master".to_owned() }), None, None],
            ),
            (
                "the same, accepted by somebody",
                |e| {
                    e.identity.as_mut().unwrap().violation = true;
                    e.pin.as_mut().unwrap().deliberate = true;
                },
                all(None),
            ),
            ("no pin", |e| e.pin = None, [Some(Why::IdentityChanged { fingerprint: "master".to_owned() }), None, None]),
            ("unsigned device", |e| e.device.as_mut().unwrap().signed = false, [unsigned(), None, None]),
            ("session of an unsigned device", |e| link(e, Link::Unsigned), [unsigned(), None, None]),
            ("device that is not pinned", |e| e.device.as_mut().unwrap().pinned = None, [None, new(), None]),
            (
                "pinned device with another key",
                |e| e.device.as_mut().unwrap().pinned = Some("old".to_owned()),
                [None, new(), None],
            ),
            ("replay", |e| e.replayed = true, all(Some(Why::Replayed))),
            ("replay by an unknown device", |e| (e.replayed, e.device) = (true, None), all(Some(Why::UnknownDevice))),
        ]
    }

    fn link(evidence: &mut Evidence, link: Link) {
        evidence.cipher.as_mut().unwrap().link = link;
    }

    #[test]
    fn each_flaw_is_named_in_the_modes_where_it_counts() {
        for (name, change, expected) in table() {
            for (mode, expected) in MODES.into_iter().zip(expected) {
                let mut evidence = proven();
                change(&mut evidence);
                let believed = mode == TrustMode::Any || !evidence.room_encrypted;
                let good = if believed { Standing::Believed } else { Standing::Proven };
                let expected = expected.map_or(good, Standing::Unproven);
                assert_eq!(judge(mode, &evidence), expected, "{name}, mode {mode:?}");
            }
        }
    }

    /// Every combination of every value that the rule can see, against the rule in one expression.
    #[test]
    fn nothing_counts_but_what_the_rule_names_and_nothing_is_proven_without_a_pinned_key() {
        let links = [Link::Signed, Link::Unsigned, Link::Missing, Link::Insecure, Link::Mismatched];
        let flags = |bits: u32, at: u32| bits >> at & 1 == 1;
        for mode in MODES {
            for link in links {
                for bits in 0..1u32 << 12 {
                    let mut e = proven();
                    e.room_encrypted = flags(bits, 0);
                    e.plaintext_allowed = flags(bits, 1);
                    e.cipher.as_mut().unwrap().link = link;
                    e.cipher.as_mut().unwrap().forwarded = flags(bits, 2);
                    e.device.as_mut().unwrap().signed = flags(bits, 3);
                    let same_key = flags(bits, 4);
                    if !same_key {
                        "new".clone_into(&mut e.device.as_mut().unwrap().curve25519);
                    }
                    let pinned_device = flags(bits, 5);
                    if !pinned_device {
                        e.device.as_mut().unwrap().pinned = None;
                    }
                    let pinned_identity = flags(bits, 6);
                    if !pinned_identity {
                        "other".clone_into(&mut e.pin.as_mut().unwrap().master);
                    }
                    e.identity.as_mut().unwrap().violation = flags(bits, 7);
                    e.pin.as_mut().unwrap().deliberate = flags(bits, 8);
                    e.replayed = flags(bits, 9);
                    let encrypted = flags(bits, 10);
                    if !encrypted {
                        e.cipher = None;
                    }
                    let present = flags(bits, 11);
                    if !present {
                        e.device = None;
                    }
                    let bound = encrypted
                        && matches!(link, Link::Signed | Link::Unsigned)
                        && !flags(bits, 2)
                        && present
                        && same_key
                        && !flags(bits, 9);
                    let by_mode = match mode {
                        TrustMode::Identity => {
                            pinned_identity
                                && (!flags(bits, 7) || flags(bits, 8))
                                && flags(bits, 3)
                                && link == Link::Signed
                        }
                        TrustMode::Devices => pinned_device,
                        TrustMode::Any => true,
                    };
                    let standing = judge(mode, &e);
                    let proven = flags(bits, 0) && bound && by_mode && mode != TrustMode::Any;
                    assert_eq!(standing == Standing::Proven, proven, "mode {mode:?}, {e:?}");
                    let counts = if flags(bits, 0) { bound && by_mode } else { flags(bits, 1) };
                    assert_eq!(!matches!(standing, Standing::Unproven(_)), counts, "mode {mode:?}, {e:?}");
                }
            }
        }
    }
}
