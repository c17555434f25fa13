//! The room: what people said, how far it is proven, and what they are told. No SDK type crosses this door.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::config;
use crate::store::Store;

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

/// What `/readyz` asks about the room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// When the last sync came back.
    pub synced_at: Option<Timestamp>,
    /// Whether the own device may encrypt to the people of a room: it is signed, or the configuration does without.
    pub can_encrypt: bool,
    /// What is wrong now, in one sentence.
    pub trouble: Option<String>,
}

/// Best-effort signs of life; losing one loses nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gesture {
    /// Shows or takes back that an answer is being written.
    Typing {
        /// Room id.
        room: String,
        /// Shows it (`true`) or takes it back.
        on: bool,
    },
    /// Marks an event as read.
    Seen {
        /// Room id.
        room: String,
        /// Event id.
        event: String,
    },
}

/// What every part of chat shares.
pub(crate) struct Context {
    pub(crate) client: matrix_sdk::Client,
    pub(crate) store: Store,
    pub(crate) matrix: config::Matrix,
    pub(crate) trust: config::Trust,
    /// Allowed people; changes when the rules are read again.
    pub(crate) users: watch::Receiver<Arc<Vec<String>>>,
    /// Wakes the operator: something is in the inbox.
    pub(crate) inbox: Arc<Notify>,
    /// Wakes the sending loop: something is in the outbox.
    pub(crate) outbox: Arc<Notify>,
    /// What `/readyz` asks.
    pub(crate) health: watch::Sender<Health>,
}

/// How a sync loop came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to.
    Shutdown,
    /// The homeserver wants a new login of the same device.
    SoftLogout,
    /// The homeserver has ended the device.
    HardLogout,
}
