//! The pods of a workload: how many are left, and why they are not ready.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ListParams, LogParams};
use kube::core::Selector;

use super::error::Asked;
use super::trouble::{Cause, Finding, Trouble, findings, replica_failure};
use super::workload::Snapshot;
use super::{Cluster, ClusterError, Target, words};
use crate::config::Kind;

/// Most pods that are read at once; the failures of a larger workload show in its first ones.
const PODS: u32 = 500;
/// Most troubles that are told.
const TROUBLES: usize = 3;
/// Last lines of a log, and most bytes of them that are read. A node gives the first bytes of these lines, and the last
/// words say why it ended: more is read than is shown.
const LOG_LINES: i64 = 10;
const LOG_READ: i64 = 64 * 1024;
/// Most bytes of a log that are shown.
const LOG_SHOWN: usize = 4096;
/// How long a pod that ended (an eviction) explains anything: it may lie around for weeks.
const PAST: SignedDuration = SignedDuration::from_hours(1);
/// The controller of `StatefulSet`s repeats a failed creation at least this often, rounded up.
const REPEATED: SignedDuration = SignedDuration::from_mins(20);

/// Pods of a workload that still exist, those on their way out included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// So many.
    Counted(i32),
    /// So many, and perhaps others that are on their way out: those may not be seen.
    AtLeast(i32),
}

impl Left {
    /// The pods that are known of.
    #[must_use]
    pub fn pods(self) -> i32 {
        match self {
            Self::Counted(pods) | Self::AtLeast(pods) => pods,
        }
    }
}

/// What a look at the pods gave.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) troubles: Vec<Trouble>,
    /// What could not be seen.
    pub(super) unseen: Vec<String>,
    /// Whether pods may be listed at all.
    pub(super) pods_forbidden: bool,
    /// When a pod last became ready or ceased to be.
    pub(super) since: Option<Timestamp>,
    /// How many pods there are, where they may be listed.
    pub(super) left: Option<i32>,
}

impl Cluster {
    /// Looks for what keeps the pods from being ready. Never fails: what could not be seen is said.
    pub(super) async fn look(&self, target: &Target, snapshot: &Snapshot, now: Timestamp) -> Look {
        let mut look = Look { troubles: snapshot.complaint.iter().cloned().collect(), ..Look::default() };
        match self.pods(target, snapshot).await {
            Ok(pods) => {
                look.since = last_turn(&pods);
                look.left = Some(living(&pods));
                for finding in findings(&telling(target, pods, now)).into_iter().take(TROUBLES) {
                    let trouble = self.with_log(target, finding, &mut look.unseen).await;
                    look.troubles.push(trouble);
                }
            }
            Err(error) => {
                look.pods_forbidden = matches!(error, ClusterError::Forbidden(_));
                look.unseen.push(format!("why pods are not ready: {error}"));
            }
        }
        if look.troubles.is_empty() && target.kind == Kind::StatefulSet {
            look.troubles.extend(self.failed_creation(target, snapshot, now).await);
        }
        if look.troubles.is_empty() {
            look.troubles.extend(snapshot.stalled.clone());
        }
        look.troubles.truncate(TROUBLES);
        look
    }

    /// Counts the pods that a workload still has, now; `None` where that cannot be seen just now.
    pub async fn left(&self, target: &Target) -> Option<Left> {
        let snapshot = self.snapshot(target).await.ok()?;
        Some(self.pods_left(target, &snapshot).await.unwrap_or(snapshot.left()))
    }

    /// Counts the pods of the workload that still run or are on their way out; where they may not be listed, as far as the
    /// object tells.
    pub(super) async fn pods_left(&self, target: &Target, snapshot: &Snapshot) -> Result<Left, ClusterError> {
        match self.pods(target, snapshot).await {
            Ok(pods) => Ok(Left::Counted(living(&pods))),
            Err(ClusterError::Forbidden(_)) => Ok(snapshot.left()),
            Err(error) => Err(error),
        }
    }

