//! From the outbox to the room: each row once, in order within a room, at the pace that the homeserver allows.
//!
//! Rooms do not wait for each other. A row's text is fixed in the store before its first try and goes out with the row's
//! transaction id, so that a try after a crash or a lost answer is the same event.

mod losses;
mod pace;
mod verdict;
mod words;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use matrix_sdk::Room;
use matrix_sdk::config::RequestConfig;
use matrix_sdk::ruma::events::room::EncryptedFile;
use matrix_sdk::ruma::events::room::message::RoomMessageEventContent;
use matrix_sdk::ruma::{EventId, OwnedTransactionId, RoomId};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::pace::Pace;
use self::verdict::Verdict;
use super::Context;
use super::trust::violation;
use crate::message::{Image, Outgoing};
use crate::store::outbox::{Fixed, Parcel};
use crate::store::{Store, StoreError};

/// Rows read at once.
const BATCH: u32 = 200;
/// One request of a send; with the exchange of keys a send may need several.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A whole send, with the exchange of keys.
const SEND_TIMEOUT: Duration = Duration::from_secs(90);
/// Words that could not be brought to a room for so long are not news any more.
const OUTDATED: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
/// How long a room may be unknown: it was just joined, and the sync has not brought it yet.
const UNKNOWN_ROOM: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);
/// The loop looks at the outbox at least this often, whether it was woken or not.
const IDLE: Duration = Duration::from_mins(1);
/// How long words that were sent are kept: an edit may need their event, a person the count of what was given up.
const KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
/// How often older ones are forgotten.
const PRUNE: Duration = Duration::from_hours(6);
/// After the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// What came of one try.
struct Tried {
    parcel: Parcel,
    verdict: Verdict,
}

/// Sends until `stop`; what is on its way then is waited for by the caller's patience alone.
pub(super) async fn run(context: Arc<Context>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut heard = context.heard.subscribe();
    let mut pace = Pace::default();
    let mut trying = FuturesUnordered::new();
    let mut busy: HashSet<String> = HashSet::new();
    let mut prune = tokio::time::interval(PRUNE);
    loop {
        // Sealed while nothing is heard, words would be for whoever was in the room, and for the devices that they had,
        // when it last was.
        let listening = *heard.borrow_and_update();
        let wake = match due(&context).await {
            Ok((parcels, held_until)) if listening => {
                for plan in pace.plan(parcels, &busy, now()) {
                    busy.insert(plan.first.room.clone());
                    trying.push(attempt(&context, plan));
                }
                pace.wake().or(held_until)
            }
            Ok(_) => None,
            Err(error) => {
                warn!(%error, "the outbox cannot be read");
                Some(now() + STORE_PAUSE)
            }
        };
        // At the end what can go out at once still does; what must wait is for the next start.
        if stop.is_cancelled() && trying.is_empty() {
            return Ok(());
        }
        let nap = wake.map_or(IDLE, |at| until(at).min(IDLE));
        tokio::select! {
            Some(tried) = trying.next(), if !trying.is_empty() => {
                let tried: Tried = tried;
                busy.remove(&tried.parcel.room);
                settle(&context, &mut pace, tried).await;
            }
            _ = prune.tick(), if !stop.is_cancelled() => forget(&context.store).await,
            () = context.outbox.notified(), if !stop.is_cancelled() => {}
            // The sender is in the context, so this does not fail.
            _ = heard.changed(), if !stop.is_cancelled() => {}
            () = tokio::time::sleep(nap), if !stop.is_cancelled() => {}
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
    }
}

/// The rows that may go out; where there are none, when the first that an earlier process held may.
async fn due(context: &Context) -> Result<(Vec<Parcel>, Option<Timestamp>), StoreError> {
    let parcels = context.store.outgoing(now(), BATCH).await?;
    if !parcels.is_empty() {
        return Ok((parcels, None));
    }
    losses::tell(context, now()).await?;
    Ok((parcels, context.store.next_outgoing_at().await?))
}

fn is_outdated(parcel: &Parcel, now: Timestamp) -> bool {
    now.duration_since(parcel.created_at) >= OUTDATED
}

/// Tries one row, after folding the others of the plan into it.
async fn attempt(context: &Context, plan: pace::Plan) -> Tried {
    let parcel = plan.first;
    if is_outdated(&parcel, now()) {
        // Not even tried: nothing was, while nothing was heard.
        return Tried { parcel, verdict: Verdict::Later("they waited for a day".to_owned()) };
    }
    let fixed = async {
        if !plan.merged.is_empty() {
            debug!(room = parcel.room, rows = plan.merged.len() + 1, "merging what waits under the homeserver's limit");
            context.store.merge(parcel.id, plan.merged, plan.payload).await?;
        }
        context.store.try_parcel(parcel.id, parcel.repeatable).await
    };
    let verdict = match fixed.await {
        // Not on the disk: it must not go out, or a crash could send it twice with different words.
        Err(error) => Verdict::Later(format!("the store failed: {error}")),
        Ok(None) => Verdict::Gone,
        Ok(Some(fixed)) => match tokio::time::timeout(SEND_TIMEOUT, send(context, &parcel, &fixed)).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Later(format!("no answer in {} s", SEND_TIMEOUT.as_secs())),
        },
    };
    Tried { parcel, verdict }
}

