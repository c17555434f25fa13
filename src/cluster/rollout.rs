//! A rollout under watch: a target, what is wanted, a deadline. Nothing is remembered, so a restart just watches again.

use std::time::Duration;

use futures_util::{Stream, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::follow::{Follow, Observation};
use super::pods::same_troubles;
use super::workload::Snapshot;
use super::{Cluster, ClusterError, Left, RolloutState, Target, Trouble, Version};

/// What a rollout waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// This many replicas, rolled out.
    Replicas(i32),
    /// No pod left.
    Gone,
    /// The rollout that a restart began is complete.
    Restarted,
}

/// A step of a rollout under watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not there yet.
    Waiting {
        /// Ready replicas.
        ready: i32,
        /// Wanted replicas (for `Gone`: pods that are left).
        of: i32,
        /// Why it will not get better by itself, if so; empty otherwise.
        troubles: Vec<Trouble>,
    },
    /// What was wanted is so. The stream ends.
    Done {
        /// Ready replicas.
        ready: i32,
    },
    /// No pod is counted any more; whether some are still on their way out may not be seen. The stream ends.
    NoneCounted,
    /// Somebody else wrote other replicas meanwhile. The stream ends.
    Overruled {
        /// Replicas that are wanted now.
        desired: i32,
        /// Who wrote them, if the object tells.
        by: Option<String>,
    },
    /// The object is gone. The stream ends.
    Deleted,
    /// The deadline passed, and a look after it has shown this. The stream ends.
    Expired {
        /// Ready replicas.
        ready: i32,
        /// Wanted replicas.
        of: i32,
        /// Why, as far as pods tell.
        troubles: Vec<Trouble>,
    },
    /// The deadline passed, and after it the API server could not be asked: nothing is certain. The stream ends.
    Unseen {
        /// What failed.
        error: ClusterError,
    },
    /// The API server cannot be asked just now; the watch goes on.
    Blind {
        /// What failed.
        error: ClusterError,
    },
}

impl Progress {
    fn is_last(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Blind { .. })
    }

    /// Whether the room would read the same.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Waiting { ready, of, troubles },
                Self::Waiting { ready: other_ready, of: other_of, troubles: other_troubles },
            ) => ready == other_ready && of == other_of && same_troubles(troubles, other_troubles),
            _ => self == other,
        }
    }
}

impl Cluster {
    /// Watches until what is wanted is so, cannot become so, or the deadline passes; tells only what changed. How it is at
    /// the deadline is told from one more look, which is tried again for [`Pace::grace`](super::Pace) where it fails.
    /// `ordered` is what the order left the object as: an older look (an API server may be a moment behind) is none.
    pub fn rollout(
        &self,
        target: Target,
        wanted: Wanted,
        ordered: Option<Version>,
        deadline: Timestamp,
    ) -> impl Stream<Item = Progress> + Send + use<> {
        let follow = Follow::new(self.clone(), target.clone(), self.pace.poll);
        let rollout = Rollout {
            cluster: self.clone(),
            target,
            wanted,
            ordered,
            deadline,
            follow,
            seen: None,
            troubles: Vec::new(),
            next_look: Instant::now(),
            may_list_pods: true,
            told: None,
            given_up: None,
        };
        stream::unfold(rollout, |mut rollout| async move {
            let progress = rollout.next().await?;
            Some((progress, rollout))
        })
    }
}

struct Rollout {
    cluster: Cluster,
    target: Target,
    wanted: Wanted,
    ordered: Option<Version>,
    deadline: Timestamp,
    follow: Follow,
    seen: Option<Snapshot>,
    troubles: Vec<Trouble>,
    next_look: Instant,
    may_list_pods: bool,
    told: Option<Progress>,
    /// After the deadline: when the last look is not tried any more.
    given_up: Option<Instant>,
}

impl Rollout {
    async fn next(&mut self) -> Option<Progress> {
        if self.told.as_ref().is_some_and(Progress::is_last) {
            return None;
        }
        loop {
            let left = Duration::try_from(self.deadline.duration_since(now())).unwrap_or(Duration::ZERO);
            let progress = if left.is_zero() {
                Some(self.last_look().await)
            } else {
                // Whatever was on its way at the deadline, the last look asks for it again.
                tokio::time::timeout(left, self.observe()).await.unwrap_or(None)
            };
            if let Some(progress) = progress
                && !self.told.as_ref().is_some_and(|told| told.is_same(&progress))
            {
                self.told = Some(progress.clone());
                return Some(progress);
            }
        }
    }

