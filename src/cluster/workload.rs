//! One read of a Deployment or StatefulSet, and what it says.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ManagedFieldsEntry, ObjectMeta};

use super::error::Asked;
use super::trouble::{Cause, Trouble, replica_failure, trouble};
use super::{Cluster, ClusterError, Target, owner};
use crate::config::Kind;

/// What the API server says of a workload, in one read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// `spec.replicas`.
    pub desired: i32,
    /// `status.replicas`: pods that exist, old ones included.
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
    /// Who wrote the replicas last, from `managedFields`. After a scale to 0 the API server (1.35) tracks no writer of
    /// the scale subresource any more, until somebody writes the replicas on the object itself.
    pub scaled_by: Option<Writer>,
    /// What else owns the replicas, as far as labels and annotations of the object tell (Argo CD, Flux).
    pub managed_by: Option<String>,
    /// Since when it is (un)available, from the conditions.
    pub since: Option<Timestamp>,
}

/// The last writer of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Field manager.
    pub manager: String,
    /// When; the API server notes no time for a write of the scale subresource.
    pub at: Option<Timestamp>,
}

/// `kubectl rollout status`, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutState {
    /// Finished.
    Complete,
    /// Not yet, and why in kubectl's terms.
    Waiting(String),
    /// `Progressing` has reason `ProgressDeadlineExceeded`.
    DeadlineExceeded,
}

/// A [`Workload`] with what only this module's siblings need.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Snapshot {
    pub(super) workload: Workload,
    pub(super) uid: String,
    /// Replicas of the newest template.
    pub(super) updated: i32,
    /// `metadata.generation`: grows with every change of the spec.
    pub(super) generation: i64,
    /// Whether the controller has seen the last change of the spec.
    pub(super) observed: bool,
    /// Pods on their way out, where the cluster counts them (Kubernetes 1.35 does by default for Deployments).
    pub(super) terminating: Option<i32>,
    pub(super) selector: LabelSelector,
    /// What the controller says is wrong: no pod can be made.
    pub(super) complaint: Option<Trouble>,
    /// That the controller has given up waiting, in its words; says nothing of why.
    pub(super) stalled: Option<Trouble>,
}

impl Snapshot {
    /// Pods that still exist, as far as the object tells.
    pub(super) fn left(&self) -> i32 {
        self.workload.current + self.terminating.unwrap_or(0)
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
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or(0),
            generation: object.metadata.generation.unwrap_or(0),
            observed: object.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0),
            terminating: status.terminating_replicas,
            selector: spec.selector,
            complaint: complaint(object),
            stalled: stalled(object),
            workload: Workload {
                desired: spec.replicas.unwrap_or(1),
                current: status.replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                images: images(&spec.template),
                rollout: deployment_rollout(object),
                paused: spec.paused.unwrap_or(false),
                scaled_by: scaled_by(&object.metadata),
                managed_by: owner::declared(&object.metadata),
                since: condition(object, "Available").and_then(|c| c.last_transition_time.as_ref()).map(|time| time.0),
            },
        }
    }
}

impl From<&StatefulSet> for Snapshot {
    fn from(object: &StatefulSet) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or(0),
            generation: object.metadata.generation.unwrap_or(0),
            observed: object.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0),
            terminating: None,
            selector: spec.selector,
            complaint: None,
            stalled: None,
            workload: Workload {
                desired: spec.replicas.unwrap_or(1),
                current: status.replicas,
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                images: images(&spec.template),
                rollout: stateful_set_rollout(object),
                paused: false,
                scaled_by: scaled_by(&object.metadata),
                managed_by: owner::declared(&object.metadata),
                since: None,
            },
        }
    }
}

