//! Messages whose key has not come: they wait in the inbox, over restarts too, and come back with their key.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use matrix_sdk::ruma::api::client::room::get_room_event;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{EventId, RoomId};
use matrix_sdk::{Client, RoomState};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::Context;
use super::answer::Answer;
use super::event::Event;
use super::hearing::{Heard, Hearing};
use super::notice;
use super::trust::replay::message_index;
use crate::retry::Backoff;
use crate::store::inbox::Entry;

/// How long a key may take before its sender is asked to say it again.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);

/// How long a message waits for its key.
const REACH: SignedDuration = SignedDuration::from_hours(24);

/// Brings waiting messages back and asks for what stays unreadable; ends only by being dropped.
///
/// `keys` tells that a sync brought something from device to device.
///
/// # Errors
/// Where the SDK has no encryption, or its stream of keys ends.
pub(crate) async fn run(context: Arc<Context>, hearing: Arc<Hearing>, keys: Arc<Notify>) -> anyhow::Result<()> {
    let stream = context.client.encryption().room_keys_received_stream().await;
    let mut received = pin!(stream.context("the client has no encryption")?);
    // A Matrix store that was begun anew knows no room before its first sync.
    let mut health = context.health.subscribe();
    health.wait_for(|health| health.synced_at.is_some()).await?;
    hearing.index_missing();
    let mut known = Known::default();
    let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
    loop {
        let pause = match look(&context, &hearing, &mut known).await {
            Ok(Look { next, failed: false }) => {
                pauses.reset();
                next
            }
            Ok(Look { next, failed: true }) => {
                let pause = pauses.next();
                Some(next.map_or(pause, |next| next.min(pause)))
            }
            Err(error) => {
                warn!("messages that wait for their keys were not looked at: {error:#}");
                Some(pauses.next())
            }
        };
        tokio::select! {
            // Whatever came, or was missed because too much came: everything that waits is tried.
            keys = received.next() => drop(keys.context("the stream of room keys ended")?),
            () = keys.notified() => {}
            () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => {}
        }
    }
}

/// What became of a waiting message.
enum Wait {
    /// It waits no longer.
    Over,
    /// Its key has not come.
    Goes,
    /// It can never be read here: the bot is not in its room any more.
    Lost,
}

/// What a look at everything that waits found.
struct Look {
    /// The time until something is due.
    next: Option<Duration>,
    /// Something could not be looked at.
    failed: bool,
}

/// What this process knows of the messages that wait.
#[derive(Default)]
struct Known {
    /// What a sender was asked about: a session, or a message that its key does not open.
    asked: HashSet<String>,
    /// Entries that could not be looked at when they were tried last.
    failing: HashSet<i64>,
}

/// Tries everything that waits, each message for itself; what failed last time after all the rest, so that it holds up nothing.
async fn look(context: &Context, hearing: &Hearing, known: &mut Known) -> anyhow::Result<Look> {
    let now = now();
    let mut look = Look { next: None, failed: false };
    let mut waiting = context.store.waiting().await?;
    known.failing.retain(|id| waiting.iter().any(|entry| entry.id == *id));
    waiting.sort_by_key(|entry| (known.failing.contains(&entry.id), entry.id));
    let mut mute = HashSet::new();
    for entry in waiting {
        // What fails for one of a room's messages mostly fails for all of them, and takes its time: they wait for the next look.
        if mute.contains(&entry.room) {
            continue;
        }
        let age = now.duration_since(entry.received_at);
        match see_to(context, hearing, &entry, age, &mut known.asked).await {
            Ok(due) => {
                known.failing.remove(&entry.id);
                if let Some(due) = due {
                    look.next = Some(look.next.map_or(due, |next| next.min(due)));
                }
            }
            Err(error) => {
                warn!(room = entry.room, event = entry.event, "a message that waits was not looked at: {error:#}");
                look.failed = true;
                known.failing.insert(entry.id);
                mute.insert(entry.room.clone());
                if age >= REACH {
                    // Whether it is still there cannot be known; that it was not done must be said.
                    give_up(context, &entry, now, &mut known.asked).await?;
                }
            }
        }
    }
    Ok(look)
}

