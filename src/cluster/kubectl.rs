//! What `kubectl rollout status` would say: the same checks in the same order, so that the room and a terminal agree
//! (`kubectl/pkg/polymorphichelpers/rollout_status.go`, unchanged from v0.34 to v0.37).

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};

use super::workload::condition;

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

/// Computes what `kubectl rollout status` says of a Deployment.
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn deployment(generation: i64, replicas: Option<i32>, status: Value) -> Deployment {
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
}
