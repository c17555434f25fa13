//! The loop that looks at every target and tells its drift.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::PoisonError;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::watch;

use super::{Drift, Fallen, Shape, Sight, State, decide};
use crate::cluster::follow::{Follow, Observation};
use crate::cluster::workload::Snapshot;
use crate::cluster::{Cluster, FIELD_MANAGER, Target, Workload};

/// How long nothing has to be seen of a target on which nothing is due.
const IDLE: Duration = Duration::from_hours(1);

impl Cluster {
    /// Watches the targets for ever, and tells what happens to those that were ready and that nobody here asked for.
    /// Targets may come and go. While the API server is away nothing is told. `fallen`, by the target's key, is what was
    /// told as fallen before a restart: its recovery is still owed.
    pub fn drift(
        &self,
        targets: watch::Receiver<Vec<Target>>,
        fallen: BTreeMap<String, Fallen>,
    ) -> impl Stream<Item = (Target, Drift, Timestamp)> + Send + use<> {
        let mut lookout = Lookout { cluster: self.clone(), targets, fallen, changing: true, streams: BTreeMap::new() };
        lookout.adopt();
        stream::unfold(lookout, |mut lookout| async move {
            let told = lookout.next().await;
            Some((told, lookout))
        })
    }

    /// Tells nothing of what happens to a target until then: somebody here is at work on it and tells it otherwise. A
    /// time that has passed ends the silence. Gives until when it was silent before.
    pub fn quiet(&self, target: &Target, until: Timestamp) -> Option<Timestamp> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner).insert(target.key(), until)
    }

    /// Notes replicas that are written here; gives what was noted before. The field manager alone does not tell: after a
    /// scale to 0 the API server tracks none.
    pub(in crate::cluster) fn note_written(&self, target: &Target, replicas: Option<i32>) -> Option<i32> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        match replicas {
            Some(replicas) => written.insert(target.key(), replicas),
            None => written.remove(&target.key()),
        }
    }

    /// Gives the workload as the watch over drift showed it last; nothing where there is none, it broke, the object is not
    /// there, or it is being scaled. It may have changed since: whoever writes because of it holds the write to its
    /// `resource_version`.
    #[must_use]
    pub fn seen(&self, target: &Target) -> Option<Workload> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&target.key()).cloned()
    }

    /// Notes how an open watch shows the workload, or that nothing shows it.
    pub(in crate::cluster) fn note_seen(&self, target: &Target, workload: Option<&Workload>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match workload {
            Some(workload) => seen.insert(target.key(), workload.clone()),
            None => seen.remove(&target.key()),
        };
    }

    /// Says whether these replicas were written here.
    fn has_written(&self, target: &Target, replicas: i32) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(&target.key()) == Some(&replicas)
    }

    fn is_quiet(&self, target: &Target, now: Timestamp) -> bool {
        let quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        quiet.get(&target.key()).is_some_and(|until| *until > now)
    }
}

struct Lookout {
    cluster: Cluster,
    targets: watch::Receiver<Vec<Target>>,
    /// Not looked at yet.
    fallen: BTreeMap<String, Fallen>,
    /// Whether the targets can still change.
    changing: bool,
    streams: BTreeMap<String, (Target, BoxStream<'static, (Drift, Timestamp)>)>,
}

impl Lookout {
    async fn next(&mut self) -> (Target, Drift, Timestamp) {
        loop {
            let streams = &mut self.streams;
            let next = poll_fn(|context| {
                for (target, stream) in streams.values_mut() {
                    if let Poll::Ready(Some((drift, at))) = stream.poll_next_unpin(context) {
                        return Poll::Ready((target.clone(), drift, at));
                    }
                }
                Poll::Pending
            });
            tokio::select! {
                told = next => return told,
                changed = self.targets.changed(), if self.changing => match changed {
                    Ok(()) => self.adopt(),
                    Err(_) => self.changing = false,
                },
            }
        }
    }

