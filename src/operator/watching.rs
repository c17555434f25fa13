//! Rollouts under watch: one message, edited until it says how it ended.

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

use super::gate::{outgoing, txn};
use super::guarded::{Anchor, anchor};
use super::work::{Turn, Work};
use super::{Operator, now};
use crate::cluster::{Progress, Record, Target, Wanted};
use crate::reply::{Change, Report};
use crate::store::outbox::Speech;
use crate::store::watches::Watch;

/// Between two edits of one message: homeservers let a bot write about one event in five seconds.
const EDIT_PAUSE: Duration = Duration::from_secs(5);
/// How long a watch and its record let the first words go first: pods take longer than this, and requests to the API server
/// in that moment are felt on a small machine that runs everything.
const HEAD_START: Duration = Duration::from_millis(200);

/// A watch, with all that its words need.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) inbox: i64,
    pub(super) target: Target,
    pub(super) work: Work,
    event: String,
    reply_to: Option<String>,
    #[serde(default)]
    thread: Option<String>,
    room: String,
    row: Option<i64>,
    began: Timestamp,
    deadline: Timestamp,
    who: String,
}

impl Job {
    pub(super) fn new(turn: Turn<'_>, work: &Work, began: Timestamp, deadline: Timestamp) -> Self {
        let Turn { entry, message, row, .. } = turn;
        let on = anchor(message);
        Self {
            inbox: entry.id,
            target: work.target.clone(),
            work: work.clone(),
            event: entry.event.clone(),
            reply_to: on.event.map(str::to_owned),
            thread: on.thread.map(str::to_owned),
            room: entry.room.clone(),
            row,
            began,
            deadline,
            who: message.who.clone(),
        }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn restore(watch: &Watch) -> Option<Self> {
        serde_json::from_str(&watch.payload)
            .inspect_err(|error| tracing::error!(id = watch.inbox, %error, "a watch cannot be read"))
            .ok()
    }

    /// Makes the words replace those of the command's message.
    pub(super) fn speech(&self, report: &Report, purpose: &str) -> Speech {
        let txn = txn(&self.event, purpose);
        let payload = outgoing(report, Anchor { event: self.reply_to.as_deref(), thread: self.thread.as_deref() });
        Speech::about(self.row, self.room.clone(), txn, payload)
    }

    fn report(&self, progress: &Progress, at: Timestamp) -> Report {
        Report::Rollout {
            target: self.target.clone(),
            deed: self.work.change,
            progress: progress.clone(),
            after: at.duration_since(self.began),
            owners: self.work.owners.clone(),
        }
    }
}

/// Says how a watch ended, for `history`; `None` while it goes on.
fn outcome(work: &Work, progress: &Progress, after: SignedDuration) -> Option<String> {
    let took = crate::reply::span(after);
    let done = work.outcome();
    match progress {
        Progress::Waiting { .. } | Progress::Blind { .. } => None,
        Progress::Done { .. } => Some(format!("{done}, done in {took}")),
        Progress::NoneCounted => Some(format!("{done}, no pod counted after {took}")),
        Progress::Overruled { desired, .. } => Some(format!("{done}, then set to {desired} by somebody else")),
        Progress::Deleted => Some(format!("{done}, then deleted")),
        Progress::Expired { .. } if work.wanted() == Wanted::Gone => Some(format!("{done}, not gone after {took}")),
        Progress::Expired { .. } => Some(format!("{done}, not ready after {took}")),
        Progress::Unseen { .. } => Some(format!("{done}, nothing is certain after {took}")),
    }
}

/// Whether words may wait for the next edit, or people should read them at once.
fn urgent(progress: &Progress) -> bool {
    matches!(progress, Progress::Waiting { troubles, .. } if !troubles.is_empty())
}

impl Operator {
    /// Leaves a Kubernetes Event on the object: who asked, from where. A restart that goes on watching writes the same one
    /// again; where the rollout was over before, a kill in the moment between costs the record.
    pub(super) async fn record(&self, job: Job) {
        tokio::time::sleep(HEAD_START).await;
        let (reason, note) = match job.work.change {
            Change::Scale { from, to } => ("ScaledByChat", format!("Scaled from {from} to {to}")),
            Change::Restart => ("RestartedByChat", "Restarted".to_owned()),
        };
        let note = format!("{note} for {} in room {}", job.who, job.room);
        let record = Record { id: txn(&job.event, &job.target.key()), reason, note, at: job.began };
        if let Err(error) = self.cluster.record(&job.target, &record).await {
            tracing::info!(%error, target = %job.target.key(), "no Kubernetes Event was written");
        }
    }

