//! Messages whose key has not come: they wait in the inbox, over restarts too, and come back with their key.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use matrix_sdk::ruma::RoomId;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::{Client, RoomState};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::Context;
use super::sync::event::Event;
use super::sync::hearing::{Heard, Hearing};
use super::sync::notice;
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
    let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
    loop {
        let pause = match look(&context, &hearing).await {
            Ok(next) => {
                pauses.reset();
                next
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

/// Tries everything that waits; gives the time until something is due.
async fn look(context: &Context, hearing: &Hearing) -> anyhow::Result<Option<Duration>> {
    let now = now();
    let mut overdue: BTreeMap<String, Entry> = BTreeMap::new();
    let mut next: Option<SignedDuration> = None;
    for entry in context.store.waiting(None).await? {
        let age = now.duration_since(entry.received_at);
        if unlock(&context.client, context, hearing, &entry).await? {
            continue;
        }
        if age >= REACH {
            info!(event = entry.event, sender = entry.sender, "closed: its key did not come in 24 hours");
            context.store.ignore(entry.id, now).await?;
            continue;
        }
        let due = if age < PATIENCE { PATIENCE - age } else { REACH - age };
        next = Some(next.map_or(due, |next| next.min(due)));
        if age >= PATIENCE {
            overdue.entry(session(&entry)).or_insert(entry);
        }
    }
    for (session, entry) in overdue {
        // Once, for as long as anything of this session can wait.
        if context.store.claim_notice(&format!("utd/{session}"), now, REACH + REACH).await? {
            warn!(
                event = entry.event,
                sender = entry.sender,
                session,
                "its key has not come: the sender is asked to say it again"
            );
            let txn = format!("utd-{:x}", Sha256::digest(&session));
            context.say(txn, &entry.room, notice::unreadable(&entry.event, &entry.sender), now).await?;
        }
    }
    Ok(next.map(|next| Duration::try_from(next).unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(100))))
}

/// Tries to read a waiting message; says whether it waits no longer.
async fn unlock(client: &Client, context: &Context, hearing: &Hearing, entry: &Entry) -> anyhow::Result<bool> {
    let room = RoomId::parse(&entry.room).ok().and_then(|room| client.get_room(&room));
    let Some(room) = room.filter(|room| room.state() == RoomState::Joined) else {
        context.store.ignore(entry.id, now()).await?;
        return Ok(true);
    };
    let raw = Raw::from_json_string(entry.payload.clone()).context("a stored event")?;
    let event = room.decrypt_event(&raw, None).await?;
    if event.kind.is_utd() {
        return Ok(false);
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
    Ok(true)
}

fn session(entry: &Entry) -> String {
    Event::parse(&entry.payload)
        .and_then(|event| Some(event.content.get("session_id")?.as_str()?.to_owned()))
        .unwrap_or_else(|| entry.event.clone())
}

#[expect(clippy::disallowed_methods, reason = "a loop: it reads the clock to tell how long a message has waited")]
fn now() -> Timestamp {
    Timestamp::now()
}