    /// Begins to look at new targets, and forgets those that are gone; the others keep what is known of them.
    fn adopt(&mut self) {
        let targets = self.targets.borrow_and_update().clone();
        self.streams.retain(|key, (target, _)| {
            let stays = targets.iter().any(|target| target.key() == *key);
            if !stays {
                self.cluster.note_seen(target, None);
            }
            stays
        });
        for target in targets {
            match self.streams.entry(target.key()) {
                std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().0 = target,
                std::collections::btree_map::Entry::Vacant(new) => {
                    let fallen = self.fallen.remove(new.key());
                    let stream = look_at(self.cluster.clone(), target.clone(), fallen);
                    new.insert((target, stream));
                }
            }
        }
    }
}

fn look_at(cluster: Cluster, target: Target, fallen: Option<Fallen>) -> BoxStream<'static, (Drift, Timestamp)> {
    let follow = Follow::new(cluster.clone(), target.clone(), cluster.pace.drift);
    let look = Look { cluster, target, follow, fallen, state: State::New, sight: None, is_blind: false };
    stream::unfold(look, |mut look| async move {
        let told = look.next().await;
        Some((told, look))
    })
    .boxed()
}

/// One target under watch.
struct Look {
    cluster: Cluster,
    target: Target,
    follow: Follow,
    /// Until the first sight.
    fallen: Option<Fallen>,
    state: State,
    /// The last that was seen: time alone can make news of it, unless it cannot be seen any more.
    sight: Option<(Sight, Option<Box<Snapshot>>)>,
    /// The last question had no answer.
    is_blind: bool,
}

impl Look {
    async fn next(&mut self) -> (Drift, Timestamp) {
        loop {
            let due = self.state.due(self.cluster.pace.steady).filter(|_| !self.is_blind);
            let patience = due.map_or(IDLE, |due| {
                // Rounded up, or the last look would come a moment too early.
                Duration::try_from(due.duration_since(now())).unwrap_or(Duration::ZERO) + Duration::from_millis(1)
            });
            if self.follow.is_watching() {
                self.cluster.know_owners(&self.target).await;
            }
            match self.follow.next(patience).await {
                Observation::Seen(snapshot) => {
                    if self.follow.is_watching() {
                        self.cluster.note_seen(&self.target, Some(&snapshot.workload));
                    }
                    let mut shape = Shape::from(&*snapshot);
                    if shape.by.is_none() && self.cluster.has_written(&self.target, shape.desired) {
                        shape.by = Some(FIELD_MANAGER.to_owned());
                    }
                    self.sight = Some((Sight::Present(shape), Some(snapshot)));
                }
                Observation::Absent => {
                    self.cluster.note_seen(&self.target, None);
                    self.sight = Some((Sight::Absent, None));
                }
                Observation::Silent if self.is_blind => continue,
                Observation::Silent => {}
                Observation::Failed(error) => {
                    self.is_blind = true;
                    tracing::debug!(target = %self.target, %error, "drift cannot be seen just now");
                    continue;
                }
            }
            self.is_blind = false;
            let Some((sight, snapshot)) = &self.sight else { continue };
            if let Some(fallen) = self.fallen.take() {
                self.state = State::resume(fallen, sight);
            }
            let now = now();
            let quiet = self.cluster.is_quiet(&self.target, now);
            let (state, drift) = decide(self.state, sight, quiet, now, &self.cluster.pace);
            if matches!(drift, Some(Drift::Scaled { .. })) {
                // Somebody else's word is the last one now; the same number written by hand later is theirs again.
                let _ = self.cluster.note_written(&self.target, None);
            }
            self.state = state;
            match (drift, snapshot) {
                // By an unnamed writer, and there is an autoscaler: it was that one.
                (Some(Drift::Scaled { from: 1.., to: 1.., by: None }), _)
                    if !self.cluster.autoscalers(&self.target).await.found.is_empty() => {}
                (Some(Drift::Fell { available, desired, .. }), Some(snapshot)) => {
                    let look = self.cluster.look(&self.target, snapshot, now).await;
                    return (Drift::Fell { available, desired, troubles: look.troubles }, now);
                }
                (Some(drift), _) => return (drift, now),
                (None, _) => {}
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "drift is told with its time, and this is its loop")]
fn now() -> Timestamp {
    Timestamp::now()
}