    /// Lists the pods that belong to the workload.
    async fn pods(&self, target: &Target, snapshot: &Snapshot) -> Result<Vec<Pod>, ClusterError> {
        let selector = Selector::try_from(snapshot.selector.clone())
            .map_err(|error| ClusterError::Failed(format!("the selector of {target} cannot be read: {error}")))?;
        let params = ListParams::default().labels_from(&selector).limit(PODS);
        let asked = Asked::beside("list", target, "pods");
        let pods = self.call(&asked, self.api::<Pod>(target).list(&params)).await?;
        Ok(pods.items.into_iter().filter(|pod| belongs(pod, target)).collect())
    }

    /// Adds the last words of the failing container, where the configuration allows them.
    async fn with_log(&self, target: &Target, finding: Finding, unseen: &mut Vec<String>) -> Trouble {
        let Finding { mut trouble, last_words } = finding;
        let Some(last_words) = last_words.filter(|_| self.show_logs) else { return trouble };
        let params = LogParams {
            container: Some(last_words.container),
            previous: last_words.previous,
            tail_lines: Some(LOG_LINES),
            limit_bytes: Some(LOG_READ),
            ..LogParams::default()
        };
        let asked = Asked::beside("get", target, "pods/log");
        match self.call(&asked, self.api::<Pod>(target).logs(&trouble.object, &params)).await {
            Ok(text) => {
                let text = words::clean(text.trim_end());
                trouble.log =
                    Some(words::end_within_bytes(&text, LOG_SHOWN).to_owned()).filter(|text| !text.is_empty());
            }
            // A container that never ran, or a node that is away, has no log: that is no news.
            Err(error @ ClusterError::Forbidden(_)) => unseen.push(format!("last log lines: {error}")),
            Err(error) => tracing::debug!(%target, pod = trouble.object, %error, "no log of a failing container"),
        }
        trouble
    }

    /// The controller of `StatefulSet`s tells in Kubernetes Events alone that no pod can be made.
    async fn failed_creation(&self, target: &Target, snapshot: &Snapshot, now: Timestamp) -> Option<Trouble> {
        if snapshot.workload.current >= snapshot.workload.desired {
            return None;
        }
        let happenings = self.happenings(target, &snapshot.workload.version.uid).await.ok()?;
        happenings
            .into_iter()
            .find(|event| {
                event.reason == "FailedCreate" && event.at.is_some_and(|at| now.duration_since(at) < REPEATED)
            })
            .map(|event| replica_failure(&target.object, &event.note))
    }
}

/// Whether the pod was made for the workload: labels may overlap, the controller may not.
fn belongs(pod: &Pod, target: &Target) -> bool {
    let is_ours = |owner: &OwnerReference| match target.kind {
        Kind::StatefulSet => owner.kind == "StatefulSet" && owner.name == target.object,
        // The ReplicaSet between them is named after the Deployment and the hash of its template.
        Kind::Deployment => {
            owner.kind == "ReplicaSet"
                && template(pod).is_some_and(|hash| owner.name == format!("{}-{hash}", target.object))
        }
    };
    pod.metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true) && is_ours(owner))
}

fn template(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get("pod-template-hash").map(String::as_str)
}

