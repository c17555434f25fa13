//! The journal of what came in: received → started → done → told, each event once.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Row, Transaction};

use super::gaps::Gap;
use super::outbox::{Speech, put_speech};
use super::watches::{self, NewWatch, Watch};
use super::{Store, StoreError, claim, outcome, put_cursor, time};

/// Something that arrived from a room and is not in the journal yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Event id; a second arrival of it is ignored.
    pub event: String,
    /// Room id.
    pub room: String,
    /// Full user id.
    pub sender: String,
    /// The homeserver's time for it.
    pub sent_at: Timestamp,
    /// JSON of the message, or of the encrypted event while its key is missing.
    pub payload: String,
    /// The Megolm session whose key is missing; `None` for a readable message.
    pub waiting_for: Option<String>,
}

/// How far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its room key is missing.
    Waiting,
    /// It can be read and was not looked at.
    Received,
    /// The absolute order is written; the cluster may have changed.
    Started,
    /// Outcome and words are written.
    Done,
    /// The words are in the room.
    Told,
}

impl State {
    fn parse(text: &str) -> Self {
        match text {
            "waiting" => Self::Waiting,
            "received" => Self::Received,
            "started" => Self::Started,
            "done" => Self::Done,
            _ => Self::Told,
        }
    }
}

/// One row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Row id: the order of arrival.
    pub id: i64,
    /// Event id.
    pub event: String,
    /// Room id.
    pub room: String,
    /// Full user id.
    pub sender: String,
    /// How far it has come.
    pub state: State,
    /// The homeserver's time for it.
    pub sent_at: Timestamp,
    /// When it was written here.
    pub received_at: Timestamp,
    /// JSON of the message (of the encrypted event while `Waiting`).
    pub payload: String,
    /// The target's key, once started.
    pub target: Option<String>,
    /// JSON of the absolute order, once started.
    pub work: Option<String>,
    /// What came of it, once done.
    pub outcome: Option<String>,
    /// When the order was written.
    pub started_at: Option<Timestamp>,
}

pub(super) const COLUMNS: &str =
    "id, event, room, sender, state, sent_at, received_at, payload, target, work, outcome, started_at";

pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let started: Option<i64> = row.get("started_at")?;
    Ok(Entry {
        id: row.get("id")?,
        event: row.get("event")?,
        room: row.get("room")?,
        sender: row.get("sender")?,
        state: State::parse(&row.get::<_, String>("state")?),
        sent_at: time(row, "sent_at")?,
        received_at: time(row, "received_at")?,
        payload: row.get("payload")?,
        target: row.get("target")?,
        work: row.get("work")?,
        outcome: row.get("outcome")?,
        started_at: started.and_then(|millis| Timestamp::from_millisecond(millis).ok()),
    })
}

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
    /// The order that was started has not reached the cluster: it counts for nothing, and what was before it holds again.
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
    /// Writes what arrived and the position up to which everything has arrived, in one transaction.
    ///
    /// Gives the number of rows that were new.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was written, and the position must not be used.
    pub async fn receive(
        &self,
        arrivals: Vec<Arrival>,
        position: Option<String>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        self.receive_with_gaps(arrivals, position, Vec::new(), now).await
    }

    /// As [`Store::receive`], and in the same transaction notes the rooms of which something is still to be read, or
    /// is not any more.
    ///
    /// Arrivals wait for no disk: what changes anything because of one is written after it, which brings both there, and a
    /// power cut before that takes the position back with them, so that they arrive again. What that leaves behind is a read
    /// receipt, typing, or an answer of [`Store::finish_repeatable`].
    ///
    /// # Errors
    /// As [`Store::receive`].
    pub async fn receive_with_gaps(
        &self,
        arrivals: Vec<Arrival>,
        position: Option<String>,
        gaps: Vec<(String, Option<Gap>)>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let somebody_waits = !arrivals.is_empty();
        let write = move |tx: &Transaction<'_>| {
            let mut new = 0;
            for arrival in &arrivals {
                new += put_arrival(tx, arrival, now)?;
            }
            for (room, gap) in &gaps {
                super::gaps::put(tx, room, gap.as_ref())?;
            }
            if let Some(position) = &position {
                put_cursor(tx, "sync", position)?;
                put_cursor(tx, "synced_at", &now.as_millisecond().to_string())?;
            }
            Ok(new)
        };
        if somebody_waits { self.call_unsynced(write).await } else { self.call(write).await }
    }

    /// Lists the events that wait for the key of a session, or all that wait.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn waiting(&self, session: Option<String>) -> Result<Vec<Entry>, StoreError> {
        self.read(move |tx| {
            rows(
                tx,
                &format!(
                    "SELECT {COLUMNS} FROM inbox WHERE state = 'waiting' AND (?1 IS NULL OR session = ?1) ORDER BY id"
                ),
                [session],
            )
        })
        .await
    }

    /// Brings a waiting event back as a readable message.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn revive(&self, id: i64, payload: String) -> Result<(), StoreError> {
        self.call(move |tx| {
            tx.execute(
                "UPDATE inbox SET state = 'received', session = NULL, payload = ?2 WHERE id = ?1 AND state = 'waiting'",
                (id, payload),
            )?;
            Ok(())
        })
        .await
    }

    /// Lists what was received and not looked at, in the order of arrival; parts stand in the place of their whole.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn received(&self, limit: u32) -> Result<Vec<Entry>, StoreError> {
        self.read(move |tx| {
            rows(
                tx,
                &format!(
                    "SELECT {COLUMNS} FROM inbox WHERE state = 'received' ORDER BY coalesce(parent, id), id LIMIT ?1"
                ),
                [limit],
            )
        })
        .await
    }

    /// Lists what was started and has no outcome: at a start, the orders that a kill interrupted.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn unfinished(&self) -> Result<Vec<Entry>, StoreError> {
        self.read(move |tx| rows(tx, &format!("SELECT {COLUMNS} FROM inbox WHERE state = 'started' ORDER BY id"), []))
            .await
    }

    /// Counts the rows that wait to be looked at.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn inbox_depth(&self) -> Result<u64, StoreError> {
        self.read(|tx| {
            Ok(tx
                .query_row("SELECT count(*) FROM inbox WHERE state IN ('waiting', 'received', 'started')", [], |row| {
                    row.get::<_, i64>(0)
                })?
                .unsigned_abs())
        })
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

    /// As [`Store::finish`], for a command that ordered nothing: it may be done again without harm, so its words wait for no
    /// disk. After a power cut it is done again or told as too old, under the same transaction id: what the homeserver has
    /// of it already stays as it is.
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

    /// Replaces a command for several targets by one for each, in one transaction: each is journaled, answered and watched
    /// by itself. A part is its name within the command and the JSON of its message.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was replaced.
    pub async fn split(&self, id: i64, parts: Vec<(String, String)>, now: Timestamp) -> Result<(), StoreError> {
        self.call(move |tx| {
            for (part, payload) in &parts {
                tx.execute(
                    "INSERT INTO inbox (parent, event, room, sender, state, sent_at, received_at, payload)
                     SELECT id, event || '/' || ?2, room, sender, 'received', sent_at, received_at, ?3 FROM inbox WHERE id = ?1
                     ON CONFLICT (event) DO NOTHING",
                    (id, part, payload),
                )?;
            }
            tx.execute("UPDATE inbox SET state = 'told', done_at = ?2 WHERE id = ?1", (id, now.as_millisecond()))?;
            Ok(())
        })
        .await
    }

    /// Closes an entry that was no command and forgets its text: idle talk is nobody's business.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn ignore(&self, id: i64, now: Timestamp) -> Result<(), StoreError> {
        self.call(move |tx| {
            tx.execute(
                "UPDATE inbox SET state = 'told', payload = '', outcome = NULL, done_at = ?2 WHERE id = ?1",
                (id, now.as_millisecond()),
            )?;
            Ok(())
        })
        .await
    }

    /// Lists the last commands that were started or done for a target, newest first: who did what.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn history(&self, target: Option<String>, limit: u32) -> Result<Vec<Entry>, StoreError> {
        self.read(move |tx| {
            rows(
                tx,
                &format!(
                    "SELECT {COLUMNS} FROM inbox WHERE target IS NOT NULL AND (?1 IS NULL OR target = ?1)
                     ORDER BY id DESC LIMIT ?2"
                ),
                (target, limit),
            )
        })
        .await
    }

    /// Lists the last commands that ended without an order for a target and are worth telling, newest first: keys that were
    /// accepted and alerts that were muted.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn unmoved(&self, limit: u32) -> Result<Vec<Entry>, StoreError> {
        self.read(move |tx| {
            let sql = format!(
                "SELECT {COLUMNS} FROM inbox WHERE target IS NULL AND (outcome = ?1 OR substr(outcome, 1, length(?2)) = ?2)
                 ORDER BY id DESC LIMIT ?3"
            );
            rows(tx, &sql, (outcome::MUTED, outcome::ACCEPTED, limit))
        })
        .await
    }

    /// Lists the last commands that were not done, newest first: refusals, what came too late, what was overtaken.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn undone(&self, limit: u32) -> Result<Vec<Entry>, StoreError> {
        self.read(move |tx| {
            let sql = format!(
                "SELECT {COLUMNS} FROM inbox
                 WHERE target IS NULL AND (outcome IN (?1, ?2) OR substr(outcome, 1, length(?3)) = ?3)
                 ORDER BY id DESC LIMIT ?4"
            );
            rows(tx, &sql, (outcome::TOO_OLD, outcome::OVERTAKEN, outcome::REFUSED, limit))
        })
        .await
    }

    /// Forgets finished entries that are older than `before`, and that a notice was given; what remains of sessions that
    /// are silent since then is one row each. What was said is forgotten by [`Store::prune_outbox`].
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn prune(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.call(move |tx| {
            let before = before.as_millisecond();
            tx.execute("DELETE FROM notice WHERE at < ?1", [before])?;
            let forgotten = tx.execute(
                "DELETE FROM inbox WHERE state = 'told' AND received_at < ?1 AND id NOT IN (SELECT inbox FROM watch)",
                [before],
            )?;
            super::replay::shrink(tx)?;
            Ok(forgotten)
        })
        .await
    }
}

/// Writes one arrival; gives 0 for an event that arrived before.
pub(super) fn put_arrival(tx: &Transaction<'_>, arrival: &Arrival, now: Timestamp) -> Result<usize, StoreError> {
    let state = if arrival.waiting_for.is_some() { "waiting" } else { "received" };
    Ok(tx.execute(
        "INSERT INTO inbox (event, room, sender, session, state, sent_at, received_at, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (event) DO NOTHING",
        (
            &arrival.event,
            &arrival.room,
            &arrival.sender,
            &arrival.waiting_for,
            state,
            arrival.sent_at.as_millisecond(),
            now.as_millisecond(),
            &arrival.payload,
        ),
    )?)
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

pub(super) fn rows(tx: &Transaction<'_>, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Entry>, StoreError> {
    let mut statement = tx.prepare(sql)?;
    let rows = statement.query_map(params, entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
