//! `metadata.managedFields`: who wrote which part of the specification last.

use serde_json::{Value, json};

use super::{Write, seconds};

/// Gives the fields of `spec` that differ to the writer, and takes them from whoever had them.
pub(crate) fn record(after: &mut Value, before: &Value, write: Write<'_>) {
    let changed: Vec<String> = after["spec"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| before["spec"].get(name.as_str()) != Some(value))
        .map(|(name, _)| format!("f:{name}"))
        .collect();
    let api_version = after["apiVersion"].clone();
    let managed = &mut after["metadata"]["managedFields"];
    if !managed.is_array() {
        *managed = json!([]);
    }
    let Some(entries) = managed.as_array_mut() else { return };
    for entry in entries.iter_mut() {
        if let Some(fields) = entry.pointer_mut("/fieldsV1/f:spec").and_then(Value::as_object_mut) {
            fields.retain(|name, _| !changed.contains(name));
        }
    }
    let is_writer = |entry: &Value| {
        entry["manager"] == write.manager
            && entry["operation"] == write.operation
            && entry["subresource"].as_str() == write.subresource
    };
    // Nobody keeps an entry without fields.
    entries.retain(|entry| {
        is_writer(entry) || entry["fieldsV1"]["f:spec"].as_object().is_some_and(|fields| !fields.is_empty())
    });
    let at = entries.iter().position(is_writer).unwrap_or_else(|| {
        let mut entry = json!({"manager": write.manager, "operation": write.operation, "apiVersion": api_version,
                               "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}});
        if let Some(subresource) = write.subresource {
            entry["subresource"] = json!(subresource);
        }
        entries.push(entry);
        entries.len() - 1
    });
    entries[at]["time"] = json!(seconds(write.now));
    for name in changed {
        entries[at]["fieldsV1"]["f:spec"][name] = json!({});
    }
}
