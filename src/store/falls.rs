//! What was told of drift: the message to edit when a workload is well again, and since when it is not. Each is a cursor, so
//! that a restart goes on with it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction};

use super::{Store, StoreError, put_cursor};

/// The names of these cursors begin so; the target's key follows.
const PREFIX: &str = "drift/";

/// A workload that was told as fallen and not as well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fall {
    /// Replicas that it wanted then.
    pub desired: i32,
    /// When it fell.
    pub since: Timestamp,
}

impl Store {
    /// Notes the row of what was said last of a target's drift; with a fall, that the target is down.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn note_drift(&self, target: &str, row: i64, fall: Option<Fall>) -> Result<(), StoreError> {
        let name = format!("{PREFIX}{target}");
        let token = match fall {
            Some(fall) => format!("{row} {} {}", fall.desired, fall.since.as_millisecond()),
            None => row.to_string(),
        };
        self.call(move |tx| put_cursor(tx, &name, &token)).await
    }

    /// Gives the row of what was said last of a target's drift.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn drift_row(&self, target: &str) -> Result<Option<i64>, StoreError> {
        let token = self.cursor(&format!("{PREFIX}{target}")).await?;
        Ok(token.and_then(|token| token.split(' ').next()?.parse().ok()))
    }

    /// Lists what is down, by the target's key.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn falls(&self) -> Result<BTreeMap<String, Fall>, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare("SELECT name, token FROM cursor WHERE name GLOB 'drift/*'")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            let mut falls = BTreeMap::new();
            for row in rows {
                let (name, token) = row?;
                if let (Some(target), Some(fall)) = (name.strip_prefix(PREFIX), parse(&token)) {
                    falls.insert(target.to_owned(), fall);
                }
            }
            Ok(falls)
        })
        .await
    }
}

/// Forgets that a target is down: an order for it was written, and what comes is told of that.
pub(super) fn forget(tx: &Transaction<'_>, target: &str) -> Result<(), StoreError> {
    let name = format!("{PREFIX}{target}");
    let token: Option<String> =
        tx.query_row("SELECT token FROM cursor WHERE name = ?1", [&name], |row| row.get(0)).optional()?;
    match token.as_deref().and_then(|token| token.split_once(' ')) {
        Some((row, _)) => put_cursor(tx, &name, row),
        None => Ok(()),
    }
}

fn parse(token: &str) -> Option<Fall> {
    let mut words = token.split(' ').skip(1);
    let (desired, since) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Fall { desired, since: Timestamp::from_millisecond(since).ok()? })
}
