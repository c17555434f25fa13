//! The receiving loop: one long poll after the other; what it brings is in the inbox before anything hears of it.
//!
//! The SDK saves its own position before its caller sees a batch, so an error or a kill between the two loses the batch.
//! Therefore the inbox keeps a position of its own, written with the messages; where the SDK's is another one when a sync
//! begins, what the sync brings is not trusted to be all, and everything since the own position is read from `/messages`.

mod outage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use matrix_sdk::Room;
use matrix_sdk::config::SyncSettings;
use matrix_sdk::ruma::OwnedRoomId;
use matrix_sdk::ruma::api::client::filter::FilterDefinition;
use matrix_sdk::ruma::api::client::sync::sync_events::v3::Filter;
use matrix_sdk::store::StateStoreDataKey;
use matrix_sdk::sync::{JoinedRoomUpdate, SyncResponse};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::outage::Outage;
use super::answer::{self, Answer, LastWord, is_logout};
use super::chores::Chores;
use super::event::Event;
use super::gap::open::{Open, OpenGaps};
use super::hearing::{Heard, Hearing, Judged};
use super::rooms::Rooms;
use super::trust::Trust;
use super::{Context, Ended, gap, late, receipts};
use crate::retry::Backoff;

/// How long the homeserver may hold a poll when nothing happens.
const POLL: Duration = Duration::from_secs(30);

/// How long one sync may take in all: the SDK itself tries a failing homeserver again for 15 minutes and says nothing.
const SYNC_LIMIT: Duration = Duration::from_mins(2);

/// A homeserver that limits syncs is waited for as it asks, within these.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(15);
/// How often the loop shows that it turns while it waits; `/livez` gives it some minutes.
const BEAT: Duration = Duration::from_mins(1);

/// How long the next poll lets the answer to what has come go first: a homeserver works at one request at a time, and
/// everybody's polls end with the answer, so that this one would be served before the person's.
const HEAD_START: Duration = Duration::from_millis(150);

/// Events of a room in one sync; what is beyond is read from `/messages`.
const TIMELINE: u32 = 100;

/// How long the loop waits for gaps to be read; what takes longer is read beside it.
const GAPS_LIMIT: Duration = Duration::from_secs(10);

/// Cursor of the store with the own position: everything up to there is in the inbox, but for open gaps.
pub(crate) const POSITION: &str = "sync";

/// Receives until it is told to stop or the login ends.
///
/// # Errors
/// Where a part of it ends or panics, or the own position cannot be read at the start.
pub(crate) async fn run(context: Arc<Context>, shutdown: CancellationToken) -> anyhow::Result<Ended> {
    let word = LastWord::on(&context.client);
    let (chores, carrier) = Chores::new();
    let rooms = Arc::new(Rooms::new(Arc::clone(&context), chores.clone()));
    let trust = Arc::new(Trust::new(Arc::clone(&context)));
    let hearing = Arc::new(Hearing::new(Arc::clone(&context), Arc::clone(&rooms), Arc::clone(&trust), chores.clone()));
    let keys = Arc::new(Notify::new());
    let gaps = OpenGaps::resume(Arc::clone(&context), Arc::clone(&hearing), chores.clone()).await?;
    let gaps = Arc::new(gaps);

    let mut parts = JoinSet::new();
    parts.spawn(carrier.run());
    parts.spawn(trust.watch());
    parts.spawn(Arc::clone(&rooms).watch());
    parts.spawn(Arc::clone(&gaps).run());
    parts.spawn(late::run(Arc::clone(&context), Arc::clone(&hearing), Arc::clone(&keys)));

    let mut receiver = Receiver {
        position: context.store.cursor(POSITION).await?,
        outage: Outage::resume(&context.store, now()).await?,
        trouble: String::new(),
        word,
        context,
        rooms,
        hearing,
        chores,
        keys,
        gaps,
    };
    let ended = tokio::select! {
        ended = receiver.run(shutdown) => ended,
        part = parts.join_next() => match part {
            Some(Ok(Err(error))) => Err(error.context("a part of the receiving loop ended")),
            Some(Err(error)) => Err(anyhow::Error::new(error).context("a part of the receiving loop failed")),
            _ => bail!("a part of the receiving loop ended without a reason"),
        },
    };
    parts.shutdown().await;
    ended
}

struct Receiver {
    context: Arc<Context>,
    rooms: Arc<Rooms>,
    hearing: Arc<Hearing>,
    chores: Chores,
    /// Tells that a sync brought something from device to device.
    keys: Arc<Notify>,
    gaps: Arc<OpenGaps>,
    /// Up to here everything is in the inbox, but for open gaps; nothing before the very first sync.
    position: Option<String>,
    outage: Outage,
    /// What the log said last of an outage, without its numbers.
    trouble: String,
    word: LastWord,
}

