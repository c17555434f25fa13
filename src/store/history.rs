//! What was done before: for `history`, for who scaled last, and for the guard, which starts nothing that somebody else has
//! touched.

use super::inbox::{COLUMNS, Entry, rows};
use super::{Store, StoreError, outcome};

impl Store {
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

    /// Lists the orders for a target that were journaled, those that changed nothing included, newest first, without the
    /// one of `but`, if any.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn ordered(&self, target: &str, but: Option<i64>, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let target = target.to_owned();
        self.read(move |tx| {
            rows(
                tx,
                &format!(
                    "SELECT {COLUMNS} FROM inbox WHERE target = ?1 AND work IS NOT NULL AND id IS NOT ?2
                     ORDER BY coalesce(parent, id) DESC, id DESC LIMIT ?3"
                ),
                (target, but, limit),
            )
        })
        .await
    }
}
