//! Kubernetes Events: kept as the core group has them, shown by `events.k8s.io` too.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Cluster, Key, seconds, text};

/// Names of the same field: core group, `events.k8s.io`.
const TWINS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("source", "deprecatedSource"),
];

/// An Event as `events.k8s.io/v1` shows it.
pub(crate) fn to_new(mut event: Value) -> Value {
    for (core, new) in TWINS {
        rename(&mut event, core, new);
    }
    event["apiVersion"] = json!("events.k8s.io/v1");
    event
}

/// An Event of `events.k8s.io/v1` as it is kept.
pub(crate) fn to_core(mut event: Value) -> Value {
    for (core, new) in TWINS {
        rename(&mut event, new, core);
    }
    event["apiVersion"] = json!("v1");
    event
}

fn rename(event: &mut Value, from: &str, to: &str) {
    if let Some(value) = event.as_object_mut().and_then(|fields| fields.remove(from)) {
        event[to] = value;
    }
}

impl Cluster {
    /// Writes down what a controller did to an object.
    pub(crate) fn note(&mut self, object: &Key, source: &str, reason: &str, message: &str, now: Timestamp) {
        let Ok(about) = self.object(object) else { return };
        let about = json!({"kind": about["kind"], "apiVersion": about["apiVersion"], "namespace": object.namespace,
                           "name": object.name, "uid": text(about, "/metadata/uid")});
        self.made += 1;
        let name = format!("{}.{:016x}", object.name, self.made);
        let kind = if reason.contains("Fail") || reason == "BackOff" { "Warning" } else { "Normal" };
        let event = json!({
            "kind": "Event", "apiVersion": "v1", "metadata": {}, "involvedObject": about, "type": kind,
            "reason": reason, "message": message, "source": {"component": source},
            "firstTimestamp": seconds(now), "lastTimestamp": seconds(now), "count": 1,
            "eventTime": null, "reportingComponent": source, "reportingInstance": "",
        });
        // The name has never been used: nothing to refuse.
        self.create(Key::new("events", &object.namespace, &name), event, now).ok();
    }
}
