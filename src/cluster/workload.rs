//! One read of a Deployment or StatefulSet, and what it says.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ManagedFieldsEntry, ObjectMeta};
use serde::{Deserialize, Serialize};

use super::error::Asked;
use super::kubectl::{RolloutState, deployment_rollout, stateful_set_rollout};
use super::pods::Left;
use super::trouble::{Cause, Trouble, replica_failure, trouble};
use super::{Cluster, ClusterError, Target, owner};
use crate::config::Kind;

/// What the API server says of a workload, in one read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// `spec.replicas`.
    pub desired: i32,
    /// Which object it is, and how often its spec has been changed.
    pub version: Version,
    /// `metadata.resourceVersion`: another after every change, of its status too.
    pub resource_version: Option<String>,
    /// `status.replicas`: pods that exist, old ones included; of a Deployment without those that terminate.
    pub current: i32,
    /// `status.readyReplicas`.
    pub ready: i32,
    /// `status.availableReplicas`.
    pub available: i32,
    /// Images of the pod template's containers.
    pub images: Vec<String>,
    /// Whether a rollout is finished, as `kubectl rollout status` computes it.
    pub rollout: RolloutState,
    /// A Deployment's `spec.paused`.
    pub paused: bool,
    /// A StatefulSet's update strategy `OnDelete`: pods are replaced only when somebody deletes them.
    pub on_delete: bool,
    /// Who wrote the replicas last, from `managedFields`. After a scale to 0 the API server (1.35) tracks no writer of
    /// the scale subresource any more, until somebody writes the replicas on the object itself.
    pub scaled_by: Option<Writer>,
    /// What else owns the replicas, as far as labels and annotations of the object tell (Argo CD, Flux).
    pub managed_by: Option<String>,
    /// Since when it is ready, or has too few replicas to be available at all: from a Deployment's conditions; of a ready
    /// StatefulSet, in [`Cluster::describe`] alone, since the last of its pods became ready. Nothing tells since when one is
    /// neither, as in a rollout whose old pods serve.
    pub since: Option<Timestamp>,
}

impl Workload {
    /// Says whether all is there that is wanted.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready >= self.desired && self.rollout == RolloutState::Complete
    }
}

/// What tells whether anybody has changed the spec of an object, or made it anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `metadata.uid`: another for each object that had the name.
    pub uid: String,
    /// `metadata.generation`: grows by one with every change of the spec, the replicas included, and with nothing else.
    pub generation: i64,
}

impl Version {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        Self { uid: metadata.uid.clone().unwrap_or_default(), generation: metadata.generation.unwrap_or(0) }
    }

    /// Says whether the same object was so before the other. Objects that had the name one after the other tell nothing.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        self.uid == other.uid && self.generation < other.generation
    }

    /// After one more change of the spec.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { generation: self.generation + 1, ..self.clone() }
    }
}

/// The last writer of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Field manager.
    pub manager: String,
    /// When; the API server notes no time for a write of the scale subresource.
    pub at: Option<Timestamp>,
}

/// A [`Workload`] with what only this module's siblings need.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Snapshot {
    pub(super) workload: Workload,
    /// Replicas of the newest template.
    pub(super) updated: i32,
    /// Whether its controller itself tells that a rollout takes too long; that of `StatefulSets` waits for ever.
    pub(super) tells_stall: bool,
    /// Whether the controller has seen the last change of the spec.
    pub(super) observed: bool,
    /// Pods on their way out that `current` leaves out, where the cluster counts them (Kubernetes 1.35 does by default for
    /// Deployments).
    pub(super) terminating: Option<i32>,
    pub(super) selector: LabelSelector,
    /// What the controller says is wrong: no pod can be made.
    pub(super) complaint: Option<Trouble>,
    /// That the controller has given up waiting, in its words; says nothing of why.
    pub(super) stalled: Option<Trouble>,
}

impl Snapshot {
    /// Pods that still exist, as far as the object tells.
    pub(super) fn left(&self) -> Left {
        match self.terminating {
            Some(terminating) => Left::Counted(self.workload.current + terminating),
            None => Left::AtLeast(self.workload.current),
        }
    }
}

impl Cluster {
    /// Reads the workload: one `get`.
    ///
    /// # Errors
    /// [`ClusterError`] as the API server, or the way to it, says.
    pub async fn workload(&self, target: &Target) -> Result<Workload, ClusterError> {
        Ok(self.snapshot(target).await?.workload)
    }

    pub(super) async fn snapshot(&self, target: &Target) -> Result<Snapshot, ClusterError> {
        let asked = Asked::of("get", target, "");
        match target.kind {
            Kind::Deployment => {
                let api = self.api::<Deployment>(target);
                Ok(Snapshot::from(&self.call(&asked, api.get(&target.object)).await?))
            }
            Kind::StatefulSet => {
                let api = self.api::<StatefulSet>(target);
                Ok(Snapshot::from(&self.call(&asked, api.get(&target.object)).await?))
            }
        }
    }
}

