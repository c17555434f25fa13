//! The tables that `kubectl get` asks a server for.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{event, text};

/// Shows objects of a resource as a `Table`.
pub(crate) fn table(plural: &str, objects: &[Value], revision: u64, now: Timestamp) -> Value {
    let names = match plural {
        "deployments" => vec!["Name", "Ready", "Up-to-date", "Available", "Age"],
        "statefulsets" => vec!["Name", "Ready", "Age"],
        "replicasets" => vec!["Name", "Desired", "Current", "Ready", "Age"],
        "pods" => vec!["Name", "Ready", "Status", "Restarts", "Age"],
        "events" => vec!["Last Seen", "Type", "Reason", "Object", "Message"],
        _ => vec!["Name", "Age"],
    };
    let columns: Vec<Value> = names
        .iter()
        .map(|name| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({"name": name, "type": "string", "format": format, "description": "", "priority": 0})
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            json!({"cells": cells(plural, object, now),
                   "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                              "metadata": object["metadata"]}})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()},
           "columnDefinitions": columns, "rows": rows})
}

fn cells(plural: &str, object: &Value, now: Timestamp) -> Value {
    let name = text(object, "/metadata/name");
    let age = age(text(object, "/metadata/creationTimestamp"), now);
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |name: &str| status[name].as_i64().unwrap_or(0).to_string();
    let desired = spec["replicas"].as_i64().unwrap_or(0).to_string();
    let ready = format!("{}/{desired}", count("readyReplicas"));
    match plural {
        "deployments" => json!([name, ready, count("updatedReplicas"), count("availableReplicas"), age]),
        "statefulsets" => json!([name, ready, age]),
        "replicasets" => json!([name, desired, count("replicas"), count("readyReplicas"), age]),
        "pods" => {
            let container = &status["containerStatuses"][0];
            let up = i32::from(container["ready"] == true);
            json!([name, format!("{up}/1"), pod_state(object), container["restartCount"].to_string(), age])
        }
        "events" => {
            let event = event::to_core(object.clone());
            let (kind, name) = (text(&event, "/involvedObject/kind"), text(&event, "/involvedObject/name"));
            let about = format!("{}/{name}", kind.to_lowercase());
            json!([age, event["type"], event["reason"], about, event["message"]])
        }
        _ => json!([name, age]),
    }
}

fn pod_state(pod: &Value) -> &str {
    if pod["metadata"].get("deletionTimestamp").is_some() {
        return "Terminating";
    }
    let state = &pod["status"]["containerStatuses"][0]["state"];
    ["waiting", "terminated"]
        .iter()
        .find_map(|name| state[*name]["reason"].as_str())
        .unwrap_or_else(|| text(pod, "/status/phase"))
}

fn age(created: &str, now: Timestamp) -> String {
    let Ok(created) = created.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    match now.duration_since(created).as_secs() {
        seconds @ ..120 => format!("{}s", seconds.max(0)),
        seconds @ ..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}