/// Counts the pods of which anything runs. One that has ended is not gone (an evicted pod is kept for its story), but
/// nothing of it runs.
fn living(pods: &[Pod]) -> i32 {
    i32::try_from(pods.iter().filter(|pod| !has_ended(pod)).count()).unwrap_or(i32::MAX)
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// The pods whose state tells why the workload is not ready now. A Deployment's pods of an older template are being
/// replaced, whatever they say; a StatefulSet waits for its old ones.
fn telling(target: &Target, mut pods: Vec<Pod>, now: Timestamp) -> Vec<Pod> {
    pods.retain(|pod| !has_ended(pod) || last_change(pod).is_some_and(|at| now.duration_since(at) < PAST));
    if target.kind == Kind::Deployment {
        let newest = pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let newest = newest.and_then(template).map(str::to_owned);
        pods.retain(|pod| template(pod) == newest.as_deref());
    }
    pods
}

fn last_change(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let changes = status.conditions.iter().flatten().filter_map(|condition| condition.last_transition_time.as_ref());
    changes.chain(&status.start_time).chain(&pod.metadata.creation_timestamp).map(|time| time.0).max()
}

/// When one of these pods last became ready or ceased to be.
fn last_turn(pods: &[Pod]) -> Option<Timestamp> {
    let conditions =
        pods.iter().filter(|pod| !has_ended(pod)).filter_map(|pod| pod.status.as_ref()?.conditions.as_ref());
    let ready = conditions.flatten().filter(|condition| condition.type_ == "Ready");
    ready.filter_map(|condition| condition.last_transition_time.as_ref().map(|time| time.0)).max()
}

/// Whether the room would read the same: words of the cluster change with every attempt, what is wrong does not.
pub(super) fn same_troubles(one: &[Trouble], other: &[Trouble]) -> bool {
    let tale = |troubles: &[Trouble]| -> Vec<(Cause, String)> {
        troubles.iter().map(|trouble| (trouble.cause, trouble.object.clone())).collect()
    };
    tale(one) == tale(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, owner: &str, hash: &str, created: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "creationTimestamp": created, "labels": { "pod-template-hash": hash },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": "u", "controller": true }],
            },
            "status": { "phase": phase },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_belongs_to_the_controller_that_made_it() {
        let web = super::super::tests::deployment("web");
        let at = "2026-01-01T00:00:00Z";
        assert!(belongs(&pod("web-a-1", "web-a", "a", at, "Running"), &web));
        assert!(
            !belongs(&pod("web-a-1", "web-old-a", "a", at, "Running"), &web),
            "another Deployment with the same labels"
        );
        let mut orphan = pod("web-a-1", "web-a", "a", at, "Running");
        orphan.metadata.owner_references = None;
        assert!(!belongs(&orphan, &web));
    }

    #[test]
    fn the_last_pod_that_became_ready_or_ceased_to_be_tells_since_when() {
        let with = |phase: &str, conditions: serde_json::Value| {
            let mut pod = pod("db-0", "db", "a", "2026-01-01T00:00:00Z", phase);
            pod.status = serde_json::from_value(json!({ "phase": phase, "conditions": conditions })).unwrap();
            pod
        };
        let turned = |kind: &str, at: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": at });
        let pods = [
            with(
                "Running",
                json!([turned("Ready", "2026-01-01T01:00:00Z"), turned("Initialized", "2026-01-01T09:00:00Z")]),
            ),
            with("Running", json!([turned("Ready", "2026-01-01T02:00:00Z")])),
            with("Failed", json!([turned("Ready", "2026-01-01T08:00:00Z")])),
            with("Pending", json!([])),
        ];
        assert_eq!(last_turn(&pods), Some("2026-01-01T02:00:00Z".parse().unwrap()));
        assert_eq!(last_turn(&pods[2..]), None);
    }

    #[test]
    fn only_the_newest_template_of_a_deployment_and_the_near_past_tell_anything() {
        let web = super::super::tests::deployment("web");
        let now = "2026-01-01T03:00:00Z".parse().unwrap();
        let pods = vec![
            pod("old", "web-a", "a", "2026-01-01T00:00:00Z", "Pending"),
            pod("new", "web-b", "b", "2026-01-01T02:59:00Z", "Pending"),
            pod("evicted", "web-b", "b", "2026-01-01T02:30:00Z", "Failed"),
            pod("evicted-long-ago", "web-b", "b", "2026-01-01T01:00:00Z", "Failed"),
        ];
        let names: Vec<_> = telling(&web, pods, now).into_iter().filter_map(|pod| pod.metadata.name).collect();
        assert_eq!(names, ["new", "evicted"]);
    }
}
