//! What the sync did not bring: read backwards from `/messages`, up to the position that the inbox acknowledged.
//!
//! The end of the way is the acknowledged position and not the last event seen: `/messages` goes by the room's topology, in
//! which an event that came late over federation lies before ones that were seen.

pub(crate) mod open;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use matrix_sdk::deserialized_responses::TimelineEvent;
use matrix_sdk::ruma::api::Direction;
use matrix_sdk::ruma::api::client::message::get_message_events;
use matrix_sdk::ruma::events::AnyTimelineEvent;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::{HttpError, Room};
use tracing::{info, warn};

use super::answer::Answer;
use super::event::Event;
use super::hearing::Heard;
use super::trust::replay::message_index;

/// Most events of a room that are read.
pub(crate) const EVENTS: usize = 1000;

/// How old a message may be by its own time: older commands are stale a hundred times over.
pub(crate) const REACH: SignedDuration = SignedDuration::from_hours(24);

/// Events of one answer.
const PAGE: u32 = 100;

/// What a gap held.
#[derive(Default)]
pub(crate) struct Filled {
    /// What allowed people sent, oldest first.
    pub(crate) heard: Vec<Heard>,
    /// Why something older, after the acknowledged position, was left unread for good.
    pub(crate) left: Option<Left>,
}

/// Why a part of a gap stays unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// More was said than [`EVENTS`] or [`REACH`].
    TooMuch,
    /// The homeserver does not show it, and would say the same another time.
    Refused,
}

/// Reads a room's events between `from` (newer) and `to` (older), as far as the limits and the bot's own coming allow.
///
/// # Errors
/// Where the homeserver gives no answer, or one that another try may better.
pub(crate) async fn fill(
    room: &Room,
    users: &[String],
    from: String,
    to: &str,
    now: Timestamp,
) -> anyhow::Result<Filled> {
    let mut filled = Filled::default();
    let mut from = from;
    let (mut read, mut old, mut cut) = (0, 0, false);
    'pages: loop {
        let mut request = get_message_events::v3::Request::new(room.room_id().to_owned(), Direction::Backward);
        request.from = Some(from);
        request.to = Some(to.to_owned());
        request.limit = PAGE.into();
        // Not `Room::messages`: it forgets `to`, and the ciphertext with its message index.
        let page = match room.client().send(request).await {
            Ok(page) => page,
            Err(error) if Answer::of(&error) == Answer::Refused => {
                // The bot may not read here any more, or the homeserver does not know the position (it was restored, say).
                warn!(room = %room.room_id(), "the rest is left unread: {error}");
                filled.left = Some(Left::Refused);
                break;
            }
            Err(error) => return Err(error).context("read what the sync left out"),
        };
        for raw in page.chunk {
            let Some(event) = Event::parse(raw.json().get()) else { continue };
            // What was said before the bot came was not said to it.
            if event.is_join_of(room.own_user_id().as_str()) {
                break 'pages;
            }
            if read >= EVENTS {
                filled.left = Some(Left::TooMuch);
                cut = true;
                break 'pages;
            }
            read += 1;
            if !users.contains(&event.sender) {
                continue;
            }
            // A time is the word of one server, and what lies before may be newer all the same: this event alone is left out.
            if now.duration_since(event.sent_at()) > REACH {
                if event.is_encrypted_message() || event.text().is_some() {
                    filled.left = Some(Left::TooMuch);
                    old += 1;
                }
                continue;
            }
            if let Some(heard) = decrypt(room, raw, &event).await? {
                filled.heard.push(heard);
            }
        }
        match page.end {
            Some(end) => from = end,
            None => break,
        }
    }
    filled.heard.reverse();
    if read > 0 {
        info!(room = %room.room_id(), read, "read what the sync left out");
    }
    if cut {
        warn!(room = %room.room_id(), "more was said than {EVENTS} events: what is older is left unread");
    }
    if old > 0 {
        warn!(room = %room.room_id(), old, "messages that are more than 24 hours old, by their own time, are left unread");
    }
    Ok(filled)
}

/// Whether the homeserver will not show this now or ever: not a failure that passes, nor the page of a proxy before it.
pub(crate) fn is_withheld(error: &HttpError) -> bool {
    let status = error.as_client_api_error().map(|error| error.status_code.as_u16());
    matches!(status, Some(403 | 404)) && Answer::of(error) == Answer::Refused
}

async fn decrypt(room: &Room, raw: Raw<AnyTimelineEvent>, event: &Event) -> anyhow::Result<Option<Heard>> {
    let room = room.clone();
    if event.is_encrypted_message() {
        let decrypted = room.decrypt_event(raw.cast_ref_unchecked(), None).await?;
        return Ok(Some(Heard { room, event: decrypted, message_index: message_index(event) }));
    }
    let plain = event.text().is_some();
    Ok(plain.then(|| Heard { room, event: TimelineEvent::from_plaintext(raw.cast()), message_index: None }))
}
