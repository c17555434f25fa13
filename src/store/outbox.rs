//! The queue of what must go out: payload and transaction id are stored together before the first try, so that a repeated
//! send is the same event.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction};

use super::losses::{self, Cause};
use super::{Store, StoreError, time};

/// Most rows that may wait: what comes beyond is counted and dropped, oldest progress first.
pub const CAPACITY: i64 = 1000;

/// Cursor with the number of rows that were given up so far.
const DROPPED: &str = "outbox_dropped";

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

/// What goes out of a row from its first try on, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// Transaction id.
    pub txn: String,
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
        /// Room id, for a new event where the row is gone or cannot be edited.
        room: String,
        /// Transaction id of the edit, if one is needed.
        txn: String,
        /// JSON of the words.
        payload: String,
    },
}

impl Speech {
    /// A new text for the event of a row; a new event where there is no row.
    #[must_use]
    pub fn about(row: Option<i64>, room: String, txn: String, payload: String) -> Self {
        match row {
            Some(row) => Self::Revise { row, room, txn, payload },
            None => Self::New(Draft { txn, room, payload }),
        }
    }
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
    /// Whether it answers a command that changed nothing: after a power cut that command may be answered again, by the same
    /// event.
    pub repeatable: bool,
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
      AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.id = o.inbox AND inbox.state = 'started') AS last_words,
    o.edits IS NULL AND EXISTS (SELECT 1 FROM inbox WHERE inbox.id = o.inbox AND inbox.started_at IS NULL) AS repeatable";

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
        repeatable: row.get("repeatable")?,
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
            shed(tx)?;
            Ok(tx.query_row("SELECT id FROM outbox WHERE txn = ?1", [&draft.txn], |row| row.get(0))?)
        }
        Speech::Revise { row, room, txn, payload } => {
            let row = &stands_for(tx, inbox, *row)?;
            if tx.execute(
                "UPDATE outbox SET payload = ?2, created_at = ?3 WHERE id = ?1 AND state = 'queued' AND NOT joined",
                (row, payload, now),
            )? > 0
            {
                return Ok(*row);
            }
            if tx.execute(
                "UPDATE outbox SET payload = ?2, created_at = ?3 WHERE edits = ?1 AND state = 'queued'",
                (row, payload, now),
            )? > 0
            {
                return Ok(*row);
            }
            let event: Option<(String, bool)> = tx
                .query_row(
                    "SELECT room, state IN ('sent', 'trying') AND NOT joined FROM outbox WHERE id = ?1",
                    [row],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            let (home, editable) = event.as_ref().map_or((room, false), |(home, editable)| (home, *editable));
            // What was dropped, merged or speaks for others cannot be edited: its news goes out as an event of its own.
            let edits = editable.then_some(*row);
            tx.execute(
                "INSERT INTO outbox (txn, room, inbox, edits, state, payload, created_at, not_before)
                 VALUES (?1, ?2, ?3, ?4, 'queued', ?5, ?6, 0) ON CONFLICT (txn) DO NOTHING",
                (txn, home, inbox, edits, payload, now),
            )?;
            shed(tx)?;
            match edits {
                Some(row) => Ok(row),
                None => Ok(tx.query_row("SELECT id FROM outbox WHERE txn = ?1", [txn], |row| row.get(0))?),
            }
        }
    }
}

/// Gives the row whose event is to be edited: where the first one of a command was merged into another or given up, its later
/// news has an event of its own, and what comes after that edits it.
fn stands_for(tx: &Transaction<'_>, inbox: Option<i64>, row: i64) -> Result<i64, StoreError> {
    let later = "SELECT max(id) FROM outbox WHERE inbox = ?1 AND edits IS NULL AND id > ?2
                   AND NOT EXISTS (SELECT 1 FROM outbox WHERE id = ?2 AND state IN ('queued', 'trying', 'sent') AND NOT joined)";
    let later: Option<i64> = tx.query_row(later, (inbox, row), |found| found.get(0))?;
    Ok(later.unwrap_or(row))
}

/// Counts rows that were given up; the count outlives them.
fn count_dropped(tx: &Transaction<'_>, rows: usize) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO cursor (name, token) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET token = token + ?2",
        (DROPPED, rows.to_string()),
    )?;
    Ok(())
}

