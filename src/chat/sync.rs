//! The receiving loop: one long poll after the other; what it brings is in the inbox before anything hears of it.
//!
//! The SDK saves its own position before its caller sees a batch, so an error or a kill between the two loses the batch.
//! Therefore the inbox keeps a position of its own, written with the messages; where the SDK's is another one when a sync
//! begins, what the sync brings is not trusted to be all, and everything since the own position is read from `/messages`.

pub(crate) mod chores;
pub(crate) mod event;
pub(crate) mod hearing;
pub(crate) mod notice;
mod outage;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use matrix_sdk::config::SyncSettings;
use matrix_sdk::ruma::api::client::filter::FilterDefinition;
use matrix_sdk::ruma::api::client::receipt::create_receipt::v3::ReceiptType;
use matrix_sdk::ruma::api::client::sync::sync_events::v3::Filter;
use matrix_sdk::ruma::events::receipt::ReceiptThread;
use matrix_sdk::ruma::{EventId, OwnedRoomId, RoomId};
use matrix_sdk::store::StateStoreDataKey;
use matrix_sdk::sync::{JoinedRoomUpdate, SyncResponse};
use matrix_sdk::{HttpError, Room, RoomState};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::chores::Chores;
use self::event::Event;
use self::hearing::{Heard, Hearing};
use self::outage::Outage;
use super::answer::LastWord;
use super::rooms::Rooms;
use super::trust::Trust;
use super::{Context, Ended, gap, late};
use crate::retry::Backoff;
use crate::store::inbox::Arrival;

/// How long the homeserver may hold a poll when nothing happens.
const POLL: Duration = Duration::from_secs(30);

/// How long one sync may take in all: the SDK itself tries a failing homeserver again for 15 minutes and says nothing.
const SYNC_LIMIT: Duration = Duration::from_mins(2);

/// How long a read receipt lets an answer go first.
const RECEIPT_PAUSE: Duration = Duration::from_millis(200);

/// Events of a room in one sync; what is beyond is read from `/messages`.
const TIMELINE: u32 = 100;

