//! Sightings whose Megolm message index was never read: a crash or an outage came between the event and the question.

use super::{Store, StoreError};

/// An event that was taken in and whose message index is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unindexed {
    /// The Megolm session.
    pub session: String,
    /// Digest of the plaintext.
    pub digest: String,
    /// Event id.
    pub event: String,
    /// Room id.
    pub room: String,
}

impl Store {
    /// Lists the newest sightings without an index whose event the inbox still has.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn unindexed(&self, limit: u32) -> Result<Vec<Unindexed>, StoreError> {
        self.read(move |tx| {
            let mut statement = tx.prepare(
                "SELECT replay.session, digest, event, room FROM replay JOIN inbox USING (event)
                 WHERE message_index IS NULL ORDER BY replay.rowid DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([limit], |row| {
                Ok(Unindexed { session: row.get(0)?, digest: row.get(1)?, event: row.get(2)?, room: row.get(3)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
