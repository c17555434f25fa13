//! A pretend cluster: the objects of an API server, a log of their changes, and a small simulation of controllers.
//!
//! Everything here is a state machine with the time as a parameter; [`server`] alone does IO. Objects are kept as
//! JSON, as the wire has them, so that a patch needs no knowledge of a kind.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};

#[cfg(test)]
mod client_tests;
mod event;
#[cfg(test)]
mod kubectl_tests;
mod ownership;
mod patch;
mod pod;
mod resource;
mod seed;
mod selector;
pub(crate) mod server;
mod simulation;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use pod::Pod;
pub(crate) use seed::{NAMESPACE, WORKLOADS, Workload};

/// So many changes are kept for watches that come back; older ones are `410 Gone`.
const CHANGES_KEPT: usize = 2000;

/// Where an object lives. Events have one home, though two API groups show them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The resource's plural name.
    pub(crate) plural: &'static str,
    /// Empty for what has no namespace.
    pub(crate) namespace: String,
    /// The object's name.
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(plural: &'static str, namespace: &str, name: &str) -> Self {
        Self { plural, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// What happened to an object, as a watch names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

impl ChangeKind {
    fn wire(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One entry of the log of changes.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    revision: u64,
    kind: ChangeKind,
    key: Key,
    object: Value,
}

/// What the API server answers instead of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    NotFound(String),
    AlreadyExists(String),
    Conflict(String),
    /// The log of changes does not reach back so far.
    Gone,
    Invalid(String),
    /// The pretend cluster does not do this.
    NotAllowed,
    /// A patch in a format that is not understood.
    UnsupportedPatch,
}

impl Fault {
    /// The HTTP status code.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::NotFound(_) => 404,
            Self::AlreadyExists(_) | Self::Conflict(_) => 409,
            Self::Gone => 410,
            Self::Invalid(_) => 422,
            Self::NotAllowed => 405,
            Self::UnsupportedPatch => 415,
        }
    }

    /// The `Status` object that clients read.
    pub(crate) fn status(&self) -> Value {
        let (reason, message) = match self {
            Self::NotFound(what) => ("NotFound", format!("{what} not found")),
            Self::AlreadyExists(what) => ("AlreadyExists", format!("{what} already exists")),
            Self::Conflict(what) => (
                "Conflict",
                format!(
                    "Operation cannot be fulfilled on {what}: the object has been modified; please apply your changes to the latest version and try again"
                ),
            ),
            Self::Gone => ("Expired", "too old resource version".to_owned()),
            Self::Invalid(why) => ("Invalid", why.clone()),
            Self::NotAllowed => ("MethodNotAllowed", "the pretend cluster does not do this".to_owned()),
            Self::UnsupportedPatch => {
                ("UnsupportedMediaType", "the pretend cluster takes merge, strategic and apply patches".to_owned())
            }
        };
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
               "message": message, "reason": reason, "code": self.code()})
    }
}

/// Who writes, and through which door.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write<'a> {
    /// The field manager.
    pub(crate) manager: &'a str,
    /// `Update` or `Apply`.
    pub(crate) operation: &'a str,
    /// `scale` where the object was reached through it.
    pub(crate) subresource: Option<&'a str>,
    /// When.
    pub(crate) now: Timestamp,
}

/// All objects, what changed lately, and the pods' private lives.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    changes: VecDeque<Change>,
    pods: BTreeMap<Key, Pod>,
    /// Counts what was made, for uids and names.
    made: u64,
}

impl Cluster {
    /// The resource version of the newest change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// One object, or that it is not there.
    pub(crate) fn object(&self, key: &Key) -> Result<&Value, Fault> {
        self.objects.get(key).ok_or_else(|| Fault::NotFound(format!("{} \"{}\"", key.plural, key.name)))
    }

    /// All objects of a resource, in a namespace or in all.
    pub(crate) fn list<'a>(
        &'a self,
        plural: &'a str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        self.objects
            .iter()
            .filter(move |(key, _)| key.plural == plural && namespace.is_none_or(|wanted| key.namespace == wanted))
    }

    /// What changed after a resource version; `Gone` if the log does not reach back.
    pub(crate) fn changes_since(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Fault> {
        let oldest = self.changes.front().map_or(self.revision + 1, |change| change.revision);
        if revision + 1 < oldest {
            return Err(Fault::Gone);
        }
        Ok(self.changes.iter().skip_while(move |change| change.revision <= revision))
    }

    /// Makes an object that was not there.
    pub(crate) fn create(&mut self, key: Key, mut object: Value, now: Timestamp) -> Result<Value, Fault> {
        if self.objects.contains_key(&key) {
            return Err(Fault::AlreadyExists(format!("{} \"{}\"", key.plural, key.name)));
        }
        let uid = self.uid();
        let meta = &mut object["metadata"];
        meta["name"] = json!(key.name);
        if !key.namespace.is_empty() {
            meta["namespace"] = json!(key.namespace);
        }
        meta["uid"] = json!(uid);
        meta["creationTimestamp"] = json!(seconds(now));
        if object.get("spec").is_some() {
            object["metadata"]["generation"] = json!(1);
        }
        Ok(self.put(key, object))
    }

    /// Changes an object's specification as a person or a program asks: generation and field owners follow.
    pub(crate) fn update(
        &mut self,
        key: &Key,
        write: Write<'_>,
        change: impl FnOnce(&mut Value),
    ) -> Result<Value, Fault> {
        let before = self.object(key)?.clone();
        let mut after = before.clone();
        change(&mut after);
        if after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            return Err(Fault::Conflict(format!("{} \"{}\"", key.plural, key.name)));
        }
        if after == before {
            return Ok(before);
        }
        after["metadata"]["uid"] = before["metadata"]["uid"].clone();
        if after["spec"] != before["spec"] {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(0);
            after["metadata"]["generation"] = json!(generation + 1);
            ownership::record(&mut after, &before, write);
        }
        Ok(self.put(key.clone(), after))
    }

    /// Takes an object away; a pod is asked to end and goes a moment later.
    pub(crate) fn delete(&mut self, key: &Key, now: Timestamp) -> Result<Value, Fault> {
        let object = self.object(key)?.clone();
        if let Some(pod) = self.pods.get_mut(key) {
            pod.dying.get_or_insert(now);
        } else {
            self.remove(key);
        }
        Ok(object)
    }

    /// Writes an object if it differs from what is there, with the next resource version.
    fn put(&mut self, key: Key, mut object: Value) -> Value {
        let kind = match self.objects.get(&key) {
            Some(before) if *before == object => return object,
            Some(_) => ChangeKind::Modified,
            None => ChangeKind::Added,
        };
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.insert(key.clone(), object.clone());
        self.log(kind, key, object.clone());
        object
    }

    fn remove(&mut self, key: &Key) {
        if let Some(mut object) = self.objects.remove(key) {
            self.revision += 1;
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            self.log(ChangeKind::Deleted, key.clone(), object);
        }
        self.pods.remove(key);
    }

    fn log(&mut self, kind: ChangeKind, key: Key, object: Value) {
        self.changes.push_back(Change { revision: self.revision, kind, key, object });
        if self.changes.len() > CHANGES_KEPT {
            self.changes.pop_front();
        }
    }

    fn uid(&mut self) -> String {
        self.made += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.made)
    }
}

/// A time as Kubernetes writes it: whole seconds.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A text in an object, empty if it is not there.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