/// Drops what waits beyond [`CAPACITY`]: edits before messages, the oldest first, nothing that was tried. What a room has
/// lost is kept until it was told.
fn shed(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let waiting: i64 =
        tx.query_row("SELECT count(*) FROM outbox WHERE state IN ('queued', 'trying')", [], |row| row.get(0))?;
    if waiting <= CAPACITY {
        return Ok(());
    }
    let mut statement =
        tx.prepare("SELECT id, room FROM outbox WHERE state = 'queued' ORDER BY edits IS NULL, id LIMIT ?1")?;
    let rows: Vec<(i64, String)> =
        statement.query_map([waiting - CAPACITY], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (row, room) in rows {
        tracing::warn!(room, row, "words are given up: more than {CAPACITY} wait to go out");
        tx.execute("UPDATE outbox SET state = 'dropped' WHERE id = ?1", [row])?;
        count_dropped(tx, 1)?;
        losses::note(tx, row, Cause::Crowded)?;
        tell_row(tx, row)?;
    }
    Ok(())
}

fn give_up(tx: &Transaction<'_>, row: i64) -> Result<(), StoreError> {
    tx.execute("UPDATE outbox SET state = 'dropped' WHERE id = ?1", [row])?;
    count_dropped(tx, 1)?;
    // Its edits would wait for ever: they go out as events of their own.
    tx.execute("UPDATE outbox SET edits = NULL WHERE edits = ?1 AND state = 'queued'", [row])?;
    tell_row(tx, row)
}

impl Store {
    /// Puts words into the queue; gives the row of their event, for later revisions.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn say(&self, inbox: Option<i64>, speech: Speech, now: Timestamp) -> Result<i64, StoreError> {
        self.call(move |tx| put_speech(tx, inbox, &speech, now)).await
    }

    /// Gives words that had no room yet (their room is empty) to the first that is known; what is older than `since` is
    /// no news any more. Says how many there are.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn adopt(&self, room: &str, since: Timestamp) -> Result<usize, StoreError> {
        let room = room.to_owned();
        self.call(move |tx| {
            let since = since.as_millisecond();
            let old = tx.execute(
                "UPDATE outbox SET state = 'dropped' WHERE room = '' AND state = 'queued' AND created_at < ?1",
                [since],
            )?;
            if old > 0 {
                tracing::warn!(rows = old, "words are given up: no room was known for them while they were news");
                count_dropped(tx, old)?;
            }
            losses::adopt(tx, &room)?;
            Ok(tx.execute("UPDATE outbox SET room = ?1 WHERE room = '' AND state = 'queued'", [room])?)
        })
        .await
    }

    /// Finds the row of the first words that answered a command.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn answer_row(&self, inbox: i64) -> Result<Option<i64>, StoreError> {
        self.read(move |tx| {
            Ok(tx.query_row("SELECT min(id) FROM outbox WHERE inbox = ?1 AND edits IS NULL", [inbox], |row| {
                row.get(0)
            })?)
        })
        .await
    }

    /// Lists what may go out now, oldest first. An edit waits for its event.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn outgoing(&self, now: Timestamp, limit: u32) -> Result<Vec<Parcel>, StoreError> {
        self.read(move |tx| {
            let mut statement = tx.prepare(&format!(
                "SELECT {COLUMNS} FROM outbox o LEFT JOIN outbox root ON root.id = o.edits
                 WHERE o.state IN ('queued', 'trying') AND o.not_before <= ?1 AND o.room <> ''
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
        self.read(|tx| {
            let at: Option<i64> = tx
                .query_row(
                    "SELECT min(o.not_before) FROM outbox o LEFT JOIN outbox root ON root.id = o.edits
                     WHERE o.state IN ('queued', 'trying') AND o.room <> ''
                       AND (o.edits IS NULL OR root.event IS NOT NULL)",
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
        self.read(|tx| {
            Ok(tx
                .query_row(
                    "SELECT count(*) FROM outbox WHERE state IN ('queued', 'trying') AND room <> ''",
                    [],
                    |row| row.get::<_, i64>(0),
                )?
                .unsigned_abs())
        })
        .await
    }

    /// Counts the rows that were given up, as far back as they are kept.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn outbox_dropped(&self) -> Result<u64, StoreError> {
        let count = self.cursor(DROPPED).await?;
        Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
    }

    /// Forgets rows from before `before` that are in the room or given up, and that nothing refers to any more.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn prune_outbox(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.call(move |tx| {
            // An edit goes before its event, in the same run or a later one.
            Ok(tx.execute(
                "DELETE FROM outbox WHERE state IN ('sent', 'dropped', 'merged') AND created_at < ?1
                   AND NOT EXISTS (SELECT 1 FROM outbox edit WHERE edit.edits = outbox.id
                                    AND (edit.state IN ('queued', 'trying') OR edit.created_at >= ?1))
                   AND NOT EXISTS (SELECT 1 FROM watch WHERE watch.outbox = outbox.id)
                   AND NOT EXISTS (SELECT 1 FROM usage_alert alert
                                    WHERE alert.outbox = outbox.id AND alert.over_at IS NULL)",
                [before.as_millisecond()],
            )?)
        })
        .await
    }

    /// Freezes words and transaction id before the first try: every later try sends exactly these.
    ///
    /// Gives them as they stand now: a revision may have come since the row was listed. `None`: the row was given up since.
    /// A row that others were merged into gets a transaction id of its own: under the first one its words alone may be in the
    /// room already, tried before a power cut that undid the note of it. What is [`repeatable`](Parcel::repeatable) is not
    /// synced.
    ///
    /// # Errors
    /// [`StoreError`]: do not send.
    pub async fn try_parcel(&self, id: i64, repeatable: bool) -> Result<Option<Fixed>, StoreError> {
        let fix = move |tx: &Transaction<'_>| {
            tx.execute("UPDATE outbox SET state = 'trying' WHERE id = ?1 AND state = 'queued'", [id])?;
            let waits = "SELECT CASE WHEN joined THEN txn || 'm' || joined ELSE txn END, payload FROM outbox
                         WHERE id = ?1 AND state = 'trying'";
            Ok(tx.query_row(waits, [id], |row| Ok(Fixed { txn: row.get(0)?, payload: row.get(1)? })).optional()?)
        };
        if repeatable { self.call_unsynced(fix).await } else { self.call(fix).await }
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
            losses::passed(tx, id)?;
            tell_row(tx, id)
        })
        .await
    }

    /// Gives a row up that nobody could read: the room is gone, or must not be spoken in.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn dropped(&self, id: i64) -> Result<(), StoreError> {
        self.call(move |tx| give_up(tx, id)).await
    }

    /// Gives a row up that its room should have read, and is to be told of ([`losses`]): it could not be sent for too long,
    /// or the homeserver `refused` it.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn lost(&self, id: i64, refused: bool) -> Result<(), StoreError> {
        self.call(move |tx| {
            losses::note(tx, id, if refused { Cause::Refused } else { Cause::Crowded })?;
            give_up(tx, id)
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

    /// Folds rows that were never tried into the first of them, whose words become `payload` and are as old as the last.
    /// Where the first was given up meanwhile, each stays for itself.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was folded.
    pub async fn merge(&self, first: i64, others: Vec<i64>, payload: String) -> Result<(), StoreError> {
        self.call(move |tx| {
            let folded = tx.execute(
                "UPDATE outbox SET payload = ?2, joined = joined + ?3,
                   created_at = (SELECT max(created_at) FROM outbox WHERE id IN (?1, ?4))
                 WHERE id = ?1 AND state = 'queued'",
                (first, payload, others.len(), others.last()),
            )?;
            if folded == 0 {
                return Ok(());
            }
            for other in others {
                tx.execute("UPDATE outbox SET state = 'merged' WHERE id = ?1 AND state = 'queued'", [other])?;
                tell_row(tx, other)?;
            }
            Ok(())
        })
        .await
    }
}

/// A command is told once it is done and none of its words wait.
pub(super) fn tell(tx: &Transaction<'_>, inbox: i64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE inbox SET state = 'told' WHERE state = 'done' AND id = ?1
           AND NOT EXISTS (SELECT 1 FROM outbox w WHERE w.inbox = inbox.id AND w.state IN ('queued', 'trying'))",
        [inbox],
    )?;
    Ok(())
}

fn tell_row(tx: &Transaction<'_>, row: i64) -> Result<(), StoreError> {
    let inbox: Option<i64> = tx.query_row("SELECT inbox FROM outbox WHERE id = ?1", [row], |row| row.get(0))?;
    inbox.map_or(Ok(()), |inbox| tell(tx, inbox))
}

#[cfg(test)]
mod tests;
