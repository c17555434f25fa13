//! Ciphertext that was seen before: the Matrix SDK delivers a replayed one again, for as long as it has the session's key,
//! and it never forgets one. So nothing may ever be forgotten here either; but the rows of a session that has long been
//! silent shrink to one *mark*, its highest message index: what is not above it counts as seen.

use rusqlite::Transaction;

use super::{Store, StoreError};

/// Rows at the end of the table that are left alone: their events may not be in the inbox yet.
const FRESH: i64 = 10_000;

/// An earlier event of the same session with the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its event id; empty for the mark of a session.
    pub event: String,
    /// Its Megolm message index, once it was read.
    pub message_index: Option<u32>,
}

impl Store {
    /// Notes that events of sessions carried plaintexts (session, digest, event); gives for each the earlier ones that did.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn sighted_all(&self, sights: Vec<(String, String, String)>) -> Result<Vec<Vec<Sighting>>, StoreError> {
        if sights.is_empty() {
            return Ok(Vec::new());
        }
        // What they were seen for is written next, and a sight without it is seen again.
        self.call_unsynced(move |tx| {
            let mut earlier = tx.prepare(
                "SELECT event, message_index FROM replay WHERE session = ?1 AND event <> ?3 AND (digest = '' OR digest = ?2
                   AND rowid < (SELECT rowid FROM replay WHERE session = ?1 AND digest = ?2 AND event = ?3))",
            )?;
            let mut note = tx.prepare("INSERT OR IGNORE INTO replay (session, digest, event) VALUES (?1, ?2, ?3)")?;
            let mut all = Vec::with_capacity(sights.len());
            for sight in &sights {
                note.execute((&sight.0, &sight.1, &sight.2))?;
                let rows = earlier.query_map((&sight.0, &sight.1, &sight.2), |row| {
                    Ok(Sighting { event: row.get(0)?, message_index: row.get(1)? })
                })?;
                all.push(rows.collect::<Result<_, _>>()?);
            }
            Ok(all)
        })
        .await
    }

    /// Notes the Megolm message index of an event; gives the event seen before that has it already: then this
    /// is a replay.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn indexed(&self, session: &str, event: &str, message_index: u32) -> Result<Option<String>, StoreError> {
        let (session, event) = (session.to_owned(), event.to_owned());
        self.call(move |tx| {
            use rusqlite::OptionalExtension;
            let other = tx
                .query_row(
                    "SELECT event FROM replay WHERE session = ?1 AND (digest = '' AND message_index >= ?2 OR message_index = ?2
                       AND rowid < (SELECT min(rowid) FROM replay WHERE session = ?1 AND event = ?3)) LIMIT 1",
                    (&session, message_index, &event),
                    |row| row.get(0),
                )
                .optional()?;
            tx.execute(
                "UPDATE replay SET message_index = ?3 WHERE session = ?1 AND event = ?2",
                (&session, &event, message_index),
            )?;
            Ok(other)
        })
        .await
    }
}

/// Puts one mark in the place of every session of which no event is in the inbox any more. One with an event whose index
/// was never read keeps its rows: its highest index is not known.
pub(super) fn shrink(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let silent: Vec<(String, u32)> = tx
        .prepare(
            "SELECT session, max(message_index) FROM replay GROUP BY session
             HAVING count(*) > 1 AND count(message_index) = count(*)
               AND max(rowid) <= (SELECT max(rowid) FROM replay) - ?1
               AND NOT EXISTS (SELECT 1 FROM replay own JOIN inbox USING (event) WHERE own.session = replay.session)",
        )?
        .query_map([FRESH], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (session, highest) in silent {
        tx.execute("DELETE FROM replay WHERE session = ?1", [&session])?;
        tx.execute(
            "INSERT INTO replay (session, digest, event, message_index) VALUES (?1, '', '', ?2)",
            (&session, highest),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
