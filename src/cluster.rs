//! The cluster: scale, restart, look, wait. Stateless: a target, what is wanted, a deadline.
//!
//! Nothing but `get` on the object and `patch` on its scale is needed for the main job. Everything else that
//! [`PERMISSIONS`] names adds something, and what is lost without it is said, never an error.

mod access;
mod client;
mod drift;
mod error;
mod event;
mod follow;
mod kubectl;
mod owner;
mod pods;
mod restart;
mod rollout;
mod scale;
mod status;
mod trouble;
#[cfg(test)]
mod wire;
mod words;
mod workload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Kind;

pub use access::{Access, PERMISSIONS, Permission, SECRET, SecretAccess, When};
pub use drift::{Drift, Fallen};
pub use error::ClusterError;
pub use event::{Happening, Record};
pub use kubectl::{RolloutState, deployment_rollout, stateful_set_rollout};
pub use pods::Left;
pub use rollout::{Progress, Wanted};
pub use status::Description;
pub use trouble::{Cause, Trouble, pod_troubles};
pub use workload::{Version, Workload, Writer};

/// Name under which Pilothouse writes (`metadata.managedFields`) and reports Kubernetes Events.
pub const FIELD_MANAGER: &str = "pilothouse";

/// A workload that people may name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What people type.
    pub name: String,
    /// What people read.
    pub label: String,
    /// Kind of the object.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name in Kubernetes.
    pub object: String,
}

impl Target {
    /// Gives the name under which the store keeps what belongs to it: `kind/namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{:?}/{}/{}", self.kind, self.namespace, self.object)
    }

    /// Plural of its kind, as RBAC writes it.
    fn resource(&self) -> &'static str {
        match self.kind {
            Kind::Deployment => "deployments",
            Kind::StatefulSet => "statefulsets",
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} in namespace {}", self.kind, self.object, self.namespace)
    }
}

/// How often, and how long, the cluster is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two reads of a rollout where the object may not be watched, and before a failed read is tried again.
    pub poll: Duration,
    /// Between two looks at the pods of a rollout that is not ready.
    pub look: Duration,
    /// Between two reads for drift where the object may not be watched.
    pub drift: Duration,
    /// How long a workload must keep all its replicas until it counts as recovered: falls closer than this are one.
    pub steady: Duration,
    /// How long the rollout of a StatefulSet may replace no pod until it counts as stalled.
    pub stall: Duration,
    /// How long after its deadline a rollout is still asked for where the API server does not answer.
    pub grace: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(2),
            look: Duration::from_secs(3),
            drift: Duration::from_mins(1),
            steady: Duration::from_mins(1),
            // What a Deployment's controller gives a rollout unless told otherwise (progressDeadlineSeconds).
            stall: Duration::from_mins(10),
            // Pilothouse may be back from a reboot before the API server is, and finds a deadline that has passed.
            grace: Duration::from_mins(1),
        }
    }
}

/// The API server, and the way to it. Cheap to clone; every call has a limit of its own.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    limit: Duration,
    show_logs: bool,
    write_events: bool,
    pace: Pace,
    /// By [`Target::key`]: until when drift is not told.
    quiet: Arc<Mutex<HashMap<String, Timestamp>>>,
    /// Autoscalers by target, and when they were read.
    owners: Arc<Mutex<owner::Known>>,
    /// By [`Target::key`]: replicas written here that drift has not seen yet.
    written: Arc<Mutex<HashMap<String, i32>>>,
    /// By [`Target::key`]: workloads as drift has seen them last.
    seen: Arc<Mutex<HashMap<String, Workload>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Deployment in the namespace `apps`.
    pub(super) fn deployment(name: &str) -> Target {
        Target {
            name: name.to_owned(),
            label: name.to_owned(),
            kind: Kind::Deployment,
            namespace: "apps".to_owned(),
            object: name.to_owned(),
        }
    }
}
