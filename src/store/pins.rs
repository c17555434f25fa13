//! Trust on first use: whose keys were there at first contact or were accepted, and what the homeserver serves now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row};

use super::{Store, StoreError};

/// A pinned key: a person's master key, or one of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Unpadded base64 of the ed25519 key.
    pub key: String,
    /// Since when.
    pub since: Timestamp,
    /// On whose word.
    pub by: By,
}

/// On whose word a key is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// On nobody's: the homeserver served it when its owner was first met.
    FirstContact,
    /// `trust.pins` of the configuration.
    Configuration,
    /// Somebody compared and accepted it: a user id, or the name of the machine.
    Accepted(String),
}

impl By {
    /// As the database has it.
    fn parse(text: String) -> Self {
        match text.as_str() {
            FIRST_CONTACT => Self::FirstContact,
            CONFIGURATION => Self::Configuration,
            _ => Self::Accepted(text),
        }
    }

    /// As the database has it, and people read it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::FirstContact => FIRST_CONTACT,
            Self::Configuration => CONFIGURATION,
            Self::Accepted(who) => who,
        }
    }
}

const FIRST_CONTACT: &str = "first contact";
const CONFIGURATION: &str = "configuration";

/// A device as the homeserver serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDevice {
    /// Device id.
    pub device: String,
    /// Unpadded base64 of its ed25519 key.
    pub ed25519: String,
    /// Its display name, chosen by its user.
    pub name: Option<String>,
    /// Signed by the user's current identity.
    pub signed: bool,
}

/// All that is known about one person's keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// The pinned master key.
    pub pin: Option<Pin>,
    /// The master key that the homeserver serves now.
    pub master: Option<String>,
    /// The devices that the homeserver serves now.
    pub devices: Vec<SeenDevice>,
    /// Pinned device keys, by device id.
    pub device_pins: BTreeMap<String, Pin>,
    /// The bot's account had verified another identity of theirs: no key counts because it was met first.
    pub violated: bool,
}

impl Keys {
    /// Whether anything of theirs was seen before.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.pin.is_some() || !self.devices.is_empty()
    }
}

/// Reads a row with the columns `key`, `since` and `by`.
fn pin(row: &Row<'_>) -> rusqlite::Result<Pin> {
    Ok(Pin { key: row.get("key")?, since: super::time(row, "since")?, by: By::parse(row.get("by")?) })
}