impl From<&Deployment> for Snapshot {
    fn from(object: &Deployment) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let mut snapshot = Self {
            updated: status.updated_replicas.unwrap_or(0),
            tells_stall: true,
            observed: object.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0),
            terminating: status.terminating_replicas,
            selector: spec.selector,
            complaint: complaint(object),
            stalled: stalled(object),
            workload: Workload {
                desired: spec.replicas.unwrap_or(1),
                version: Version::of(&object.metadata),
                resource_version: object.metadata.resource_version.clone(),
                current: status.replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                images: images(&spec.template),
                rollout: deployment_rollout(object),
                paused: spec.paused.unwrap_or(false),
                on_delete: false,
                scaled_by: scaled_by(&object.metadata),
                managed_by: owner::declared(&object.metadata),
                since: None,
            },
        };
        snapshot.workload.since = since(object, snapshot.workload.is_ready());
        snapshot
    }
}

impl From<&StatefulSet> for Snapshot {
    fn from(object: &StatefulSet) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        Self {
            updated: status.updated_replicas.unwrap_or(0),
            tells_stall: false,
            observed: object.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0),
            // Its controller has them among its replicas until they are gone.
            terminating: Some(0),
            selector: spec.selector,
            complaint: None,
            stalled: None,
            workload: Workload {
                desired: spec.replicas.unwrap_or(1),
                version: Version::of(&object.metadata),
                resource_version: object.metadata.resource_version.clone(),
                current: status.replicas,
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                images: images(&spec.template),
                rollout: stateful_set_rollout(object),
                paused: false,
                on_delete: spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete"),
                scaled_by: scaled_by(&object.metadata),
                managed_by: owner::declared(&object.metadata),
                since: None,
            },
        }
    }
}

pub(super) fn condition<'a>(object: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    object.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Since when a Deployment is ready, or not available. It is available while no more than a few replicas are missing (its
/// strategy says how many), be it through a rollout that never gets ready: then the condition tells of another time.
fn since(object: &Deployment, is_ready: bool) -> Option<Timestamp> {
    let available = condition(object, "Available")?;
    let tells = (available.status == "True") == is_ready;
    available.last_transition_time.as_ref().filter(|_| tells).map(|time| time.0)
}

/// What a Deployment's own conditions say is wrong. Its controller copies `ReplicaFailure` from the `ReplicaSet`, so
/// that a quota is seen without listing any.
fn complaint(object: &Deployment) -> Option<Trouble> {
    let condition = condition(object, "ReplicaFailure").filter(|condition| condition.status == "True")?;
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Some(replica_failure(name, condition.message.as_deref().unwrap_or("no pod can be made")))
}

fn stalled(object: &Deployment) -> Option<Trouble> {
    let condition = condition(object, "Progressing")
        .filter(|condition| condition.reason.as_deref() == Some("ProgressDeadlineExceeded"))?;
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Some(trouble(name, Cause::Failed, condition.message.as_deref().unwrap_or("no progress within its deadline")))
}

fn images(template: &PodTemplateSpec) -> Vec<String> {
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    containers.filter_map(|container| container.image.clone()).collect()
}

/// Finds who wrote `spec.replicas` last. Several managers own it when they wrote the same value.
fn scaled_by(metadata: &ObjectMeta) -> Option<Writer> {
    let writes_replicas = |entry: &&ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    };
    metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(writes_replicas)
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .map(|entry| Writer {
            manager: entry.manager.clone().unwrap_or_default(),
            at: entry.time.as_ref().map(|time| time.0),
        })
}

#[cfg(test)]
mod tests {
    use super::super::kubectl::tests::deployment;
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_last_writer_of_the_replicas_is_found() {
        let mut object = deployment(1, Some(1), json!({}));
        let entry = |manager: &str, time: &str, fields: Value| -> ManagedFieldsEntry {
            serde_json::from_value(json!({ "manager": manager, "time": time, "fieldsV1": fields })).unwrap()
        };
        object.metadata.managed_fields = Some(vec![
            entry("helm", "2026-01-01T00:00:00Z", json!({ "f:spec": { "f:replicas": {}, "f:template": {} } })),
            entry("pilothouse", "2026-01-02T00:00:00Z", json!({ "f:spec": { "f:replicas": {} } })),
            entry("kube-controller-manager", "2026-01-03T00:00:00Z", json!({ "f:status": { "f:replicas": {} } })),
        ]);
        let writer = Snapshot::from(&object).workload.scaled_by.unwrap();
        assert_eq!(writer.manager, "pilothouse");
        assert_eq!(writer.at, Some("2026-01-02T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_quota_shows_on_the_deployment_itself() {
        let object = deployment(
            1,
            Some(1),
            json!({ "conditions": [{ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small" }] }),
        );
        assert_eq!(Snapshot::from(&object).complaint.unwrap().cause, super::super::Cause::Quota);
    }
    #[test]
    fn since_when_is_told_only_where_the_condition_means_what_is_told() {
        let since = |available: &str, ready: i32, updated: i32| {
            let condition =
                json!({ "type": "Available", "status": available, "lastTransitionTime": "2026-01-01T00:00:00Z" });
            let object = deployment(
                2,
                Some(4),
                json!({
                    "observedGeneration": 2, "replicas": updated, "updatedReplicas": updated, "readyReplicas": ready,
                    "availableReplicas": ready, "conditions": [condition],
                }),
            );
            Snapshot::from(&object).workload.since
        };
        assert!(since("True", 4, 4).is_some(), "ready");
        assert!(since("False", 1, 4).is_some(), "not available");
        assert_eq!(since("True", 3, 4), None, "one more replica is on its way");
        assert_eq!(since("True", 4, 1), None, "a rollout beside pods that serve");
        assert_eq!(since("False", 4, 4), None, "not noted yet");
    }
}