impl Receiver {
    async fn run(&mut self, shutdown: CancellationToken) -> anyhow::Result<Ended> {
        let mut pauses = Backoff::new(Duration::from_millis(500), Duration::from_mins(1));
        // The first answer after a start or a failure comes at once: it says that all is well.
        let mut poll = Duration::ZERO;
        loop {
            let turn = tokio::select! {
                () = shutdown.cancelled() => return Ok(Ended::Shutdown),
                turn = self.turn(poll) => turn,
            };
            self.context.health.send_modify(|health| health.turned_at = Some(now()));
            match turn {
                Ok(()) => {
                    pauses.reset();
                    poll = POLL;
                }
                Err(error) => {
                    if let Some(ended) = answer::of(&error).and_then(|error| self.word.ended(error)) {
                        return Ok(ended);
                    }
                    self.fail(&error);
                    poll = Duration::ZERO;
                    let pause = match answer::to(&error) {
                        Some(Answer::Limited(Some(wait))) => wait.clamp(SHORTEST_WAIT, LONGEST_WAIT),
                        _ => pauses.next(),
                    };
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(Ended::Shutdown),
                        () = self.rest(pause) => {}
                    }
                }
            }
        }
    }

    /// Waits, and shows meanwhile that the loop turns: a long limit is no reason to be taken for dead.
    async fn rest(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() {
            let part = left.min(BEAT);
            tokio::time::sleep(part).await;
            left -= part;
            self.context.health.send_modify(|health| health.turned_at = Some(now()));
        }
    }

    /// Tells the sending loop whether it knows who is in a room.
    fn listening(&self, listening: bool) {
        self.context.heard.send_if_modified(|heard| std::mem::replace(heard, listening) != listening);
    }

    /// Says in the log what is wrong, once for each thing that is: an outage may hide a cause that somebody can mend.
    fn fail(&mut self, error: &anyhow::Error) {
        self.listening(false);
        let first = self.outage.begin();
        let trouble = format!("nothing is received and nothing is acted on: {}", answer::in_words(error));
        // Times and sizes differ from try to try.
        let gist: String = trouble.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        if first || self.trouble != gist {
            error!("{trouble}");
        } else {
            debug!("{trouble}");
        }
        self.trouble = gist;
        self.context.health.send_modify(|health| health.trouble = Some(trouble));
    }

    /// One sync: wait for what comes, take it in, see to its consequences.
    async fn turn(&mut self, poll: Duration) -> anyhow::Result<()> {
        let since = self.sdk_position().await?;
        let settings = SyncSettings::new().timeout(poll).filter(filter());
        let response = tokio::time::timeout(SYNC_LIMIT, self.context.client.sync_once(settings))
            .await
            .context("the homeserver did not answer in time")?
            .context("sync with the homeserver")?;
        self.listening(true);
        if poll.is_zero() {
            // Before anything is read: the room of an alias may be one where bare words are commands.
            self.rooms.resolve().await;
        }
        let taken = self.take(&response, since.as_deref()).await;
        // The SDK gives a batch out once: what it says of rooms would be lost with the error.
        self.rooms.follow(&response);
        let new = taken?;

        let context = Arc::clone(&self.context);
        let mut sent = std::pin::pin!(context.sent.notified());
        sent.as_mut().enable();
        if new > 0 {
            self.context.inbox.notify_one();
        }
        if !response.to_device.is_empty() {
            self.keys.notify_one();
        }
        let deaf = self.gaps.are_everywhere().await;
        let now = now();
        self.context.health.send_modify(|health| {
            health.synced_at = Some(now);
            health.trouble = deaf.then(|| "the homeserver gives out what was said in no room".to_owned());
        });
        if let Err(error) = self.outage.end(&self.context, &self.rooms, new, self.gaps.are_open().await, now).await {
            warn!("the room was not told of the outage: {error:#}");
        }
        if new > 0 {
            // Late or never, as for idle talk: the poll goes on.
            let _ = tokio::time::timeout(HEAD_START, sent).await;
        }
        Ok(())
    }

    /// Where the SDK's next sync begins.
    async fn sdk_position(&self) -> anyhow::Result<Option<String>> {
        let stored = self.context.client.state_store().get_kv_data(StateStoreDataKey::SyncToken).await?;
        Ok(stored.and_then(matrix_sdk::store::StateStoreDataValue::into_sync_token))
    }

    /// Writes what a sync brought into the inbox, together with the position that it reached; gives the new entries.
    async fn take(&mut self, response: &SyncResponse, since: Option<&str>) -> anyhow::Result<usize> {
        let mut open = self.gaps.lock().await;
        let now = now();
        let (judged, mut opening) = match self.position.clone() {
            // The very first time: what was said before nobody was there to hear.
            None => {
                info!("first sync: what was said before it is history");
                (Judged::default(), BTreeMap::new())
            }
            Some(position) => {
                let complete = since == Some(&position);
                let (heard, mut opening) = self.heard(response, complete, &position, &open, now).await?;
                let judged = self.hearing.hear(heard).await?;
                opening.extend(judged.held.iter().map(|id| (id.clone(), Open::at(&position, now))));
                (judged, opening)
            }
        };
        let newest = receipts::newest(&judged.arrivals);
        let next = Some(response.next_batch.clone());
        let gaps = opening.iter().map(|(id, open)| (id.to_string(), Some(open.gap()))).collect();
        let written = self.context.store.receive_with_gaps(judged.arrivals, next.clone(), gaps, now).await;
        let new = written.context("write the inbox")?;
        self.position = next;
        if !opening.is_empty() {
            open.append(&mut opening);
            self.gaps.opened();
        }
        if new > 0 {
            receipts::send(&self.context, &self.chores, newest);
        }
        Ok(new)
    }

    /// All that was said since the own position, and the gaps that could not be read. `complete`: the sync began there, so
    /// only limited timelines have gaps. Rooms whose gap is `open` already are left to who reads it.
    async fn heard(
        &self,
        response: &SyncResponse,
        complete: bool,
        position: &str,
        open: &BTreeMap<OwnedRoomId, Open>,
        now: Timestamp,
    ) -> anyhow::Result<(Vec<Heard>, BTreeMap<OwnedRoomId, Open>)> {
        let users = Arc::clone(&self.context.users.borrow());
        let mut gaps: Vec<(Room, String)> = Vec::new();
        let mut streams: BTreeMap<OwnedRoomId, Vec<Heard>> = BTreeMap::new();
        if complete {
            for (id, update) in response.rooms.joined.iter().filter(|(id, _)| !open.contains_key(*id)) {
                let Some(room) = self.context.client.get_room(id) else { continue };
                let (heard, came) = timeline(&room, update);
                if update.timeline.limited && !came {
                    let from = update.timeline.prev_batch.clone().unwrap_or_else(|| response.next_batch.clone());
                    gaps.push((room, from));
                }
                streams.insert(id.clone(), heard);
            }
        } else {
            warn!("the last position was not reached without a break: what was said since is read again");
            let rooms = self.context.client.joined_rooms();
            let rooms = rooms.into_iter().filter(|room| !open.contains_key(room.room_id()));
            gaps.extend(rooms.map(|room| (room, response.next_batch.clone())));
        }
        let limit = tokio::time::Instant::now() + GAPS_LIMIT;
        let fillings = gaps.into_iter().map(|(room, from)| {
            let users = &users;
            async move {
                let filled = tokio::time::timeout_at(limit, gap::fill(&room, users, from, position, now)).await;
                let filled = filled.context("the homeserver did not answer in time").flatten();
                (room.room_id().to_owned(), filled)
            }
        });
        let mut fillings = stream::iter(fillings).buffer_unordered(gap::open::AT_A_TIME);
        let mut opening = BTreeMap::new();
        while let Some((id, filled)) = fillings.next().await {
            match filled {
                Ok(filled) => {
                    if let Some(left) = filled.left {
                        gap::open::tell_left(&self.context, &id, left, position, now).await?;
                    }
                    streams.entry(id).or_default().splice(0..0, filled.heard);
                }
                Err(error) if is_logout(&error) => return Err(error),
                Err(error) => {
                    warn!(room = %id, "what was said there cannot be read yet: {error:#}");
                    streams.remove(&id);
                    opening.insert(id, Open::because(&error, position, now));
                }
            }
        }
        Ok((in_order(streams.into_values().collect()), opening))
    }
}

