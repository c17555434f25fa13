//! The words of `trust`.

use super::{Text, Words};
use crate::store::pins::Keys;

/// A person and what is known of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Full user id.
    pub user: String,
    /// Their keys.
    pub keys: Keys,
    /// A pin of the configuration: it wins.
    pub configured: Option<String>,
}

impl Person {
    /// Gives the pinned master key.
    #[must_use]
    pub fn pinned(&self) -> Option<&str> {
        self.configured.as_deref().or(self.keys.pin.as_ref().map(|pin| pin.master.as_str()))
    }
}

/// Writes a key as clients show it: groups of four.
fn grouped(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

pub(super) fn words(people: &[Person]) -> Words {
    let mut text = Text::new();
    for (i, person) in people.iter().enumerate() {
        if i > 0 {
            text = text.line();
        }
        let keys = &person.keys;
        text = match (person.pinned(), keys.master.as_deref()) {
            (Some(pin), Some(shown)) if pin == shown => {
                let text = text.say("✅ ").strong(&person.user).say(": trusted");
                match &keys.pin {
                    Some(pin) if person.configured.is_none() => {
                        text.say(", since ").say(&pin.since.strftime("%Y-%m-%d").to_string()).say(" by ").say(&pin.by)
                    }
                    _ => text.say(" by configuration"),
                }
                .line()
                .say("   identity ")
                .code(&grouped(shown))
            }
            (Some(_), Some(shown)) => text
                .say("⛔ ")
                .strong(&person.user)
                .say(": suspended, the identity has changed. It is now ")
                .code(&grouped(shown))
                .line()
                .say("   If you have compared it with them: ")
                .code(&format!("trust accept {} {shown}", person.user)),
            (None, Some(shown)) => {
                text.say("➖ ").strong(&person.user).say(": not met yet; identity ").code(&grouped(shown))
            }
            (_, None) => text
                .say("⚠️ ")
                .strong(&person.user)
                .say(": has no cross-signing identity. They cannot read here until they set one up ")
                .say("(Element: Settings, Encryption, Set up recovery)."),
        };
        for device in &keys.devices {
            text = text.line().say("   ").say(if device.signed { "✓ " } else { "✗ " }).code(&device.device);
            if let Some(name) = &device.name {
                text = text.say(" ").say(name);
            }
            text = match keys.device_pins.get(&device.device) {
                Some(pin) if *pin == device.ed25519 => text.say(", pinned"),
                Some(_) => text.say(", its key has changed"),
                None => text,
            };
            if !device.signed {
                text = text.say(", not verified by its owner, key ").code(&device.ed25519);
            }
        }
    }
    text.words()
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
