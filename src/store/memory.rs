//! The replicas that a `stop` took away: what `start` without a number gives back.

use rusqlite::OptionalExtension;

use super::{Store, StoreError};

impl Store {
    /// Gives the replicas that the last `stop` of the target took away.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn remembered(&self, target: &str) -> Result<Option<i32>, StoreError> {
        let target = target.to_owned();
        self.read(move |tx| {
            Ok(tx.query_row("SELECT replicas FROM memory WHERE target = ?1", [target], |row| row.get(0)).optional()?)
        })
        .await
    }
}
