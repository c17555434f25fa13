//! How a patch changes an object.

use serde_json::Value;

/// A JSON merge patch (RFC 7386).
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    apply(target, patch, false);
}

/// A strategic merge patch, as far as workloads need it: lists of objects that have a `name` are merged by it.
pub(crate) fn strategic(target: &mut Value, patch: &Value) {
    apply(target, patch, true);
}

fn apply(target: &mut Value, patch: &Value, by_name: bool) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = Value::Object(serde_json::Map::new());
            }
            for (name, value) in fields {
                // Directives ($setElementOrder, $patch) say nothing about the value itself.
                if by_name && name.starts_with('$') {
                    continue;
                }
                if value.is_null() {
                    target.as_object_mut().and_then(|object| object.remove(name));
                } else {
                    apply(&mut target[name], value, by_name);
                }
            }
        }
        Value::Array(items) if by_name && target.is_array() && items.iter().all(|item| item["name"].is_string()) => {
            let Some(list) = target.as_array_mut() else { return };
            for item in items {
                let at = list.iter().position(|one| one["name"] == item["name"]);
                match (at, item["$patch"] == "delete") {
                    (Some(at), true) => drop(list.remove(at)),
                    (Some(at), false) => apply(&mut list[at], item, true),
                    (None, true) => {}
                    (None, false) => list.push(item.clone()),
                }
            }
        }
        other => *target = other.clone(),
    }
}
