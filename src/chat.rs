//! The room: what people said, how far it is proven, and what they are told. No SDK type crosses this door.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// Device that encrypted it.
    pub device: Option<String>,
    /// Whether it is the sender's word.
    pub standing: Standing,
    /// How it may be a command in this room.
    pub address: Address,
}

/// Whether a text is meant for Pilothouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// Bare words are commands here: a room of two, or one that the configuration names.
    Bare,
    /// The text mentions the bot (`m.mentions`).
    Mentioned,
    /// Only the prefix makes a change; reading commands count when they are the whole text.
    Overheard,
}

/// How far the sender is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "standing", content = "why")]
pub enum Standing {
    /// The rule of `trust.mode` holds.
    Proven,
    /// It does not, and this is why.
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
    /// People to notify.
    pub mentions: Vec<String>,
}
