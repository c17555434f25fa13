//! The queue of what must go out: payload and transaction id are stored together before the first try, so that a repeated
//! send is the same event.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction};

use super::{Store, StoreError, time};

/// Most rows that may wait: what comes beyond is counted and dropped, oldest progress first.
pub const CAPACITY: i64 = 1000;

/// A new event for a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Transaction id: the same id is the same event, however often it is sent.
    pub txn: String,
    /// Room id.
    pub room: String,
    /// JSON of the words.
    pub payload: String,
}

/// What the room reads: a new event, or a new text for an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speech {
    /// A new event.
    New(Draft),
    /// A new text for the event of an earlier row. Where that row was never tried, its text is replaced in place;
    /// where an edit of it waits untried, that edit's is.
    Revise {
        /// Row of the event.
        row: i64,
        /// Transaction id of the edit, if one is needed.
        txn: String,
        /// JSON of the words.
        payload: String,
    },
}

/// One row that waits to go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Row id: the order of going out, within a room.
    pub id: i64,
    /// Transaction id.
    pub txn: String,
    /// Room id.
    pub room: String,
    /// Command that it answers.
    pub inbox: Option<i64>,
    /// Event id that it edits, once known.
    pub edits: Option<Edited>,
    /// JSON of the words.
    pub payload: String,
    /// Whether it was tried with this text before.
    pub tried: bool,
    /// Whether nothing more is to come for this message: its command is done and no rollout is watched for it.
    pub last_words: bool,
    /// When it was written.
    pub created_at: Timestamp,
}

/// The earlier event that an edit replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// Its row.
    pub row: i64,
    /// Its event id; `None` while it is on its way.
    pub event: Option<String>,
}

const COLUMNS: &str =
    "o.id, o.txn, o.room, o.inbox, o.edits, o.state, o.payload, o.created_at, root.event AS root_event,
    NOT EXISTS (SELECT 1 FROM watch WHERE watch.inbox = o.inbox)
      AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.id = o.inbox AND inbox.state = 'started') AS last_words";

fn parcel(row: &Row<'_>) -> rusqlite::Result<Parcel> {
    let edits: Option<i64> = row.get("edits")?;
    let event: Option<String> = row.get("root_event")?;
    Ok(Parcel {
        id: row.get("id")?,
        txn: row.get("txn")?,
        room: row.get("room")?,
        inbox: row.get("inbox")?,
        edits: edits.map(|row| Edited { row, event }),
        payload: row.get("payload")?,
        tried: row.get::<_, String>("state")? == "trying",
        last_words: row.get("last_words")?,
        created_at: time(row, "created_at")?,
    })
}

/// Writes words into the queue, inside another transaction; gives the row of the event (not of an edit).
pub(super) fn put_speech(
    tx: &Transaction<'_>,
    inbox: Option<i64>,
    speech: &Speech,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let now = now.as_millisecond();
    match speech {
        Speech::New(draft) => {
            tx.execute(
                "INSERT INTO outbox (txn, room, inbox, state, payload, created_at, not_before)
                 VALUES (?1, ?2, ?3, 'queued', ?4, ?5, 0) ON CONFLICT (txn) DO NOTHING",
                (&draft.txn, &draft.room, inbox, &draft.payload, now),
            )?;
            Ok(tx.query_row("SELECT id FROM outbox WHERE txn = ?1", [&draft.txn], |row| row.get(0))?)
        }
        Speech::Revise { row, txn, payload } => {
            if tx.execute("UPDATE outbox SET payload = ?2 WHERE id = ?1 AND state = 'queued'", (row, payload))? > 0 {
                return Ok(*row);
            }
            if tx.execute("UPDATE outbox SET payload = ?2 WHERE edits = ?1 AND state = 'queued'", (row, payload))? > 0 {
                return Ok(*row);
            }
            let (room, state): (String, String) =
                tx.query_row("SELECT room, state FROM outbox WHERE id = ?1", [row], |r| Ok((r.get(0)?, r.get(1)?)))?;
            // A dropped or merged event cannot be edited: its news goes out as an event of its own.
            let root = (state == "sent" || state == "trying").then_some(*row);
            tx.execute(
                "INSERT INTO outbox (txn, room, inbox, edits, state, payload, created_at, not_before)
                 VALUES (?1, ?2, ?3, ?4, 'queued', ?5, ?6, 0) ON CONFLICT (txn) DO NOTHING",
                (txn, room, inbox, root, payload, now),
            )?;
            match root {
                Some(root) => Ok(root),
                None => Ok(tx.query_row("SELECT id FROM outbox WHERE txn = ?1", [txn], |row| row.get(0))?),
            }
        }
    }
}

