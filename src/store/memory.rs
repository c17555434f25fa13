//! What is known of a target when a command for it is about to become an order; among it the replicas that a `stop` took
//! away, which `start` without a number gives back.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction};

use super::watches::{self, Watch};
use super::{Store, StoreError};

/// What the journal says of a target to a command that holds its lane: nobody else changes any of it meanwhile, but that
/// a watch may end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// A command that arrived after this one was started before it: one whose key came late must not undo it.
    pub overtaken: bool,
    /// Replicas that the last `stop` took away.
    pub remembered: Option<i32>,
    /// Rollouts of older orders under watch.
    pub watches: Vec<Watch>,
}

/// Notes what a `start` gives back.
pub(super) fn remember(
    tx: &Transaction<'_>,
    target: &str,
    replicas: Option<i32>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(replicas) = replicas else {
        tx.execute("DELETE FROM memory WHERE target = ?1", [target])?;
        return Ok(());
    };
    tx.execute(
        "INSERT INTO memory (target, replicas, at) VALUES (?1, ?2, ?3)
         ON CONFLICT (target) DO UPDATE SET replicas = ?2, at = ?3",
        (target, replicas, now.as_millisecond()),
    )?;
    Ok(())
}

impl Store {
    /// Gives what was before the command `id` for the target.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn past(&self, id: i64, target: &str) -> Result<Past, StoreError> {
        let target = target.to_owned();
        self.read(move |tx| {
            let newer = "SELECT 1 FROM inbox newer, inbox this WHERE this.id = ?2 AND newer.target = ?1
                           AND newer.started_at IS NOT NULL
                           AND coalesce(newer.parent, newer.id) > coalesce(this.parent, this.id)";
            let overtaken = tx.prepare(newer)?.exists((&target, id))?;
            let memory = "SELECT replicas FROM memory WHERE target = ?1";
            let remembered = tx.query_row(memory, [&target], |row| row.get(0)).optional()?;
            let watches = watches::list(tx)?.into_iter();
            let watches = watches.filter(|watch| watch.target == target && watch.inbox != id).collect();
            Ok(Past { overtaken, remembered, watches })
        })
        .await
    }
}
