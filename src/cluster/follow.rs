//! One object over time: watched where that is allowed, read again and again where it is not.

use std::cmp::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::BoxStream;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::error::Asked;
use super::workload::Snapshot;
use super::{Cluster, ClusterError, Target, Version, Workload};
use crate::config::Kind;

/// After so many seconds the API server ends a watch, and the object is read again: whatever a proxy may swallow is seen
/// by then.
const WATCH_SECONDS: u32 = 30;
/// How much longer a watch may stay silent before the connection counts as dead.
const MARGIN: Duration = Duration::from_secs(5);
/// Longest pause after a failure.
const PAUSE: Duration = Duration::from_secs(10);

/// How long after a refusal a watch is asked for again: the permission may come later, with a RoleBinding that is written
/// after the pod is. Where it never comes, this costs next to nothing.
const ASK_AGAIN: Duration = Duration::from_mins(5);

/// What is known of the object now.
#[derive(Debug)]
pub(super) enum Observation {
    /// It looks like this.
    Seen(Box<Snapshot>),
    /// It does not exist.
    Absent,
    /// Nothing new within the patience.
    Silent,
    /// The API server cannot be asked; it will be asked again.
    Failed(ClusterError),
}

/// An endless observation of one object.
///
/// It opens a watch, then reads, then takes what the watch has told since: in this order no deletion falls between the
/// two. The watch names no resource version, so that it needs neither `list` nor one that may be compacted already; but it
/// then begins with what the API server's cache holds, which may be older than what was read from its store. That, and
/// whatever else is older than what is known, is passed over: what is told never goes backwards.
pub(super) struct Follow {
    cluster: Cluster,
    target: Target,
    /// Between two reads where the object may not be watched.
    every: Duration,
    phase: Phase,
    /// Since a watch was refused: when it is asked for again.
    refused_until: Option<Instant>,
    /// Where the object was seen last.
    latest: Option<Place>,
}

enum Phase {
    Opening,
    Reading { changes: Option<Changes> },
    Watching { changes: Changes, until: Instant },
    Resting { until: Instant },
}

/// What an open watch tells.
type Changes = BoxStream<'static, Result<Change, ClusterError>>;

/// A change of the object, and how it was then.
enum Change {
    Shown(Box<Snapshot>),
    Deleted(Box<Snapshot>),
}

/// The place of a state of the object among its others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    version: Version,
    revision: Option<u128>,
}

impl Place {
    fn of(workload: &Workload) -> Self {
        let revision = workload.resource_version.as_ref().and_then(|version| version.parse().ok());
        Self { version: workload.version.clone(), revision }
    }

    /// Compares two states, where that can be said. Of one object the generation decides, which every API server counts
    /// alike. Between two of one generation, and two objects of one name, it is the resource version: Kubernetes 1.35
    /// defines it as a number that grows.
    fn compared_to(&self, other: &Self) -> Option<Ordering> {
        let (one, two) = (&self.version, &other.version);
        if one.uid == two.uid && one.generation != two.generation {
            return Some(one.generation.cmp(&two.generation));
        }
        Some(self.revision?.cmp(&other.revision?))
    }
}

impl Change {
    /// Says what this means after what was seen last; nothing where it is older, or known already.
    fn after(self, latest: Option<&Place>) -> Option<(Place, Observation)> {
        let (place, observation) = match self {
            Self::Shown(snapshot) => (Place::of(&snapshot.workload), Observation::Seen(snapshot)),
            Self::Deleted(snapshot) => (Place::of(&snapshot.workload), Observation::Absent),
        };
        let is_news = match latest.and_then(|latest| place.compared_to(latest)) {
            Some(Ordering::Less) => false,
            Some(Ordering::Equal) => matches!(observation, Observation::Absent),
            Some(Ordering::Greater) | None => true,
        };
        is_news.then_some((place, observation))
    }
}

impl Follow {
    pub(super) fn new(cluster: Cluster, target: Target, every: Duration) -> Self {
        Self { cluster, target, every, phase: Phase::Opening, refused_until: None, latest: None }
    }

    /// Says whether a watch is open: what changes is seen at once.
    pub(super) fn is_watching(&self) -> bool {
        matches!(self.phase, Phase::Watching { .. })
    }

    /// Waits for the next observation, at most as long as the patience (and the calls that are under way) last.
    pub(super) async fn next(&mut self, patience: Duration) -> Observation {
        let patience = Instant::now() + patience;
        loop {
            match &mut self.phase {
                Phase::Opening => {
                    let may_ask = self.refused_until.is_none_or(|until| Instant::now() >= until);
                    let changes = if may_ask { self.open().await } else { None };
                    self.phase = Phase::Reading { changes };
                }
                Phase::Reading { changes } => {
                    let changes = changes.take();
                    return self.read(changes).await;
                }
                Phase::Watching { changes, until } => {
                    let until = *until;
                    match tokio::time::timeout_at(until.min(patience), changes.next()).await {
                        Ok(Some(Ok(change))) => {
                            if let Some((place, observation)) = change.after(self.latest.as_ref()) {
                                self.latest = Some(place);
                                return observation;
                            }
                        }
                        Ok(Some(Err(error))) => {
                            tracing::debug!(target = %self.target, %error, "the watch broke");
                            self.rest(self.every.min(PAUSE));
                        }
                        Ok(None) => self.phase = Phase::Opening,
                        Err(_) if until <= patience => self.phase = Phase::Opening,
                        Err(_) => return Observation::Silent,
                    }
                }
                Phase::Resting { until } => {
                    let until = *until;
                    tokio::time::sleep_until(until.min(patience)).await;
                    if until > patience {
                        return Observation::Silent;
                    }
                    self.phase = Phase::Opening;
                }
            }
        }
    }