    /// Waits for the next observation and says what it means.
    async fn observe(&mut self) -> Option<Progress> {
        match self.follow.next(self.cluster.pace.look).await {
            Observation::Seen(snapshot) if self.is_too_old(&snapshot) => {}
            Observation::Seen(snapshot) => self.seen = Some(*snapshot),
            Observation::Silent => {}
            Observation::Absent => return Some(Progress::Deleted),
            Observation::Failed(error) => return Some(Progress::Blind { error }),
        }
        let snapshot = self.seen.clone()?;
        Some(self.meaning(&snapshot).await)
    }

    /// Says whether a look shows the object as it was before the order, which would pass for somebody else's doing.
    fn is_too_old(&self, snapshot: &Snapshot) -> bool {
        self.ordered.as_ref().is_some_and(|ordered| snapshot.workload.version.is_before(ordered))
    }

    /// Looks after the deadline. What was seen before it may have changed while nothing could be seen, so that an end is
    /// told from a look that succeeded, or as not known.
    async fn last_look(&mut self) -> Progress {
        if self.given_up.is_some() {
            tokio::time::sleep(self.cluster.pace.poll).await;
        }
        let given_up = *self.given_up.get_or_insert_with(|| Instant::now() + self.cluster.pace.grace);
        let error = match self.cluster.snapshot(&self.target).await {
            // Read from the store, and so much later: this is how it is, whatever generation the order has left.
            Ok(snapshot) => match self.meaning(&snapshot).await {
                Progress::Waiting { ready, of, troubles } => return Progress::Expired { ready, of, troubles },
                Progress::Blind { error } => error,
                end => return end,
            },
            Err(ClusterError::NotFound(_)) => return Progress::Deleted,
            Err(error) => error,
        };
        if Instant::now() < given_up { Progress::Blind { error } } else { Progress::Unseen { error } }
    }

    /// Says what a look at the object means.
    async fn meaning(&mut self, snapshot: &Snapshot) -> Progress {
        let (ready, of) = match judge(snapshot, self.wanted) {
            Verdict::Overruled => {
                let by = snapshot.workload.scaled_by.as_ref().map(|writer| writer.manager.clone());
                return Progress::Overruled { desired: snapshot.workload.desired, by };
            }
            Verdict::Reached if self.wanted == Wanted::Gone => {
                match self.cluster.pods_left(&self.target, snapshot).await {
                    Ok(Left::Counted(0)) => return Progress::Done { ready: 0 },
                    Ok(Left::AtLeast(0)) => return Progress::NoneCounted,
                    Ok(left) => (0, left.pods()),
                    Err(error) => return Progress::Blind { error },
                }
            }
            Verdict::Reached => return Progress::Done { ready: snapshot.workload.ready },
            Verdict::Waiting { ready, of } => {
                self.look(snapshot).await;
                (ready, of)
            }
        };
        Progress::Waiting { ready, of, troubles: self.troubles.clone() }
    }

    /// Asks the pods why, every few seconds at most and not in the first moment: a pod that has just been made has
    /// nothing to say yet, and the first word for the room should not wait. The last look asks them in any case.
    async fn look(&mut self, snapshot: &Snapshot) {
        let is_last = self.given_up.is_some();
        if self.wanted == Wanted::Gone || self.told.is_none() && !is_last {
            self.troubles = snapshot.complaint.iter().cloned().collect();
            return;
        }
        if Instant::now() < self.next_look && !is_last {
            return;
        }
        self.troubles = if self.may_list_pods {
            let look = self.cluster.look(&self.target, snapshot, now()).await;
            self.may_list_pods = !look.pods_forbidden;
            look.troubles
        } else {
            snapshot.complaint.iter().chain(&snapshot.stalled).take(1).cloned().collect()
        };
        self.next_look = Instant::now() + self.cluster.pace.look;
    }
}

#[expect(clippy::disallowed_methods, reason = "a rollout has a deadline, and this is its loop")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// What one look at the object means for what is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    Waiting { ready: i32, of: i32 },
    Overruled,
}