impl Store {
    /// Puts words into the queue; gives the row of their event, for later revisions.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn say(&self, inbox: Option<i64>, speech: Speech, now: Timestamp) -> Result<i64, StoreError> {
        self.call(move |tx| put_speech(tx, inbox, &speech, now)).await
    }

    /// Lists what may go out now, oldest first. An edit waits for its event.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn outgoing(&self, now: Timestamp, limit: u32) -> Result<Vec<Parcel>, StoreError> {
        self.call(move |tx| {
            let mut statement = tx.prepare(&format!(
                "SELECT {COLUMNS} FROM outbox o LEFT JOIN outbox root ON root.id = o.edits
                 WHERE o.state IN ('queued', 'trying') AND o.not_before <= ?1
                   AND (o.edits IS NULL OR root.event IS NOT NULL)
                 ORDER BY o.id LIMIT ?2"
            ))?;
            let rows = statement.query_map((now.as_millisecond(), limit), parcel)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Says when the next row that waits for a time may go out.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn next_outgoing_at(&self) -> Result<Option<Timestamp>, StoreError> {
        self.call(|tx| {
            let at: Option<i64> = tx
                .query_row(
                    "SELECT min(o.not_before) FROM outbox o LEFT JOIN outbox root ON root.id = o.edits
                     WHERE o.state IN ('queued', 'trying') AND (o.edits IS NULL OR root.event IS NOT NULL)",
                    [],
                    |row| row.get(0),
                )
                .optional()?
                .flatten();
            Ok(at.and_then(|millis| Timestamp::from_millisecond(millis).ok()))
        })
        .await
    }

    /// Counts the rows that wait.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn outbox_depth(&self) -> Result<u64, StoreError> {
        self.call(|tx| {
            Ok(tx
                .query_row("SELECT count(*) FROM outbox WHERE state IN ('queued', 'trying')", [], |row| {
                    row.get::<_, i64>(0)
                })?
                .unsigned_abs())
        })
        .await
    }

    /// Fixes the text: from now on it goes out with exactly these words and this transaction id.
    ///
    /// Gives the words as they stand now: a revision may have come since they were read.
    ///
    /// # Errors
    /// [`StoreError`]: do not send.
    pub async fn try_parcel(&self, id: i64) -> Result<String, StoreError> {
        self.call(move |tx| {
            tx.execute("UPDATE outbox SET state = 'trying' WHERE id = ?1 AND state = 'queued'", [id])?;
            Ok(tx.query_row("SELECT payload FROM outbox WHERE id = ?1", [id], |row| row.get(0))?)
        })
        .await
    }

    /// Notes that the row is in the room, and with it the command that it answers (the last words, not the progress).
    ///
    /// # Errors
    /// [`StoreError`]: the row will be sent again, as the same event.
    pub async fn sent(&self, id: i64, event: &str, now: Timestamp) -> Result<(), StoreError> {
        let event = event.to_owned();
        self.call(move |tx| {
            tx.execute(
                "UPDATE outbox SET state = 'sent', event = ?2, sent_at = ?3 WHERE id = ?1",
                (id, event, now.as_millisecond()),
            )?;
            tell(tx, id)
        })
        .await
    }

    /// Gives a row up: the room is gone, or the homeserver will never take it.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn dropped(&self, id: i64) -> Result<(), StoreError> {
        self.call(move |tx| {
            tx.execute("UPDATE outbox SET state = 'dropped' WHERE id = ?1", [id])?;
            tell(tx, id)
        })
        .await
    }

    /// Lets no row of the room out before `until`: the homeserver asked for it.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn hold_room(&self, room: &str, until: Timestamp) -> Result<(), StoreError> {
        let room = room.to_owned();
        self.call(move |tx| {
            tx.execute(
                "UPDATE outbox SET not_before = max(not_before, ?2) WHERE room = ?1 AND state IN ('queued', 'trying')",
                (room, until.as_millisecond()),
            )?;
            Ok(())
        })
        .await
    }

    /// Lets one row out no earlier than `until`: progress waits its turn.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn hold_parcel(&self, id: i64, until: Timestamp) -> Result<(), StoreError> {
        self.call(move |tx| {
            tx.execute(
                "UPDATE outbox SET not_before = max(not_before, ?2) WHERE id = ?1",
                (id, until.as_millisecond()),
            )?;
            Ok(())
        })
        .await
    }

    /// Folds rows that were never tried into the first of them, whose words become `payload`.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was folded.
    pub async fn merge(&self, first: i64, others: Vec<i64>, payload: String) -> Result<(), StoreError> {
        self.call(move |tx| {
            tx.execute("UPDATE outbox SET payload = ?2 WHERE id = ?1 AND state = 'queued'", (first, payload))?;
            for other in others {
                tx.execute("UPDATE outbox SET state = 'merged' WHERE id = ?1 AND state = 'queued'", [other])?;
                tell(tx, other)?;
            }
            Ok(())
        })
        .await
    }
}

/// A command is told once it is done and none of its words wait.
fn tell(tx: &Transaction<'_>, row: i64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE inbox SET state = 'told' WHERE state = 'done' AND id = (SELECT inbox FROM outbox WHERE id = ?1)
           AND NOT EXISTS (SELECT 1 FROM outbox w WHERE w.inbox = inbox.id AND w.state IN ('queued', 'trying'))",
        [row],
    )?;
    Ok(())
}
