//! Replayed ciphertext: a homeserver can put an old one into a new event, and the SDK decrypts it again.
//!
//! A ciphertext is known by its session and message index. The SDK does not say the index, so a first occurrence of a
//! plaintext in a session acts at once and its index is read afterwards; a repeated one is read before it acts.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use matrix_sdk::Room;
use matrix_sdk::encryption::vodozemac::megolm::MegolmMessage;
use matrix_sdk::ruma::api::client::room::get_room_event;
use matrix_sdk::ruma::{EventId, RoomId};
use serde_json::Value;
use tracing::{debug, warn};

use crate::chat::Context;
use crate::chat::event::Event;
use crate::chat::gap::is_withheld;
use crate::store::replay::Sighting;
use crate::store::unindexed::Unindexed;

/// Indices that are made up for at a start.
const MISSING: u32 = 200;

/// An event by which a plaintext of a session came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) session: String,
    pub(crate) digest: String,
    pub(crate) event: String,
}

/// Reads the message index of an encrypted event; nothing where it is none.
pub(crate) fn message_index(encrypted: &Event) -> Option<u32> {
    let ciphertext = encrypted.content.get("ciphertext").and_then(Value::as_str)?;
    Some(MegolmMessage::from_base64(ciphertext).ok()?.message_index())
}

/// Looks for earlier events with the same ciphertext.
pub(crate) struct Replay {
    context: Arc<Context>,
}

impl Replay {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Says whether an event whose plaintext its session carried before is the same ciphertext again. Where the
    /// homeserver shows too little to tell, it is.
    ///
    /// `known` gathers the indices that were read for this batch.
    ///
    /// # Errors
    /// Where the homeserver cannot be reached, or the store not be written: ask again later.
    pub(crate) async fn is_replay(
        &self,
        room: &Room,
        sight: &Sight,
        earlier: &[Sighting],
        known: &mut HashMap<String, u32>,
    ) -> anyhow::Result<bool> {
        for sighting in earlier {
            if sighting.message_index.is_none() && !known.contains_key(&sighting.event) {
                let of_earlier = Sight { event: sighting.event.clone(), ..sight.clone() };
                let Some(index) = self.read(room, &of_earlier).await? else {
                    warn!(
                        event = sight.event,
                        earlier = sighting.event,
                        "refused: the earlier event of the same text is gone"
                    );
                    return Ok(true);
                };
                known.insert(sighting.event.clone(), index);
                self.context.store.indexed(&sight.session, &sighting.event, index).await?;
            }
        }
        let index = match known.get(&sight.event) {
            Some(index) => *index,
            None => match self.read(room, sight).await? {
                Some(index) => *known.entry(sight.event.clone()).or_insert(index),
                None => return Ok(true),
            },
        };
        let other = self.context.store.indexed(&sight.session, &sight.event, index).await?;
        if let Some(other) = &other {
            warn!(event = sight.event, earlier = other, "refused: replayed ciphertext");
        }
        Ok(other.is_some())
    }

    /// Reads what a crash or an outage left unread, once: an earlier event without an index, when it is gone from the
    /// homeserver, would have every repeat of its text refused.
    pub(crate) async fn note_missing(&self) {
        let missing = match self.context.store.unindexed(MISSING).await {
            Ok(missing) => missing,
            Err(error) => return warn!("message indices that were not read are not known: {error}"),
        };
        for Unindexed { session, digest, event, room } in missing {
            let room = RoomId::parse(&room).ok().and_then(|room| self.context.client.get_room(&room));
            let Some(room) = room else { continue };
            if let Err(error) = self.note(&room, &Sight { session, digest, event }).await {
                return debug!("message indices are still not read: {error:#}");
            }
        }
    }

    /// Reads and notes the index of a first occurrence, after it was taken in.
    pub(crate) async fn note(&self, room: &Room, sight: &Sight) -> anyhow::Result<()> {
        if let Some(index) = self.read(room, sight).await?
            && let Some(other) = self.context.store.indexed(&sight.session, &sight.event, index).await?
        {
            warn!(
                event = sight.event,
                earlier = other,
                "two texts under one message index: the homeserver shows false events"
            );
        }
        Ok(())
    }

    /// Fetches the event as it was sent. The copy counts only if it decrypts to the same text: a homeserver could show
    /// another event's ciphertext.
    async fn read(&self, room: &Room, sight: &Sight) -> anyhow::Result<Option<u32>> {
        let Ok(event) = EventId::parse(&sight.event) else { return Ok(None) };
        let request = get_room_event::v3::Request::new(room.room_id().to_owned(), event);
        let raw = match self.context.client.send(request).await {
            Ok(response) => response.event,
            Err(error) if is_withheld(&error) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("fetch an event to tell a repeated command from a replayed one"),
        };
        let Some(encrypted) = Event::parse(raw.json().get()) else { return Ok(None) };
        let decrypted = room.decrypt_event(raw.cast_ref_unchecked(), None).await?;
        let same = !decrypted.kind.is_utd()
            && decrypted.encryption_info().and_then(|info| info.session_id()) == Some(sight.session.as_str())
            && Event::parse(decrypted.raw().json().get()).is_some_and(|event| event.digest() == sight.digest);
        Ok(message_index(&encrypted).filter(|_| same))
    }
}
