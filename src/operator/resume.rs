//! What a kill interrupted: finished where that is certainly still wanted, told otherwise.

use super::gate::{message, outgoing, txn};
use super::guarded::anchor;
use super::work::{Turn, Work};
use super::{Operator, now, watching};
use crate::chat::{GUARD, Message};
use crate::reply::{Change, Report};
use crate::store::inbox::{Done, Entry};
use crate::store::outbox::Speech;
use crate::store::{StoreError, outcome};

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
        let overtaken = self.store.past(entry.id, &work.target.key()).await?.overtaken;
        let known = book.targets.contains(&work.target);
        if known && !late && !overtaken && self.is_between(message, work).await {
            tracing::info!(id = entry.id, "an interrupted order is finished");
            return self.act(Turn { row, ..Turn::new(entry, message) }, work, None, &book).await.map(drop);
        }
        tracing::warn!(id = entry.id, late, overtaken, "an interrupted order is told, not finished");
        let report = Report::Interrupted { target: work.target.clone(), verb: work.change.verb() };
        let payload = outgoing(&report, anchor(message));
        let txn = txn(&entry.event, "interrupted");
        let speech = Speech::about(row, entry.room.clone(), txn, payload);
        self.close(Done { speech: Some(speech), ..Done::silent(entry.id, outcome::INTERRUPTED) }).await
    }

    /// Says whether the replicas are what they were before the order or what it wanted: then nobody else has moved them.
    /// A restart cannot be told from its result, so it is never repeated. The guard's promise is narrower: nobody may have
    /// changed anything.
    async fn is_between(&self, message: &Message, work: &Work) -> bool {
        let Change::Scale { from, to } = work.change else { return false };
        match self.cluster.workload(&work.target).await {
            Ok(workload) if message.who == GUARD => {
                let Some(after) = &work.version else { return false };
                workload.desired == from && workload.version.next() == *after
                    || workload.desired == to && workload.version == *after
            }
            Ok(workload) => workload.desired == from || workload.desired == to,
            Err(error) => {
                tracing::warn!(%error, "the workload of an interrupted order cannot be read");
                false
            }
        }
    }
}