async fn send(context: &Context, parcel: &Parcel, fixed: &Fixed) -> Verdict {
    let mut outgoing: Outgoing = match serde_json::from_str(&fixed.payload) {
        Ok(outgoing) => outgoing,
        Err(error) => return Verdict::Never(format!("its words cannot be read: {error}")),
    };
    let edited = match &parcel.edits {
        None => None,
        Some(root) => match root.event.as_deref().map(<&EventId>::try_from) {
            Some(Ok(event)) => Some(event),
            _ => return Verdict::Never("the event that it edits has no id".to_owned()),
        },
    };
    let Ok(room_id) = <&RoomId>::try_from(parcel.room.as_str()) else {
        return Verdict::Nowhere("not a room id".to_owned());
    };
    let Some(room) = context.client.get_room(room_id) else {
        return if now().duration_since(parcel.created_at) < UNKNOWN_ROOM {
            Verdict::Later("the room is not known yet".to_owned())
        } else {
            Verdict::Nowhere("the bot is not in this room".to_owned())
        };
    };
    let encrypted = match room.latest_encryption_state().await {
        Ok(state) => state.is_encrypted(),
        Err(error) => return verdict::judge(&error),
    };
    if !encrypted && !outgoing.anywhere && !context.trust.plaintext.contains(&parcel.room) {
        return Verdict::Nowhere("the room is not encrypted, and trust.plaintext does not name it".to_owned());
    }
    let event = match &outgoing.image {
        Some(image) if edited.is_none() => match tokio::time::timeout(REQUEST_TIMEOUT, upload(context, image)).await {
            Ok(Ok((file, size))) => words::picture(&outgoing, image, file, size),
            Ok(Err(limited @ Verdict::Limited(_))) => return limited,
            // A room does not wait for a picture: its words say the same.
            failed => {
                warn!(room = parcel.room, ?failed, "the picture could not be uploaded; its words go out alone");
                words::content(&outgoing, None)
            }
        },
        _ => words::content(&outgoing, edited),
    };
    let verdict = put(context, &room, event, &fixed.txn).await;
    // A thread that the homeserver does not take (its root may stand in one itself): the words count for more. What was
    // refused has made no event, so the transaction id is still free.
    match verdict {
        Verdict::Never(why) if outgoing.thread.take().is_some() => {
            warn!(room = parcel.room, why, "refused in its thread; it goes out as a plain reply");
            put(context, &room, words::content(&outgoing, edited), &fixed.txn).await
        }
        verdict => verdict,
    }
}

