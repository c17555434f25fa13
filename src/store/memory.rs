//! What is known of a target when a command for it is about to become an order; among it the replicas that a `stop` took
//! away, which `start` without a number gives back.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction};

use super::watches::{self, Watch};
use super::{Store, StoreError, outcome};

/// What the journal knows of a target when a command's turn comes. The command holds the target's lane, so that nothing but the
/// end of a watch changes it meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// A command that arrived or was said after this one had its turn before it, whatever came of it: one whose key came late, or
    /// whose room could not be read for a while, must not undo what was said last.
    pub overtaken: bool,
    /// Replicas that the last `stop` took away.
    pub remembered: Option<i32>,
    /// Rollouts of older orders under watch.
    pub watches: Vec<Watch>,
}

/// Milliseconds by which the clocks of two homeservers may differ: what was said so little earlier counts as said when it
/// arrived.
const CLOCKS: i64 = 10_000;

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
            // The guard that leaves a target alone has said nothing about it. By what clocks say only people are compared, whose
            // rooms may be read late; and nothing was said after it arrived, whatever a clock that is ahead says.
            let newer =
                "SELECT 1 FROM inbox newer, inbox this WHERE this.id = ?2 AND newer.id <> ?2 AND newer.target = ?1
                           AND newer.outcome IS NOT ?3
                           AND (coalesce(newer.parent, newer.id) > coalesce(this.parent, this.id)
                                OR min(newer.sent_at, newer.received_at) > this.sent_at + ?4
                                   AND newer.sender GLOB '@*' AND this.sender GLOB '@*')";
            let overtaken = tx.prepare(newer)?.exists((&target, id, outcome::LEFT_ALONE, CLOCKS))?;
            let memory = "SELECT replicas FROM memory WHERE target = ?1";
            let remembered = tx.query_row(memory, [&target], |row| row.get(0)).optional()?;
            let watches = watches::list(tx)?.into_iter();
            let watches = watches.filter(|watch| watch.target == target && watch.inbox != id).collect();
            Ok(Past { overtaken, remembered, watches })
        })
        .await
    }
}

#[cfg(test)]
mod tests;
