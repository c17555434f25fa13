//! Rollouts under watch: a restart of Pilothouse goes on with them.

use jiff::Timestamp;
use rusqlite::Transaction;

use super::{Store, StoreError, time};

/// A rollout that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWatch {
    /// Key of the target, `kind/namespace/name`.
    pub target: String,
    /// JSON of what is waited for.
    pub payload: String,
    /// When it is told as unfinished.
    pub deadline: Timestamp,
}

/// A stored watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The command, by its row in the inbox.
    pub inbox: i64,
    /// Key of the target.
    pub target: String,
    /// JSON of what is waited for.
    pub payload: String,
    /// Row of the message to edit.
    pub outbox: Option<i64>,
    /// When the order was carried out.
    pub since: Timestamp,
    /// When it is told as unfinished.
    pub deadline: Timestamp,
}

pub(super) fn put(tx: &Transaction<'_>, watch: &Watch) -> Result<(), StoreError> {
    tx.execute(
        "INSERT OR REPLACE INTO watch (inbox, target, payload, outbox, since, deadline) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            watch.inbox,
            &watch.target,
            &watch.payload,
            watch.outbox,
            watch.since.as_millisecond(),
            watch.deadline.as_millisecond(),
        ),
    )?;
    Ok(())
}

pub(super) fn end(
    tx: &Transaction<'_>,
    inbox: i64,
    outcome: &str,
    speech: Option<&super::outbox::Speech>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if tx.execute("DELETE FROM watch WHERE inbox = ?1", [inbox])? == 0 {
        return Ok(false);
    }
    tx.execute("UPDATE inbox SET outcome = ?2 WHERE id = ?1", (inbox, outcome))?;
    if let Some(speech) = speech {
        super::outbox::put_speech(tx, Some(inbox), speech, now)?;
    }
    Ok(true)
}

/// Brings back a watch that a newer order has ended; one that came to an end of its own stays ended.
pub(super) fn give_back(tx: &Transaction<'_>, watch: &Watch, outcome: &str) -> Result<(), StoreError> {
    let sql = "UPDATE inbox SET outcome = ?2 WHERE id = ?1 AND outcome = ?3";
    let is_back = tx.execute(sql, (watch.inbox, outcome, super::outcome::SUPERSEDED))? > 0;
    if is_back { put(tx, watch) } else { Ok(()) }
}

pub(super) fn list(tx: &Transaction<'_>) -> Result<Vec<Watch>, StoreError> {
    let mut statement =
        tx.prepare("SELECT inbox, target, payload, outbox, since, deadline FROM watch ORDER BY since, inbox")?;
    let rows = statement.query_map([], |row| {
        Ok(Watch {
            inbox: row.get("inbox")?,
            target: row.get("target")?,
            payload: row.get("payload")?,
            outbox: row.get("outbox")?,
            since: time(row, "since")?,
            deadline: time(row, "deadline")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Store {
    /// Lists the watches, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn watches(&self) -> Result<Vec<Watch>, StoreError> {
        self.read(list).await
    }

    /// Says how a watch goes on. Gives `false` if it has ended: then nothing is said.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was said.
    pub async fn progress(
        &self,
        inbox: i64,
        speech: super::outbox::Speech,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.call(move |tx| {
            let goes_on = tx.prepare("SELECT 1 FROM watch WHERE inbox = ?1")?.exists([inbox])?;
            if goes_on {
                super::outbox::put_speech(tx, Some(inbox), &speech, now)?;
            }
            Ok(goes_on)
        })
        .await
    }

    /// Ends a watch with its last words, in one transaction. Gives `false` if it had ended before: then nothing is said.
    ///
    /// # Errors
    /// [`StoreError`]: the watch goes on.
    pub async fn end_watch(
        &self,
        inbox: i64,
        outcome: String,
        speech: Option<super::outbox::Speech>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.call(move |tx| end(tx, inbox, &outcome, speech.as_ref(), now)).await
    }
}

#[cfg(test)]
mod tests;