async fn put(context: &Context, room: &Room, event: RoomMessageEventContent, txn: &str) -> Verdict {
    let try_once = || {
        room.send(event.clone())
            .with_transaction_id(OwnedTransactionId::from(txn))
            .with_request_config(RequestConfig::new().disable_retry().timeout(REQUEST_TIMEOUT))
    };
    let mut sent = try_once().await;
    if let Err(error) = &sent
        && violation::settle(context, error).await
    {
        sent = try_once().await;
    }
    match sent {
        Ok(sent) => Verdict::Sent(sent.response.event_id.to_string()),
        Err(error) => verdict::judge(&error),
    }
}

/// Brings a picture to the homeserver, encrypted. A try that is repeated uploads again; the event is the same one.
async fn upload(context: &Context, image: &Image) -> Result<(EncryptedFile, u64), Verdict> {
    let png =
        STANDARD.decode(&image.png).map_err(|error| Verdict::Never(format!("its picture is damaged: {error}")))?;
    let size = png.len() as u64;
    let mut reader = std::io::Cursor::new(png);
    let uploaded = context.client.upload_encrypted_file(&mut reader).await;
    uploaded.map(|file| (file, size)).map_err(|error| verdict::judge(&error))
}

/// Writes down what came of a try.
async fn settle(context: &Context, pace: &mut Pace, Tried { parcel, verdict }: Tried) {
    let now = now();
    let written = match verdict {
        Verdict::Sent(event) => {
            debug!(room = parcel.room, event, "sent");
            context.sent.notify_waiters();
            pace.sent(&parcel, now);
            context.store.sent(parcel.id, &event, now).await
        }
        Verdict::Limited(wait) => {
            info!(room = parcel.room, ?wait, "the homeserver limits sending");
            let until = now + wait;
            pace.limited(&parcel.room, until);
            context.store.hold_room(&parcel.room, until).await
        }
        Verdict::Later(why) if !is_outdated(&parcel, now) => {
            let pause = pace.failed(&parcel.room, now);
            warn!(room = parcel.room, why, ?pause, "sending failed, trying again as the same event");
            // In the store too, so that the rows of a failing room do not fill what is read for the others.
            context.store.hold_room(&parcel.room, now + pause).await
        }
        Verdict::Gone => Ok(()),
        Verdict::Nowhere(why) => {
            warn!(room = parcel.room, row = parcel.id, why, "words are given up");
            context.store.dropped(parcel.id).await
        }
        Verdict::Later(ref why) | Verdict::Never(ref why) => {
            warn!(room = parcel.room, row = parcel.id, why, "words are given up, and the room is told when it can be");
            context.store.lost(parcel.id, matches!(verdict, Verdict::Never(_))).await
        }
    };
    if let Err(error) = written {
        warn!(%error, room = parcel.room, "the outbox cannot be written");
        pace.failed(&parcel.room, now);
    }
}

/// Keeps the outbox small.
async fn forget(store: &Store) {
    match store.prune_outbox(now() - KEPT).await {
        Ok(0) => {}
        Ok(rows) => debug!(rows, "forgot what was sent long ago"),
        Err(error) => warn!(%error, "the outbox cannot be written"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the loop reads the clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn until(at: Timestamp) -> Duration {
    at.duration_since(now()).try_into().unwrap_or(Duration::ZERO)
}

/// Rows of one room, for the tests of the parts below.
#[cfg(test)]
fn row(id: i64, room: &str, edits: Option<i64>, tried: bool, last_words: bool) -> Parcel {
    Parcel {
        id,
        txn: format!("t{id}"),
        room: room.to_owned(),
        inbox: None,
        edits: edits.map(|row| crate::store::outbox::Edited { row, event: Some("$root:x".to_owned()) }),
        payload: serde_json::to_string(&Outgoing {
            plain: format!("words {id}"),
            html: format!("words {id}"),
            reply_to: Some(format!("$asked{id}:x")),
            thread: None,
            mentions: vec!["@anna:x".to_owned()],
            anywhere: false,
            image: None,
        })
        .expect("it is JSON"),
        tried,
        last_words,
        repeatable: false,
        created_at: Timestamp::UNIX_EPOCH,
    }
}
