//! What a kill interrupted: finished where that is certainly still wanted, told otherwise.

use std::time::Duration;

use super::gate::{message, outgoing, txn};
use super::guarded::anchor;
use super::judging::Judged;
use super::work::{Act, Turn, Work};
use super::{Operator, SCAN, now, watching};
use crate::cluster::{ClusterError, Workload};
use crate::command::Reading;
use crate::message::{GUARD, Message};
use crate::reply::{Change, Report};
use crate::store::inbox::Entry;
use crate::store::orders::Done;
use crate::store::outbox::Speech;
use crate::store::{StoreError, outcome};

/// How often the workload of an interrupted order is looked at: whatever changes it between a look and the order, be it only
/// its status, asks for another.
const LOOKS: u32 = 4;
/// Between two looks at an API server that is away.
const AWAY_PAUSE: Duration = Duration::from_secs(2);
/// What the log says while the journal holds up an interrupted order.
const UNJUDGED: &str = "an interrupted order cannot be judged";

/// Whether an API server that says so may say otherwise in a moment, as one that is just starting does. It is only asked how
/// things are, so that nothing is uncertain.
fn is_passing(error: &ClusterError) -> bool {
    matches!(
        error,
        ClusterError::Timeout | ClusterError::Unreachable(_) | ClusterError::Failed(_) | ClusterError::Unauthorized(_)
    )
}

/// What waits behind an interrupted order for the same target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Behind {
    Nothing,
    /// Somebody asks how it is.
    Question,
    /// Somebody wants something else of it by now.
    Command,
}

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
        let (message, work) = (message(&entry), Work::of(&entry));
        if let (Some(message), Some(work)) = (&message, &work) {
            return self.take_up(&entry, message, work).await;
        }
        tracing::error!(
            id = entry.id,
            "an interrupted order cannot be read, and was perhaps written by another version"
        );
        let row = self.insist(entry.id, UNJUDGED, || self.store.answer_row(entry.id)).await;
        let speech = message.and_then(|message| self.told_of_unread(&entry, &message, row));
        self.conclude(Done { speech, ..Done::silent(entry.id, outcome::INTERRUPTED) }).await;
        Ok(())
    }

    /// What the room reads of an order that cannot be read: that of its command.
    fn told_of_unread(&self, entry: &Entry, message: &Message, row: Option<i64>) -> Option<Speech> {
        let book = self.read_book();
        let Reading::Command(command) = book.reading(message) else { return None };
        let target = book.target(command.targets().first()?)?.clone();
        let report = Report::Interrupted { target, verb: command.verb() };
        let (txn, payload) = (txn(&entry.event, "interrupted"), outgoing(&report, anchor(message)));
        Some(Speech::about(row, entry.room.clone(), txn, payload))
    }

    async fn take_up(&self, entry: &Entry, message: &Message, work: &Work) -> Result<(), StoreError> {
        let (id, key) = (entry.id, work.target.key());
        // Nobody else would come back to it before the next start.
        let row = self.insist(id, UNJUDGED, || self.store.answer_row(id)).await;
        let past = self.insist(id, UNJUDGED, || self.store.past(id, &key)).await;
        let turn = Turn::new(entry, message, &past).recorded(row);
        let (mut looks, mut is_away) = (0, false);
        while looks < LOOKS && !past.overtaken && self.is_still_wanted(entry, message, work) {
            let behind = self.behind(id, &key).await;
            if behind == Behind::Command {
                break;
            }
            let workload = match self.between(message, work).await {
                Ok(Some(workload)) => workload,
                // After a reboot of everything the API server may come later; whoever asks about the target is not kept waiting.
                Err(error) if is_passing(&error) && behind == Behind::Nothing => {
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(id, %error, "the workload of an interrupted order cannot be read: waiting for the API server");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(AWAY_PAUSE) => continue,
                        // It is judged again at the next start.
                        () = self.shutdown.cancelled() => return Ok(()),
                    }
                }
                Err(error) => {
                    tracing::warn!(id, %error, "the workload of an interrupted order cannot be read");
                    break;
                }
                Ok(None) => break,
            };
            looks += 1;
            tracing::info!(id, "an interrupted order goes on");
            let book = self.read_book();
            if matches!(work.change, Change::Scale { to, .. } if to == workload.desired) {
                // Only its outcome is missing.
                self.carried_out(turn, work, entry.started_at.unwrap_or_else(now), &book).await;
                return Ok(());
            }
            match self.act(turn, work, workload.resource_version.as_deref(), &book).await? {
                Act::Over => return Ok(()),
                Act::Outdated(_) => {}
            }
        }
        tracing::warn!(id, overtaken = past.overtaken, "an interrupted order is told, not finished");
        let report = Report::Interrupted { target: work.target.clone(), verb: work.change.verb() };
        let payload = outgoing(&report, anchor(message));
        let txn = txn(&entry.event, "interrupted");
        let speech = Speech::about(row, entry.room.clone(), txn, payload);
        self.conclude(Done { speech: Some(speech), ..Done::silent(id, outcome::INTERRUPTED) }).await;
        Ok(())
    }

    /// Says whether an interrupted order is still fresh, and whoever gave it may still give it for that target.
    fn is_still_wanted(&self, entry: &Entry, message: &Message, work: &Work) -> bool {
        let book = self.read_book();
        let is_granted = matches!(book.judged(message), Judged::Granted { .. });
        is_granted && book.targets.contains(&work.target) && !book.rules.is_stale(entry.sent_at, now())
    }

    /// Says what was received after an interrupted order and waits for the same target.
    async fn behind(&self, id: i64, key: &str) -> Behind {
        let received = self.insist(id, UNJUDGED, || self.store.received(SCAN)).await;
        let book = self.read_book();
        let waiting = received.iter().filter(|newer| newer.id > id && self.lanes(newer).iter().any(|lane| lane == key));
        let fresh = waiting.filter(|newer| !book.rules.is_stale(newer.sent_at, now()));
        let kinds = fresh.filter_map(|newer| match book.judged(&message(newer)?) {
            Judged::Granted { command, .. } if command.changes() => Some(Behind::Command),
            Judged::Granted { .. } => Some(Behind::Question),
            Judged::Talk | Judged::Mistaken(_) | Judged::Refused { .. } => None,
        });
        kinds.max().unwrap_or(Behind::Nothing)
    }

    /// Gives the workload where its replicas are what they were before the order or what it wanted: then nobody else has moved
    /// them. A restart cannot be told from its result, so it is never repeated. The guard's promise is narrower: nobody may
    /// have changed anything.
    async fn between(&self, message: &Message, work: &Work) -> Result<Option<Workload>, ClusterError> {
        let Change::Scale { from, to } = work.change else { return Ok(None) };
        let workload = self.cluster.workload(&work.target).await?;
        let is_between = if message.who == GUARD {
            work.version.as_ref().is_some_and(|after| {
                workload.desired == from && workload.version.next() == *after
                    || workload.desired == to && workload.version == *after
            })
        } else {
            workload.desired == from || workload.desired == to
        };
        Ok(is_between.then_some(workload))
    }
}