/// Computes what `kubectl rollout status` says of a Deployment: the same checks in the same order
/// (`kubectl/pkg/polymorphichelpers/rollout_status.go`, unchanged from v0.34 to v0.37).
#[must_use]
pub fn deployment_rollout(object: &Deployment) -> RolloutState {
    let desired = object.spec.as_ref().and_then(|spec| spec.replicas);
    let status = object.status.clone().unwrap_or_default();
    let (replicas, updated, available) =
        (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    if object.metadata.generation.unwrap_or(0) > status.observed_generation.unwrap_or(0) {
        return RolloutState::Waiting("the change is not yet observed".to_owned());
    }
    if condition(object, "Progressing").is_some_and(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded")) {
        return RolloutState::DeadlineExceeded;
    }
    if let Some(desired) = desired.filter(|desired| updated < *desired) {
        return RolloutState::Waiting(format!("{updated} of {desired} new replicas updated"));
    }
    if replicas > updated {
        return RolloutState::Waiting(format!("{} old replicas pending termination", replicas - updated));
    }
    if available < updated {
        return RolloutState::Waiting(format!("{available} of {updated} updated replicas available"));
    }
    RolloutState::Complete
}

/// Computes what `kubectl rollout status` says of a StatefulSet. With the strategy `OnDelete`, which kubectl refuses,
/// only the ready replicas count: new pods come when somebody deletes the old ones.
#[must_use]
pub fn stateful_set_rollout(object: &StatefulSet) -> RolloutState {
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let strategy = spec.update_strategy.unwrap_or_default();
    let observed = status.observed_generation.unwrap_or(0);
    if observed == 0 || object.metadata.generation.unwrap_or(0) > observed {
        return RolloutState::Waiting("the change is not yet observed".to_owned());
    }
    let ready = status.ready_replicas.unwrap_or(0);
    if let Some(desired) = spec.replicas.filter(|desired| ready < *desired) {
        return RolloutState::Waiting(format!("{} pods are not ready", desired - ready));
    }
    if strategy.type_.as_deref() == Some("OnDelete") {
        return RolloutState::Complete;
    }
    if let Some(rolling) = &strategy.rolling_update {
        let updated = status.updated_replicas.unwrap_or(0);
        if let (Some(desired), Some(partition)) = (spec.replicas, rolling.partition)
            && updated < desired - partition
        {
            return RolloutState::Waiting(format!("{updated} of {} new replicas updated", desired - partition));
        }
        return RolloutState::Complete;
    }
    if status.update_revision != status.current_revision {
        return RolloutState::Waiting("the old revision is not yet replaced".to_owned());
    }
    RolloutState::Complete
}

fn condition<'a>(object: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    object.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
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
    use super::*;
    use serde_json::{Value, json};

    fn deployment(generation: i64, replicas: Option<i32>, status: Value) -> Deployment {
        let mut object = json!({
            "metadata": { "name": "web", "generation": generation },
            "spec": { "replicas": replicas, "selector": {}, "template": {} },
        });
        object["status"] = status;
        serde_json::from_value(object).unwrap()
    }

    fn waiting(words: &str) -> RolloutState {
        RolloutState::Waiting(words.to_owned())
    }

    #[test]
    fn a_deployment_is_rolled_out_when_kubectl_says_so() {
        let exceeded = json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
        let table = vec![
            (
                "the controller has not seen the change",
                deployment(
                    2,
                    Some(1),
                    json!({ "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1 }),
                ),
                waiting("the change is not yet observed"),
            ),
            ("no status at all", deployment(1, Some(1), json!({})), waiting("the change is not yet observed")),
            (
                "the deadline goes before the numbers",
                deployment(
                    1,
                    Some(2),
                    json!({ "observedGeneration": 1, "updatedReplicas": 1, "conditions": exceeded }),
                ),
                RolloutState::DeadlineExceeded,
            ),
            (
                "too few of the new template",
                deployment(1, Some(3), json!({ "observedGeneration": 1, "replicas": 3, "updatedReplicas": 1 })),
                waiting("1 of 3 new replicas updated"),
            ),
            (
                "old ones still there",
                deployment(
                    1,
                    Some(2),
                    json!({ "observedGeneration": 1, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2 }),
                ),
                waiting("1 old replicas pending termination"),
            ),
            (
                "not available",
                deployment(
                    1,
                    Some(2),
                    json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1 }),
                ),
                waiting("1 of 2 updated replicas available"),
            ),
            (
                "all there",
                deployment(
                    1,
                    Some(2),
                    json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2 }),
                ),
                RolloutState::Complete,
            ),
            ("none wanted", deployment(1, Some(0), json!({ "observedGeneration": 1 })), RolloutState::Complete),
            ("nothing said", deployment(1, None, json!({ "observedGeneration": 1 })), RolloutState::Complete),
        ];
        for (what, object, expected) in table {
            assert_eq!(deployment_rollout(&object), expected, "{what}");
        }
    }

    fn stateful_set(generation: i64, replicas: i32, strategy: Value, status: Value) -> StatefulSet {
        let mut object = json!({
            "metadata": { "name": "db", "generation": generation },
            "spec": { "replicas": replicas, "serviceName": "db", "selector": {}, "template": {} },
        });
        object["spec"]["updateStrategy"] = strategy;
        object["status"] = status;
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_stateful_set_is_rolled_out_when_kubectl_says_so() {
        let rolling = |partition: i32| json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": partition } });
        let bare = json!({ "type": "RollingUpdate" });
        let table = vec![
            (
                "never observed",
                stateful_set(0, 0, rolling(0), json!({ "replicas": 0 })),
                waiting("the change is not yet observed"),
            ),
            (
                "the change is not observed",
                stateful_set(2, 1, rolling(0), json!({ "replicas": 1, "readyReplicas": 1, "observedGeneration": 1 })),
                waiting("the change is not yet observed"),
            ),
            (
                "not ready",
                stateful_set(1, 3, rolling(0), json!({ "replicas": 2, "readyReplicas": 1, "observedGeneration": 1 })),
                waiting("2 pods are not ready"),
            ),
            (
                "old pods above the partition",
                stateful_set(
                    1,
                    3,
                    rolling(1),
                    json!({ "replicas": 3, "readyReplicas": 3, "updatedReplicas": 1, "observedGeneration": 1 }),
                ),
                waiting("1 of 2 new replicas updated"),
            ),
            (
                "the partition is reached",
                stateful_set(
                    1,
                    3,
                    rolling(1),
                    json!({ "replicas": 3, "readyReplicas": 3, "updatedReplicas": 2, "observedGeneration": 1 }),
                ),
                RolloutState::Complete,
            ),
            (
                "two revisions without a partition",
                stateful_set(
                    1,
                    1,
                    bare.clone(),
                    json!({ "replicas": 1, "readyReplicas": 1, "observedGeneration": 1, "currentRevision": "a", "updateRevision": "b" }),
                ),
                waiting("the old revision is not yet replaced"),
            ),
            (
                "one revision without a partition",
                stateful_set(
                    1,
                    1,
                    bare,
                    json!({ "replicas": 1, "readyReplicas": 1, "observedGeneration": 1, "currentRevision": "b", "updateRevision": "b" }),
                ),
                RolloutState::Complete,
            ),
            (
                "new pods only when somebody deletes the old",
                stateful_set(
                    1,
                    1,
                    json!({ "type": "OnDelete" }),
                    json!({ "replicas": 1, "readyReplicas": 1, "observedGeneration": 1 }),
                ),
                RolloutState::Complete,
            ),
            (
                "none wanted",
                stateful_set(1, 0, rolling(0), json!({ "replicas": 0, "observedGeneration": 1 })),
                RolloutState::Complete,
            ),
        ];
        for (what, object, expected) in table {
            assert_eq!(stateful_set_rollout(&object), expected, "{what}");
        }
    }

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
}
