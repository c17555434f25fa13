//! Ciphertext that was seen before: the Matrix SDK delivers a replayed one again.

use super::{Store, StoreError};

/// An earlier event of the same session with the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its event id.
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
        self.call(move |tx| {
            let mut earlier = tx.prepare(
                "SELECT event, message_index FROM replay WHERE session = ?1 AND digest = ?2 AND rowid <
                   (SELECT rowid FROM replay WHERE session = ?1 AND digest = ?2 AND event = ?3)",
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
                    "SELECT event FROM replay WHERE session = ?1 AND message_index = ?2 AND rowid <
                       (SELECT min(rowid) FROM replay WHERE session = ?1 AND event = ?3) LIMIT 1",
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