/// Tries one message that waits; gives the time until something is due about it, if it goes on waiting.
async fn see_to(
    context: &Context,
    hearing: &Hearing,
    entry: &Entry,
    age: SignedDuration,
    asked: &mut HashSet<String>,
) -> anyhow::Result<Option<Duration>> {
    let over = match unlock(&context.client, context, hearing, entry).await? {
        Wait::Over => return Ok(None),
        Wait::Lost => true,
        Wait::Goes => age >= REACH,
    };
    let is_due = (over || age >= PATIENCE) && !asked.contains(awaited(entry));
    if is_due && is_gone(&context.client, entry).await? {
        close(context, entry, "it was deleted before its key came").await?;
        return Ok(None);
    }
    if over {
        give_up(context, entry, now(), asked).await?;
        return Ok(None);
    }
    if is_due {
        ask_again(context, entry, now(), asked).await?;
    }
    let due = if age < PATIENCE { PATIENCE - age } else { REACH - age };
    Ok(Some(Duration::try_from(due).unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(100))))
}

/// Ends the waiting of a message that was not read; its sender hears of it.
async fn give_up(context: &Context, entry: &Entry, now: Timestamp, asked: &mut HashSet<String>) -> anyhow::Result<()> {
    ask_again(context, entry, now, asked).await?;
    close(context, entry, "its key did not come").await
}

async fn close(context: &Context, entry: &Entry, why: &str) -> anyhow::Result<()> {
    info!(event = entry.event, sender = entry.sender, "closed: {why}");
    Ok(context.store.ignore(entry.id, now()).await?)
}

/// Asks the sender to say it again: once for all that awaits the same key, because these words have one transaction id.
async fn ask_again(
    context: &Context,
    entry: &Entry,
    now: Timestamp,
    asked: &mut HashSet<String>,
) -> anyhow::Result<()> {
    let awaited = awaited(entry);
    if asked.contains(awaited) {
        return Ok(());
    }
    let (event, sender) = (&entry.event, &entry.sender);
    warn!(event, sender, awaited, "its key has not come: the sender is asked to say it again");
    let txn = format!("utd-{:x}", Sha256::digest(awaited));
    let waiting = Event::parse(&entry.payload);
    let thread = waiting.as_ref().and_then(Event::thread);
    context.say(txn, &entry.room, notice::unreadable(event, sender, thread), now).await?;
    // After the words are in the outbox, which takes them once: a crash between the two asks in vain, not never.
    asked.insert(awaited.to_owned());
    Ok(())
}

/// Whether somebody deleted the message meanwhile: the inbox has it as it first came.
async fn is_gone(client: &Client, entry: &Entry) -> anyhow::Result<bool> {
    let (Ok(room), Ok(event)) = (RoomId::parse(&entry.room), EventId::parse(&entry.event)) else { return Ok(true) };
    match client.send(get_room_event::v3::Request::new(room, event)).await {
        Ok(answer) => Ok(Event::parse(answer.event.json().get()).is_none_or(|event| event.content.is_empty())),
        Err(error) if Answer::of(&error) == Answer::Refused => Ok(false),
        Err(error) => Err(error).context("ask whether a message that waited is still there"),
    }
}

/// Tries to read a waiting message.
async fn unlock(client: &Client, context: &Context, hearing: &Hearing, entry: &Entry) -> anyhow::Result<Wait> {
    let room = RoomId::parse(&entry.room).ok().and_then(|room| client.get_room(&room));
    let Some(room) = room.filter(|room| room.state() == RoomState::Joined) else { return Ok(Wait::Lost) };
    let raw = Raw::from_json_string(entry.payload.clone()).context("a stored event")?;
    let event = room.decrypt_event(&raw, None).await?;
    if event.kind.is_utd() {
        return Ok(Wait::Goes);
    }
    if is_gone(client, entry).await? {
        close(context, entry, "it was deleted before its key came").await?;
        return Ok(Wait::Over);
    }
    let index = Event::parse(raw.json().get()).as_ref().and_then(message_index);
    let judged = hearing.hear(vec![Heard { room, event, message_index: index }]).await?;
    anyhow::ensure!(judged.held.is_empty(), "it cannot be judged now");
    match judged.arrivals.into_iter().next() {
        Some(arrival) => {
            info!(event = entry.event, sender = entry.sender, "its key came late");
            context.store.revive(entry.id, arrival.payload).await?;
            context.inbox.notify_one();
        }
        None => context.store.ignore(entry.id, now()).await?,
    }
    Ok(Wait::Over)
}

fn awaited(entry: &Entry) -> &str {
    entry.waiting_for.as_deref().unwrap_or(&entry.event)
}

#[expect(clippy::disallowed_methods, reason = "a loop: it reads the clock to tell how long a message has waited")]
fn now() -> Timestamp {
    Timestamp::now()
}