    /// Follows a rollout to its end.
    pub(super) async fn follow(&self, job: &Job) {
        tokio::time::sleep(HEAD_START).await;
        let (wanted, ordered) = (job.work.wanted(), job.work.version.clone());
        let steps = self.cluster.rollout(job.target.clone(), wanted, ordered, job.deadline);
        let mut steps = std::pin::pin!(steps);
        let mut edit_at = Instant::now() + EDIT_PAUSE;
        let mut waiting: Option<Progress> = None;
        let mut troubled = false;
        loop {
            let step = tokio::select! {
                step = steps.next() => step,
                () = tokio::time::sleep_until(edit_at), if waiting.is_some() => {
                    if let Some(progress) = waiting.take() && !self.edit(job, &progress).await {
                        return;
                    }
                    edit_at = Instant::now() + EDIT_PAUSE;
                    continue;
                }
            };
            let Some(progress) = step else {
                // The stream ends only with a last step; without one the row stays and a restart goes on with it.
                tracing::error!("a rollout's stream ended without an end");
                return;
            };
            let at = now();
            if let Some(outcome) = outcome(&job.work, &progress, at.duration_since(job.began)) {
                return self.end(job, &progress, outcome, at).await;
            }
            if urgent(&progress) && !troubled {
                troubled = true;
                if !self.edit(job, &progress).await {
                    return;
                }
                edit_at = Instant::now() + EDIT_PAUSE;
                waiting = None;
            } else {
                waiting = Some(progress);
            }
        }
    }

    /// Says how it goes. Gives `false` where a newer command has had the last words.
    async fn edit(&self, job: &Job, progress: &Progress) -> bool {
        let at = now();
        let speech = job.speech(&job.report(progress, at), &format!("progress {}", at.as_millisecond()));
        match self.store.progress(job.inbox, speech, at).await {
            Ok(goes_on) => {
                self.outbox.notify_one();
                goes_on
            }
            Err(error) => {
                tracing::warn!(%error, "progress could not be written");
                true
            }
        }
    }

    async fn end(&self, job: &Job, progress: &Progress, outcome: String, at: Timestamp) {
        let speech = job.speech(&job.report(progress, at), "end");
        let write = || self.store.end_watch(job.inbox, outcome.clone(), Some(speech.clone()), at);
        // Where a newer order has ended this watch, the silence about the target is that order's.
        if self.insist(job.inbox, "the end of a rollout cannot be written", write).await {
            self.cluster.quiet(&job.target, at);
            tracing::info!(outcome, "the rollout ended");
            self.outbox.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::order;
    use super::*;
    use crate::cluster::ClusterError;

    #[test]
    fn history_says_no_more_than_was_seen() {
        let ended = |change, progress| {
            let work = Work::of(&order("@alice:hs", change, 2, None)).unwrap();
            outcome(&work, &progress, SignedDuration::from_mins(5)).unwrap()
        };
        let (start, stop) = ((0, 2), (2, 0));
        let late = |of| Progress::Expired { ready: 0, of, troubles: vec![] };
        let unseen = || Progress::Unseen { error: ClusterError::Timeout };
        assert_eq!(ended(start, Progress::Done { ready: 2 }), "scaled 0 → 2, done in 5 min");
        assert_eq!(ended(start, late(2)), "scaled 0 → 2, not ready after 5 min");
        assert_eq!(ended(stop, Progress::NoneCounted), "scaled 2 → 0, no pod counted after 5 min");
        assert_eq!(ended(stop, late(1)), "scaled 2 → 0, not gone after 5 min");
        assert_eq!(ended(start, unseen()), "scaled 0 → 2, nothing is certain after 5 min");
        assert_eq!(ended(stop, unseen()), "scaled 2 → 0, nothing is certain after 5 min");
    }
}