/// Rooms whose gaps are read at a time.
const ROOMS: usize = 4;

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

    let mut parts = JoinSet::new();
    parts.spawn(carrier.run());
    parts.spawn(trust.watch());
    parts.spawn(Arc::clone(&rooms).watch());
    parts.spawn(late::run(Arc::clone(&context), Arc::clone(&hearing), Arc::clone(&keys)));

    let mut receiver = Receiver {
        position: context.store.cursor("sync").await?,
        outage: Outage::resume(&context.store, now()).await?,
        trouble: String::new(),
        word,
        context,
        rooms,
        hearing,
        chores,
        keys,
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
    /// Up to here everything is in the inbox; nothing before the very first sync.
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
                    if let Some(ended) = answer(&error).and_then(|error| self.word.ended(error)) {
                        return Ok(ended);
                    }
                    self.fail(&error);
                    poll = Duration::ZERO;
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(Ended::Shutdown),
                        () = tokio::time::sleep(pauses.next()) => {}
                    }
                }
            }
        }
    }

    /// Says in the log what is wrong, once for each thing that is: an outage may hide a cause that somebody can mend.
    fn fail(&mut self, error: &anyhow::Error) {
        let first = self.outage.begin();
        let trouble = format!("nothing is received and nothing is acted on: {error:#}");
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
        if poll.is_zero() {
            // Before anything is read: the room of an alias may be one where bare words are commands.
            self.rooms.resolve().await;
        }
        let new = self.take(&response, since.as_deref()).await?;

        if new > 0 {
            self.context.inbox.notify_one();
        }
        if !response.to_device.is_empty() {
            self.keys.notify_one();
        }
        self.rooms.follow(&response);
        let now = now();
        self.context.health.send_modify(|health| {
            health.synced_at = Some(now);
            health.trouble = None;
        });
        if let Err(error) = self.outage.end(&self.context, &self.rooms, new, now).await {
            warn!("the room was not told of the outage: {error:#}");
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
        let arrivals = match self.position.clone() {
            // The very first time: what was said before nobody was there to hear.
            None => {
                info!("first sync: what was said before it is history");
                Vec::new()
            }
            Some(position) => {
                let heard = self.heard(response, since == Some(&position), &position).await?;
                self.hearing.hear(heard).await?
            }
        };
        let newest = newest(&arrivals);
        let next = Some(response.next_batch.clone());
        let new = self.context.store.receive(arrivals, next.clone(), now()).await.context("write the inbox")?;
        self.position = next;
        if new > 0 {
            self.mark_read(newest);
        }
        Ok(new)
    }

    /// All that was said since the own position. `complete`: the sync began there, so only limited timelines have gaps.
    async fn heard(&self, response: &SyncResponse, complete: bool, position: &str) -> anyhow::Result<Vec<Heard>> {
        let users = Arc::clone(&self.context.users.borrow());
        let mut gaps: Vec<(Room, String)> = Vec::new();
        let mut streams: Vec<(OwnedRoomId, Vec<Heard>)> = Vec::new();
        if complete {
            for (id, update) in &response.rooms.joined {
                let Some(room) = self.context.client.get_room(id) else { continue };
                let (heard, came) = timeline(&room, update);
                if update.timeline.limited && !came {
                    let from = update.timeline.prev_batch.clone().unwrap_or_else(|| response.next_batch.clone());
                    gaps.push((room, from));
                }
                streams.push((id.clone(), heard));
            }
        } else {
            warn!("the last position was not reached without a break: what was said since is read again");
            for room in self.context.client.joined_rooms() {
                gaps.push((room, response.next_batch.clone()));
            }
        }
        let now = now();
        let fillings = gaps.into_iter().map(|(room, from)| {
            let users = &users;
            async move { anyhow::Ok((room.room_id().to_owned(), gap::fill(&room, users, from, position, now).await?)) }
        });
        let fillings: Vec<_> = stream::iter(fillings).buffered(ROOMS).try_collect().await?;
        for (id, filled) in fillings {
            if filled.cut {
                let txn = format!("cut-{:x}", Sha256::digest(format!("{id} {position}")));
                self.context.say(txn, id.as_str(), notice::cut(gap::EVENTS, gap::REACH), now).await?;
            }
            match streams.iter_mut().find(|(room, _)| *room == id) {
                Some((_, heard)) => {
                    heard.splice(0..0, filled.heard);
                }
                None => streams.push((id, filled.heard)),
            }
        }
        Ok(in_order(streams.into_iter().map(|(_, heard)| heard).collect()))
    }

    /// Shows the senders, beside the loop, that their words arrived.
    fn mark_read(&self, newest: Vec<(String, String)>) {
        for (room, event) in newest {
            let Ok(id) = RoomId::parse(&room) else { continue };
            let Some(room) = self.context.client.get_room(&id) else { continue };
            let Ok(event) = EventId::parse(event) else { continue };
            self.chores.add(&format!("read/{event}"), async move {
                // An answer that comes at once says more, and should not wait for this on its way.
                tokio::time::sleep(RECEIPT_PAUSE).await;
                if room.state() == RoomState::Joined
                    && let Err(error) =
                        room.send_single_receipt(ReceiptType::Read, ReceiptThread::Unthreaded, event).await
                {
                    debug!(room = %room.room_id(), "no receipt: {error}");
                }
            });
        }
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

/// The last event of each room.
fn newest(arrivals: &[Arrival]) -> Vec<(String, String)> {
    let last: std::collections::BTreeMap<_, _> =
        arrivals.iter().map(|arrival| (arrival.room.clone(), arrival.event.clone())).collect();
    last.into_iter().collect()
}

fn filter() -> Filter {
    let mut filter = FilterDefinition::with_lazy_loading();
    filter.presence = matrix_sdk::ruma::api::client::filter::Filter::ignore_all();
    filter.room.ephemeral = matrix_sdk::ruma::api::client::filter::RoomEventFilter::ignore_all();
    filter.room.timeline.limit = Some(TIMELINE.into());
    filter.into()
}

/// The answer of the homeserver in an error, where it is one.
fn answer(error: &anyhow::Error) -> Option<&HttpError> {
    error.chain().find_map(|cause| match cause.downcast_ref::<matrix_sdk::Error>() {
        Some(matrix_sdk::Error::Http(error)) => Some(&**error),
        _ => cause.downcast_ref::<HttpError>(),
    })
}

#[expect(clippy::disallowed_methods, reason = "a loop: it notes when things arrived")]
fn now() -> Timestamp {
    Timestamp::now()
}
