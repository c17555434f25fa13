//! What goes in and out: the words that [`chat`](crate::chat) and whoever decides or speaks have in common.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Who says what the usage guard wants: stands in [`Message::who`] where a user id would. It is none, and no event of a
/// room can bear it: user ids begin with `@`.
pub const GUARD: &str = "usage guard";

/// One thing that a person said, as the inbox keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Full user id of the sender.
    pub who: String,
    /// Room id.
    pub room: String,
    /// Event id.
    pub event: String,
    /// The plain text body.
    pub text: String,
    /// The homeserver's time for the event (`origin_server_ts`).
    pub sent_at: Timestamp,
    /// Root event of the thread that it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// Device that encrypted it.
    pub device: Option<String>,
    /// Whether it is the sender's word.
    pub standing: Standing,
    /// How it may be a command in this room.
    pub address: Address,
}

/// How a text reached Pilothouse, and so whether it is meant for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// Bare words are commands here: a room of two, or one that the configuration names. Talk is possible, so only what looks
    /// like a command counts.
    Bare,
    /// The text names the bot, or mentions it (`m.mentions`), or begins with the prefix: whatever it is, it gets an answer.
    Mentioned,
    /// It answers something and mentions the bot for that alone, as clients do of themselves: commands count, and near misses of
    /// one; thanks do not.
    Answering,
    /// A room of many: only the prefix makes a change; reading commands count when they are the whole text.
    Overheard,
}

/// How far the sender is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "standing", content = "why")]
pub enum Standing {
    /// A pinned key proves it.
    Proven,
    /// Nothing proves it, and the configuration has it count all the same: a room of `trust.plaintext`, or `trust.mode` =
    /// `any`. Good for commands, but not for moving a pin, which counts elsewhere.
    Believed,
    /// It is not, and this is why.
    Unproven(Why),
}

/// Why a message is not proven to be its sender's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The room is not encrypted.
    PlaintextRoom,
    /// A plaintext event in an encrypted room.
    PlaintextEvent,
    /// The homeserver says another sender than the session's owner.
    MismatchedSender,
    /// The sending device is unknown or gone.
    UnknownDevice,
    /// The sender has no cross-signing identity.
    NoIdentity,
    /// The sender's identity has not signed the sending device.
    UnsignedDevice {
        /// The device.
        device: String,
    },
    /// The sender's master key is not the pinned one.
    IdentityChanged {
        /// Fingerprint of the key that the homeserver serves now.
        fingerprint: String,
    },
    /// In mode `devices`: a device that was not there at first contact and was not accepted.
    NewDevice {
        /// The device.
        device: String,
        /// Its ed25519 key.
        fingerprint: String,
    },
    /// The session's key was handed on by another device, or came from a backup.
    ForwardedKey,
    /// The same ciphertext was seen before.
    Replayed,
}

/// What people are told: one event of the room, with the transaction id that makes a repeated send the same event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// The text without formatting, complete.
    pub plain: String,
    /// The same as HTML, every foreign word escaped.
    pub html: String,
    /// Event that this answers.
    pub reply_to: Option<String>,
    /// Root event of the thread that it belongs into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// People to notify.
    pub mentions: Vec<String>,
    /// Says nothing that must not be read on the way: may go into a room that is not encrypted.
    #[serde(default)]
    pub anywhere: bool,
    /// A picture, of which the text is the caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
}

impl Outgoing {
    /// Words that answer nothing and notify nobody.
    #[must_use]
    pub fn new(plain: String, html: String) -> Self {
        Self { plain, html, reply_to: None, thread: None, mentions: Vec::new(), anywhere: false, image: None }
    }

    /// As the outbox keeps it.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A picture to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Name of the file.
    pub name: String,
    /// PNG, in base64.
    pub png: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}