    /// Opens a watch. Where that fails, the read that follows says more; what cannot be watched is read again.
    async fn open(&mut self) -> Option<Changes> {
        let opened = match self.target.kind {
            Kind::Deployment => self.cluster.changes::<Deployment>(&self.target).await,
            Kind::StatefulSet => self.cluster.changes::<StatefulSet>(&self.target).await,
        };
        let is_refused = matches!(opened, Err(ClusterError::Forbidden(_)));
        self.refused_until = is_refused.then(|| Instant::now() + ASK_AGAIN);
        let error = match opened {
            Ok(changes) => return Some(changes),
            Err(error) => error,
        };
        tracing::debug!(target = %self.target, %error, "no watch");
        None
    }

    async fn read(&mut self, changes: Option<Changes>) -> Observation {
        let observation = match self.cluster.snapshot(&self.target).await {
            Ok(snapshot) => {
                // From the store itself, so that this is how it is, whatever was known.
                self.latest = Some(Place::of(&snapshot.workload));
                Observation::Seen(Box::new(snapshot))
            }
            Err(ClusterError::NotFound(_)) => Observation::Absent,
            Err(error) => {
                self.rest(self.every.min(PAUSE));
                return Observation::Failed(error);
            }
        };
        match changes {
            Some(changes) => {
                let until = Instant::now() + Duration::from_secs(WATCH_SECONDS.into()) + MARGIN;
                self.phase = Phase::Watching { changes, until };
            }
            // Without a watch that may come back at once, the next read comes in its own time.
            None if self.refused_until.is_none() => self.rest(self.every.min(PAUSE)),
            None => self.rest(self.every),
        }
        observation
    }

    /// Looks again later; until then no watch shows the object.
    fn rest(&mut self, pause: Duration) {
        self.cluster.note_seen(&self.target, None);
        self.phase = Phase::Resting { until: Instant::now() + pause };
    }
}

impl Cluster {
    /// Opens a watch of the one object. The field selector is what lets RBAC allow it by name.
    async fn changes<K>(&self, target: &Target) -> Result<Changes, ClusterError>
    where
        K: kube::Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
        K::DynamicType: Default,
        for<'a> Snapshot: From<&'a K>,
    {
        let asked = Asked::of("watch", target, "");
        let params = WatchParams::default().fields(&format!("metadata.name={}", target.object)).timeout(WATCH_SECONDS);
        let events = self.call(&asked, self.api::<K>(target).watch(&params, "")).await?;
        let changes = events.filter_map(move |event| {
            ready(match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    Some(Ok(Change::Shown(Box::new(Snapshot::from(&object)))))
                }
                Ok(WatchEvent::Deleted(object)) => Some(Ok(Change::Deleted(Box::new(Snapshot::from(&object))))),
                Ok(WatchEvent::Bookmark(_)) => None,
                Ok(WatchEvent::Error(status)) => Some(Err(asked.refused(&status))),
                Err(error) => Some(Err(asked.failed(error))),
            })
        });
        Ok(changes.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::super::kubectl::tests::deployment;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_told_never_goes_backwards() {
        let at = |uid: &str, generation, revision: &str| {
            let mut object = deployment(generation, Some(1), json!({}));
            object.metadata.uid = Some(uid.to_owned());
            object.metadata.resource_version = Some(revision.to_owned());
            Box::new(Snapshot::from(&object))
        };
        let latest = Place::of(&at("one", 3, "100").workload);
        let table = [
            ("an older generation", "one", 2, "200", false, false),
            ("a newer generation", "one", 4, "50", true, true),
            ("an older status", "one", 3, "99", false, false),
            ("the same, and its deletion", "one", 3, "100", false, true),
            ("a newer status", "one", 3, "101", true, true),
            ("the object that had the name before", "zero", 9, "99", false, false),
            ("the object that has the name by now", "two", 1, "101", true, true),
            ("what cannot be compared", "two", 1, "tomorrow", true, true),
        ];
        for (what, uid, generation, revision, shown, deleted) in table {
            let told = |change: Change| change.after(Some(&latest)).is_some();
            assert_eq!(told(Change::Shown(at(uid, generation, revision))), shown, "{what}");
            assert_eq!(told(Change::Deleted(at(uid, generation, revision))), deleted, "{what}, deleted");
        }
        assert!(Change::Shown(at("one", 1, "1")).after(None).is_some(), "nothing was seen yet");
    }
}