/// The events of a timeline from the bot's own coming on, and whether it came in this timeline.
fn timeline(room: &Room, update: &JoinedRoomUpdate) -> (Vec<Heard>, bool) {
    let events = &update.timeline.events;
    let came = events.iter().rposition(|event| {
        Event::parse(event.raw().json().get()).is_some_and(|event| event.is_join_of(room.own_user_id().as_str()))
    });
    let heard = events[came.map_or(0, |at| at + 1)..]
        .iter()
        .map(|event| Heard { room: room.clone(), event: event.clone(), message_index: None })
        .collect();
    (heard, came.is_some())
}

/// Puts the events of several rooms into one order: by time, and never against a room's own order.
fn in_order(rooms: Vec<Vec<Heard>>) -> Vec<Heard> {
    let mut all = Vec::new();
    for heard in rooms {
        let mut latest = i64::MIN;
        for heard in heard {
            let at = Event::parse(heard.event.raw().json().get()).map_or(i64::MIN, |e| e.sent_at().as_millisecond());
            latest = latest.max(at);
            all.push((latest, heard));
        }
    }
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, heard)| heard).collect()
}

fn filter() -> Filter {
    let mut filter = FilterDefinition::with_lazy_loading();
    filter.presence = matrix_sdk::ruma::api::client::filter::Filter::ignore_all();
    filter.room.ephemeral = matrix_sdk::ruma::api::client::filter::RoomEventFilter::ignore_all();
    filter.room.timeline.limit = Some(TIMELINE.into());
    filter.into()
}

#[expect(clippy::disallowed_methods, reason = "a loop: it notes when things arrived")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_filter_asks_for_more_of_each_room_and_for_nothing_that_is_not_read() {
        let Filter::FilterDefinition(filter) = filter() else { panic!("a filter of its own") };
        let wanted = json!({
            "presence": { "types": [] },
            "room": {
                "ephemeral": { "types": [] },
                "state": { "lazy_load_members": true },
                "timeline": { "limit": 100 },
            },
        });
        assert_eq!(serde_json::to_value(filter).expect("JSON"), wanted);
    }
}
