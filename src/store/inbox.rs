//! The journal of what came in: received → started → done → told, each event once.

use jiff::Timestamp;
use rusqlite::{Row, Transaction};

use super::gaps::Gap;
use super::{Store, StoreError, put_cursor, time};

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
    /// The Megolm session whose key is missing, or the event itself where that key is here and does not open it; `None` for a
    /// readable message.
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
    /// Event id; of a part of a command for several targets `event/target`, of a request of the usage guard an id of its own.
    /// The room's event stands in the message.
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
    /// The target's key, once the command has got as far as naming it.
    pub target: Option<String>,
    /// JSON of the absolute order: once started, or where nothing had to change.
    pub work: Option<String>,
    /// What came of it, once done.
    pub outcome: Option<String>,
    /// When the order was written.
    pub started_at: Option<Timestamp>,
    /// What it waits for while `Waiting`: see [`Arrival::waiting_for`].
    pub waiting_for: Option<String>,
}

pub(super) const COLUMNS: &str =
    "id, event, room, sender, session, state, sent_at, received_at, payload, target, work, outcome, started_at";

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
        waiting_for: row.get("session")?,
    })
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
    /// A write with arrivals is not synced. A power cut may undo it, but together with the position, so that the events arrive
    /// again; and whatever is done because of them is written later, by a synced transaction that takes this one to the disk
    /// first. All that can be left of an arrival that was undone is a read receipt, typing, or an answer of
    /// [`Store::finish_repeatable`].
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

    /// Lists the events that wait for a key.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn waiting(&self) -> Result<Vec<Entry>, StoreError> {
        self.read(move |tx| rows(tx, &format!("SELECT {COLUMNS} FROM inbox WHERE state = 'waiting' ORDER BY id"), []))
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

    /// Counts the rows that wait to be looked at or are in work. What waits for its key is not among them: that may last for a
    /// day without anything being held up.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn inbox_depth(&self) -> Result<u64, StoreError> {
        self.read(|tx| {
            Ok(tx
                .query_row("SELECT count(*) FROM inbox WHERE state IN ('received', 'started')", [], |row| {
                    row.get::<_, i64>(0)
                })?
                .unsigned_abs())
        })
        .await
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

pub(super) fn rows(tx: &Transaction<'_>, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Entry>, StoreError> {
    let mut statement = tx.prepare(sql)?;
    let rows = statement.query_map(params, entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