/// Decides whether what is wanted is so. Stricter than kubectl in one thing: after scaling down it waits until the
/// surplus is no longer counted, or "ready 5" would be told for two that are wanted.
fn judge(snapshot: &Snapshot, wanted: Wanted) -> Verdict {
    let workload = &snapshot.workload;
    let complete = workload.rollout == RolloutState::Complete;
    match wanted {
        Wanted::Replicas(replicas) if workload.desired != replicas => Verdict::Overruled,
        Wanted::Replicas(replicas) if complete && workload.current <= replicas => Verdict::Reached,
        Wanted::Replicas(replicas) => Verdict::Waiting { ready: workload.ready.min(replicas), of: replicas },
        Wanted::Gone if workload.desired != 0 => Verdict::Overruled,
        Wanted::Gone if snapshot.observed && snapshot.left().pods() == 0 => Verdict::Reached,
        Wanted::Gone => Verdict::Waiting { ready: workload.ready, of: snapshot.left().pods() },
        Wanted::Restarted if complete => Verdict::Reached,
        Wanted::Restarted => Verdict::Waiting { ready: workload.ready.min(snapshot.updated), of: workload.desired },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};

    fn snapshot(replicas: i32, status: Value) -> Snapshot {
        let mut status = status;
        status.as_object_mut().unwrap().entry("observedGeneration").or_insert(json!(2));
        let object: Deployment = serde_json::from_value(json!({
            "metadata": { "name": "web", "generation": 2 },
            "spec": { "replicas": replicas, "selector": {}, "template": {} },
            "status": status,
        }))
        .unwrap();
        Snapshot::from(&object)
    }

    fn all(replicas: i32) -> Value {
        json!({ "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas })
    }

    #[test]
    fn what_is_wanted_is_reached_waited_for_or_overruled() {
        let unseen = json!({ "observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2, "availableReplicas": 2 });
        let table = [
            ("all there", snapshot(2, all(2)), Wanted::Replicas(2), Verdict::Reached),
            ("none there", snapshot(2, json!({})), Wanted::Replicas(2), Verdict::Waiting { ready: 0, of: 2 }),
            (
                "half there",
                snapshot(2, json!({ "replicas": 2, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": 1 })),
                Wanted::Replicas(2),
                Verdict::Waiting { ready: 1, of: 2 },
            ),
            ("not observed", snapshot(2, unseen.clone()), Wanted::Replicas(2), Verdict::Waiting { ready: 2, of: 2 }),
            ("too many still", snapshot(2, all(5)), Wanted::Replicas(2), Verdict::Waiting { ready: 2, of: 2 }),
            ("another number", snapshot(3, all(2)), Wanted::Replicas(2), Verdict::Overruled),
            ("zero wanted as a number", snapshot(0, json!({})), Wanted::Replicas(0), Verdict::Reached),
            ("gone", snapshot(0, json!({})), Wanted::Gone, Verdict::Reached),
            ("going", snapshot(0, all(2)), Wanted::Gone, Verdict::Waiting { ready: 2, of: 2 }),
            (
                "terminating",
                snapshot(0, json!({ "terminatingReplicas": 1 })),
                Wanted::Gone,
                Verdict::Waiting { ready: 0, of: 1 },
            ),
            (
                "not yet going",
                snapshot(0, json!({ "observedGeneration": 1 })),
                Wanted::Gone,
                Verdict::Waiting { ready: 0, of: 0 },
            ),
            ("called back", snapshot(1, all(0)), Wanted::Gone, Verdict::Overruled),
            ("restarted", snapshot(2, all(2)), Wanted::Restarted, Verdict::Reached),
            ("restart not observed", snapshot(2, unseen), Wanted::Restarted, Verdict::Waiting { ready: 2, of: 2 }),
            (
                "restart half way",
                snapshot(2, json!({ "replicas": 3, "updatedReplicas": 1, "readyReplicas": 2, "availableReplicas": 2 })),
                Wanted::Restarted,
                Verdict::Waiting { ready: 1, of: 2 },
            ),
        ];
        for (what, snapshot, wanted, verdict) in table {
            assert_eq!(judge(&snapshot, wanted), verdict, "{what}");
        }
    }

    #[test]
    fn the_same_failure_in_other_words_is_no_news() {
        let waiting = |message: &str| Progress::Waiting {
            ready: 0,
            of: 1,
            troubles: vec![super::super::trouble::trouble("web-1", super::super::Cause::CrashLoop, message)],
        };
        assert!(waiting("back-off 10s").is_same(&waiting("back-off 20s")));
        assert!(!waiting("back-off 10s").is_same(&Progress::Waiting { ready: 0, of: 1, troubles: vec![] }));
    }
}
