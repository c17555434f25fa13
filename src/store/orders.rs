//! What was ordered and what came of it: received → started → done, with the words for the room and the watch that follows.

use jiff::{SignedDuration, Timestamp};
use rusqlite::Transaction;

use super::inbox::{COLUMNS, Entry, rows};
use super::outbox::{Speech, put_speech};
use super::watches::{self, NewWatch, Watch};
use super::{Store, StoreError, claim, outcome};

/// The absolute order of a command, written before anything moves. A second one replaces the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Row of the inbox.
    pub id: i64,
    /// Key of the target, `kind/namespace/name`.
    pub target: String,
    /// JSON of the order.
    pub work: String,
    /// Replicas to return to (`stop` writes them; 0 is never written).
    pub remember: Option<i32>,
    /// What the room reads meanwhile.
    pub progress: Option<Speech>,
    /// Watches of older orders that end with this one, and their last words.
    pub superseded: Vec<(i64, Speech)>,
}

/// What came of a command, written before the room hears of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Row of the inbox.
    pub id: i64,
    /// The outcome in one word or sentence, for `history`.
    pub outcome: String,
    /// Key of the target, where the command got no further than naming it.
    pub target: Option<String>,
    /// JSON of the absolute order, where nothing had to change.
    pub work: Option<String>,
    /// The order that was started has not reached the cluster: it is taken off the record, and what was before it holds again.
    pub given_up: Option<Before>,
    /// What the room reads.
    pub speech: Option<Speech>,
    /// Row of the words that the room reads already, if `speech` is none.
    pub message: Option<i64>,
    /// A rollout to go on watching.
    pub watch: Option<NewWatch>,
    /// The words are said once in this time under this key; otherwise nothing is.
    pub once: Option<(String, SignedDuration)>,
}

/// What an order changed in the journal when it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// Replicas that were remembered for its target.
    pub remembered: Option<i32>,
    /// Watches that it ended, each with the outcome that its command had.
    pub watches: Vec<(Watch, String)>,
}

impl Done {
    /// An outcome without words.
    #[must_use]
    pub fn silent(id: i64, outcome: &str) -> Self {
        let outcome = outcome.to_owned();
        Self {
            id,
            outcome,
            target: None,
            work: None,
            given_up: None,
            speech: None,
            message: None,
            watch: None,
            once: None,
        }
    }
}

impl Store {
    /// Lists what was started and has no outcome: at a start, the orders that a kill interrupted.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn unfinished(&self) -> Result<Vec<Entry>, StoreError> {
        self.read(move |tx| rows(tx, &format!("SELECT {COLUMNS} FROM inbox WHERE state = 'started' ORDER BY id"), []))
            .await
    }

    /// Writes the absolute order, what to remember and what the room reads meanwhile, and ends the watches of older orders;
    /// gives the outbox row.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was written, and nothing may be done.
    pub async fn start(&self, started: Started, now: Timestamp) -> Result<Option<i64>, StoreError> {
        self.call(move |tx| {
            tx.execute(
                "UPDATE inbox SET state = 'started', target = ?2, work = ?3, started_at = ?4 WHERE id = ?1",
                (started.id, &started.target, &started.work, now.as_millisecond()),
            )?;
            if let Some(replicas) = started.remember.filter(|&replicas| replicas > 0) {
                super::memory::remember(tx, &started.target, Some(replicas), now)?;
            }
            super::falls::forget(tx, &started.target)?;
            // Somebody waits for this; what it ends has been read already.
            let row = match &started.progress {
                Some(speech) => Some(put_speech(tx, Some(started.id), speech, now)?),
                None => None,
            };
            for (watch, speech) in &started.superseded {
                watches::end(tx, *watch, outcome::SUPERSEDED, Some(speech), now)?;
            }
            Ok(row)
        })
        .await
    }

    /// Writes the outcome, the words for the room and the rollout to watch; gives the outbox row of the words.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was written.
    pub async fn finish(&self, done: Done, now: Timestamp) -> Result<Option<i64>, StoreError> {
        self.call(move |tx| put_done(tx, &done, now)).await
    }

    /// As [`Store::finish`], not synced, for a command that changed nothing. After a power cut it is answered again, or told as
    /// too old, under the same transaction id: what the homeserver already has of the answer stays as it is.
    ///
    /// # Errors
    /// As [`Store::finish`].
    pub async fn finish_repeatable(&self, done: Done, now: Timestamp) -> Result<(), StoreError> {
        self.call_unsynced(move |tx| put_done(tx, &done, now).map(drop)).await
    }

    /// Writes the outcomes of several commands in one transaction: the words of one may speak for all.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was written.
    pub async fn finish_all(&self, all: Vec<Done>, now: Timestamp) -> Result<(), StoreError> {
        self.call(move |tx| all.iter().try_for_each(|done| put_done(tx, done, now).map(drop))).await
    }
}

fn put_done(tx: &Transaction<'_>, done: &Done, now: Timestamp) -> Result<Option<i64>, StoreError> {
    tx.execute(
        "UPDATE inbox SET state = 'done', outcome = ?2, target = coalesce(target, ?3), work = coalesce(work, ?4),
           done_at = ?5 WHERE id = ?1",
        (done.id, &done.outcome, &done.target, &done.work, now.as_millisecond()),
    )?;
    if let Some(before) = &done.given_up {
        give_up(tx, done, before, now)?;
    }
    let due = match &done.once {
        Some((key, every)) => claim(tx, key, now, *every)?,
        None => true,
    };
    let outbox = match &done.speech {
        Some(speech) if due => Some(put_speech(tx, Some(done.id), speech, now)?),
        _ => {
            super::outbox::tell(tx, done.id)?;
            done.message
        }
    };
    if let Some(NewWatch { target, payload, deadline }) = done.watch.clone() {
        watches::put(tx, &Watch { inbox: done.id, target, payload, outbox, since: now, deadline })?;
    }
    Ok(outbox)
}

/// Takes an order off the record, and with it what it changed there.
fn give_up(tx: &Transaction<'_>, done: &Done, before: &Before, now: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE inbox SET work = ?2, started_at = NULL WHERE id = ?1", (done.id, &done.work))?;
    let target: String = tx.query_row("SELECT target FROM inbox WHERE id = ?1", [done.id], |row| row.get(0))?;
    super::memory::remember(tx, &target, before.remembered, now)?;
    before.watches.iter().try_for_each(|(watch, outcome)| watches::give_back(tx, watch, outcome))
}

#[cfg(test)]
mod tests;
