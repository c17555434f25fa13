//! What the tests of the operator judge: a workload, and an order for it as the journal has it.

use jiff::Timestamp;

use crate::cluster::{RolloutState, Version, Workload};
use crate::store::inbox::{Entry, State};

fn version(generation: i64) -> Version {
    Version { uid: "one".to_owned(), generation }
}

/// A workload of so many replicas, none of which is there yet.
pub(in crate::operator) fn workload(desired: i32, generation: i64) -> Workload {
    Workload {
        desired,
        version: version(generation),
        resource_version: None,
        current: 0,
        ready: 0,
        available: 0,
        images: vec![],
        rollout: RolloutState::Complete,
        paused: false,
        on_delete: false,
        scaled_by: None,
        managed_by: None,
        since: None,
    }
}

/// An order for `web` as the journal has it, which is to leave the object at this generation.
pub(in crate::operator) fn order(
    sender: &str,
    (from, to): (i32, i32),
    generation: i64,
    outcome: Option<&str>,
) -> Entry {
    let target = serde_json::json!({
        "name": "web", "label": "web", "kind": "Deployment", "namespace": "apps", "object": "web",
    });
    let work = serde_json::json!({
        "target": target, "change": { "scale": { "from": from, "to": to } }, "owners": [],
        "version": version(generation),
    });
    Entry {
        id: 1,
        event: "$e".to_owned(),
        room: "!r".to_owned(),
        sender: sender.to_owned(),
        state: State::Told,
        sent_at: Timestamp::UNIX_EPOCH,
        received_at: Timestamp::UNIX_EPOCH,
        payload: String::new(),
        target: None,
        work: Some(work.to_string()),
        outcome: outcome.map(str::to_owned),
        started_at: None,
        waiting_for: None,
    }
}
