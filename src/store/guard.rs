//! What the usage guard remembers, and its way into the two queues: all of one step in one transaction.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction};

use super::inbox::{Arrival, COLUMNS, Entry, entry, put_arrival, rows};
use super::outbox::Draft;
use super::samples::put_words;
use super::{Store, StoreError};

/// The guard's view of the store, within one transaction.
#[derive(Debug)]
pub struct Ledger<'a> {
    tx: &'a Transaction<'a>,
}

impl Store {
    /// Runs one step of the guard: all that it reads and writes is one transaction.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was written.
    pub async fn guard<T, F>(&self, step: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Ledger<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.call(move |tx| step(&Ledger { tx })).await
    }
}

impl Ledger<'_> {
    /// Lists what is remembered: rule, target, JSON.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn states(&self) -> Result<Vec<(String, String, String)>, StoreError> {
        let mut statement = self.tx.prepare("SELECT rule, target, state FROM usage_rule ORDER BY rule, target")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Remembers.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn put_state(&self, rule: &str, target: &str, state: &str, now: Timestamp) -> Result<(), StoreError> {
        self.tx.execute(
            "INSERT INTO usage_rule (rule, target, state, at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (rule, target) DO UPDATE SET state = ?3, at = ?4",
            (rule, target, state, now.as_millisecond()),
        )?;
        Ok(())
    }

    /// Forgets.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn drop_state(&self, rule: &str, target: &str) -> Result<(), StoreError> {
        self.tx.execute("DELETE FROM usage_rule WHERE rule = ?1 AND target = ?2", (rule, target))?;
        Ok(())
    }

    /// Finds a row of the inbox by its event id.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn entry(&self, event: &str) -> Result<Option<Entry>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM inbox WHERE event = ?1");
        Ok(self.tx.query_row(&sql, [event], entry).optional()?)
    }

    /// Lists the orders for a target that arrived after an event, in that order. A part of a command counts as arrived
    /// with the whole.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn since(&self, event: &str, target: &str) -> Result<Vec<Entry>, StoreError> {
        rows(
            self.tx,
            &format!(
                "SELECT {COLUMNS} FROM inbox WHERE target = ?1 AND work IS NOT NULL
                   AND coalesce(parent, id) > (SELECT coalesce(parent, id) FROM inbox WHERE event = ?2)
                 ORDER BY coalesce(parent, id), id"
            ),
            (target, event),
        )
    }

    /// Puts a request into the inbox; gives `false` where it is there already.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn request(&self, arrival: &Arrival, now: Timestamp) -> Result<bool, StoreError> {
        Ok(put_arrival(self.tx, arrival, now)? > 0)
    }

    /// Puts words into the outbox that may not go out before a time; those of a transaction id that is there already are
    /// the same event. Where their room is empty they wait for the first that is known.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn say(&self, draft: Draft, not_before: Option<Timestamp>, now: Timestamp) -> Result<(), StoreError> {
        put_words(self.tx, draft, not_before, now).map(drop)
    }
}