impl Store {
    /// Reads all that is known about a person's keys.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn keys(&self, user: &str) -> Result<Keys, StoreError> {
        let user = user.to_owned();
        self.read(move |tx| {
            let of_user = "SELECT master AS key, since, by FROM pin WHERE user = ?1";
            let pin = tx.query_row(of_user, [&user], self::pin).optional()?;
            let master = tx
                .query_row("SELECT master FROM identity_seen WHERE user = ?1", [&user], |row| row.get(0))
                .optional()?
                .flatten();
            let mut statement =
                tx.prepare("SELECT device, ed25519, name, signed FROM device_seen WHERE user = ?1 ORDER BY device")?;
            let devices = statement
                .query_map([&user], |row| {
                    Ok(SeenDevice {
                        device: row.get("device")?,
                        ed25519: row.get("ed25519")?,
                        name: row.get("name")?,
                        signed: row.get("signed")?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            let of_devices = "SELECT device, ed25519 AS key, since, by FROM device_pin WHERE user = ?1";
            let mut statement = tx.prepare(of_devices)?;
            let device_pins = statement
                .query_map([&user], |row| Ok((row.get("device")?, self::pin(row)?)))?
                .collect::<Result<_, _>>()?;
            let violated = tx.prepare("SELECT 1 FROM violation WHERE user = ?1")?.exists([&user])?;
            Ok(Keys { pin, master, devices, device_pins, violated })
        })
        .await
    }

    /// Notes what the homeserver serves for a person now.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn observe_keys(
        &self,
        user: &str,
        master: Option<String>,
        devices: Vec<SeenDevice>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let user = user.to_owned();
        self.call(move |tx| {
            let now = now.as_millisecond();
            tx.execute(
                "INSERT INTO identity_seen (user, master, at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (user) DO UPDATE SET master = ?2, at = ?3",
                (&user, &master, now),
            )?;
            tx.execute("DELETE FROM device_seen WHERE user = ?1", [&user])?;
            for device in &devices {
                tx.execute(
                    "INSERT INTO device_seen (user, device, ed25519, name, signed, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    (&user, &device.device, &device.ed25519, &device.name, device.signed, now),
                )?;
            }
            Ok(())
        })
        .await
    }

    /// Notes whether the bot's account had verified another identity of a person than the one that is served.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn note_violation(&self, user: &str, violated: bool, now: Timestamp) -> Result<(), StoreError> {
        let user = user.to_owned();
        self.call(move |tx| {
            if violated {
                let since = now.as_millisecond();
                tx.execute(
                    "INSERT INTO violation (user, since) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                    (&user, since),
                )?;
            } else {
                tx.execute("DELETE FROM violation WHERE user = ?1", [&user])?;
            }
            Ok(())
        })
        .await
    }

    /// Pins the master key of a person who has none pinned; gives the key that is pinned afterwards.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn pin_first(&self, user: &str, master: &str, now: Timestamp) -> Result<String, StoreError> {
        let (user, master) = (user.to_owned(), master.to_owned());
        self.call(move |tx| {
            tx.execute(
                "INSERT INTO pin (user, master, since, by) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (user) DO NOTHING",
                (&user, &master, now.as_millisecond(), FIRST_CONTACT),
            )?;
            Ok(tx.query_row("SELECT master FROM pin WHERE user = ?1", [&user], |row| row.get(0))?)
        })
        .await
    }

    /// Pins every device of a person who has none pinned.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn pin_first_devices(
        &self,
        user: &str,
        devices: Vec<SeenDevice>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let user = user.to_owned();
        self.call(move |tx| {
            let any = tx.prepare("SELECT 1 FROM device_pin WHERE user = ?1")?.exists([&user])?;
            if !any {
                for device in &devices {
                    tx.execute(
                        "INSERT INTO device_pin (user, device, ed25519, since, by) VALUES (?1, ?2, ?3, ?4, ?5)",
                        (&user, &device.device, &device.ed25519, now.as_millisecond(), FIRST_CONTACT),
                    )?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Pins the master key that the configuration names (`trust.pins`), whatever was pinned before. The configuration is
    /// the word of whoever runs Pilothouse, and no Order: it says what is so, and holds again whenever it is found to differ.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn pin_configured(&self, user: &str, master: &str, now: Timestamp) -> Result<(), StoreError> {
        self.put_pin(user, None, master, By::Configuration, now).await
    }

    /// Moves a person's pin to another master key, or pins one more device, on the word of `by`. Only an Order does this; for
    /// what the configuration names see [`Store::pin_configured`].
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn repin(
        &self,
        user: &str,
        device: Option<&str>,
        key: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.put_pin(user, device, key, By::Accepted(by.to_owned()), now).await
    }

    async fn put_pin(
        &self,
        user: &str,
        device: Option<&str>,
        key: &str,
        by: By,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (user, device, key) = (user.to_owned(), device.map(str::to_owned), key.to_owned());
        self.call(move |tx| {
            let now = now.as_millisecond();
            let by = by.as_str();
            match &device {
                None => tx.execute(
                    "INSERT INTO pin (user, master, since, by) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (user) DO UPDATE SET master = ?2, since = ?3, by = ?4",
                    (&user, &key, now, by),
                )?,
                Some(device) => tx.execute(
                    "INSERT INTO device_pin (user, device, ed25519, since, by) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (user, device) DO UPDATE SET ed25519 = ?3, since = ?4, by = ?5",
                    (&user, device, &key, now, by),
                )?,
            };
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests;
