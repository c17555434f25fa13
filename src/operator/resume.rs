//! What a kill interrupted: finished where that is certainly still wanted, told otherwise.

use super::gate::{message, outgoing, txn};
use super::guarded::anchor;
use super::work::{Act, Turn, Work};
use super::{Operator, now, watching};
use crate::chat::{GUARD, Message};
use crate::cluster::Workload;
use crate::reply::{Change, Report};
use crate::store::inbox::{Done, Entry};
use crate::store::outbox::Speech;
use crate::store::{StoreError, outcome};

/// How often the workload of an interrupted order is looked at: whatever changes it between a look and the order, be it only
/// its status, asks for another.
const LOOKS: u32 = 4;

impl Operator {
    /// Goes on with the watches, and gives the orders that were started and have no outcome, each with its lane.
    pub(super) async fn resume(&self) -> Result<Vec<(Entry, String)>, StoreError> {
        for watch in self.store.watches().await? {
            match watching::Job::restore(&watch) {
                Some(job) => {
                    self.cluster.quiet(&job.target, watch.deadline);
                    drop(self.watchers.send(job));
                }
                None => {
                    self.store.end_watch(watch.inbox, outcome::INTERRUPTED.to_owned(), None, now()).await?;
                }
            }
        }
        let unfinished = self.store.unfinished().await?;
        let with_lane = |entry: Entry| {
            let lane = entry.target.clone().unwrap_or_default();
            (entry, lane)
        };
        Ok(unfinished.into_iter().map(with_lane).collect())
    }

    /// Judges an order that was interrupted.
    pub(super) async fn finish_interrupted(&self, entry: Entry) -> Result<(), StoreError> {
        let work = Work::of(&entry);
        match (message(&entry), work) {
            (Some(message), Some(work)) => self.take_up(&entry, &message, &work).await,
            _ => self.store.ignore(entry.id, now()).await,
        }
    }

    async fn take_up(&self, entry: &Entry, message: &Message, work: &Work) -> Result<(), StoreError> {
        let book = self.read_book();
        let row = self.store.answer_row(entry.id).await?;
        let late = book.rules.is_stale(entry.sent_at, now());
        let past = self.store.past(entry.id, &work.target.key()).await?;
        let overtaken = past.overtaken;
        let known = book.targets.contains(&work.target);
        let turn = Turn::new(entry, message, &past).recorded(row);
        for _ in 0..LOOKS {
            if !known || late || overtaken {
                break;
            }
            let Some(workload) = self.between(message, work).await else { break };
            tracing::info!(id = entry.id, "an interrupted order is finished");
            if matches!(work.change, Change::Scale { to, .. } if to == workload.desired) {
                // Only its outcome is missing.
                self.carried_out(turn, work, now(), &book).await;
                return Ok(());
            }
            match self.act(turn, work, workload.resource_version.as_deref(), &book).await? {
                Act::Over => return Ok(()),
                Act::Outdated(_) => {}
            }
        }
        tracing::warn!(id = entry.id, late, overtaken, "an interrupted order is told, not finished");
        let report = Report::Interrupted { target: work.target.clone(), verb: work.change.verb() };
        let payload = outgoing(&report, anchor(message));
        let txn = txn(&entry.event, "interrupted");
        let speech = Speech::about(row, entry.room.clone(), txn, payload);
        self.close(Done { speech: Some(speech), ..Done::silent(entry.id, outcome::INTERRUPTED) }).await
    }

    /// Gives the workload where its replicas are what they were before the order or what it wanted: then nobody else has moved
    /// them. A restart cannot be told from its result, so it is never repeated. The guard's promise is narrower: nobody may
    /// have changed anything.
    async fn between(&self, message: &Message, work: &Work) -> Option<Workload> {
        let Change::Scale { from, to } = work.change else { return None };
        let looked = self.cluster.workload(&work.target).await;
        let workload = looked
            .inspect_err(|error| tracing::warn!(%error, "the workload of an interrupted order cannot be read"))
            .ok()?;
        let is_between = if message.who == GUARD {
            let after = work.version.as_ref()?;
            workload.desired == from && workload.version.next() == *after
                || workload.desired == to && workload.version == *after
        } else {
            workload.desired == from || workload.desired == to
        };
        is_between.then_some(workload)
    }
}
