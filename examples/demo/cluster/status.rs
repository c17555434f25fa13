//! What the controllers write into a workload's status.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::simulation::stamp;

/// A workload's pods, counted. Pods that were asked to end do not count, as in a real cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) wanted: usize,
    pub(crate) living: usize,
    pub(crate) updated: usize,
    pub(crate) ready: usize,
}

/// The status of a Deployment. Like the real one it leaves out what is zero.
pub(crate) fn deployment(object: &Value, counts: Counts, now: Timestamp) -> Value {
    let complete = counts.updated == counts.wanted && counts.living == counts.updated && counts.ready >= counts.wanted;
    // The default strategy lets a quarter be away.
    let available = counts.ready + counts.wanted / 4 >= counts.wanted;
    let mut status = Map::new();
    status.insert("observedGeneration".into(), object["metadata"]["generation"].clone());
    let numbers = [
        ("replicas", counts.living),
        ("updatedReplicas", counts.updated),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.ready),
        ("unavailableReplicas", counts.wanted.saturating_sub(counts.ready)),
    ];
    for (name, count) in numbers.into_iter().filter(|(_, count)| *count > 0) {
        status.insert(name.into(), json!(count));
    }
    let available = if available {
        ("Available", true, "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("Available", false, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let progressing = if complete {
        ("Progressing", true, "NewReplicaSetAvailable", "ReplicaSet has successfully progressed.")
    } else {
        ("Progressing", true, "ReplicaSetUpdated", "ReplicaSet is progressing.")
    };
    let conditions = [available, progressing]
        .map(|(kind, holds, reason, message)| condition(&object["status"], kind, holds, reason, message, now));
    status.insert("conditions".into(), json!(conditions));
    Value::Object(status)
}

/// The status of a `StatefulSet`.
pub(crate) fn stateful_set(object: &Value, counts: Counts, revision: &str) -> Value {
    // The revision becomes the current one when all pods have it.
    let before = object["status"]["currentRevision"].as_str();
    let current = if counts.updated == counts.living { revision } else { before.unwrap_or(revision) };
    json!({
        "observedGeneration": object["metadata"]["generation"], "replicas": counts.living,
        "readyReplicas": counts.ready, "availableReplicas": counts.ready, "updatedReplicas": counts.updated,
        "currentReplicas": counts.living - counts.updated + if current == revision { counts.updated } else { 0 },
        "currentRevision": current, "updateRevision": revision, "collisionCount": 0,
    })
}

fn condition(before: &Value, kind: &str, holds: bool, reason: &str, message: &str, now: Timestamp) -> Value {
    let status = if holds { "True" } else { "False" };
    let old = before["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == kind));
    let kept = |field: &str, same: bool| old.filter(|_| same).map_or_else(|| stamp(now), |old| old[field].clone());
    let same_status = old.is_some_and(|old| old["status"] == status);
    let same_reason = same_status && old.is_some_and(|old| old["reason"] == reason);
    json!({"type": kind, "status": status, "reason": reason, "message": message,
           "lastTransitionTime": kept("lastTransitionTime", same_status),
           "lastUpdateTime": kept("lastUpdateTime", same_reason)})
}
