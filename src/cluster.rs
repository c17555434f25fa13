//! The cluster: scale, restart, look, wait. Stateless: a target, what is wanted, a deadline.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Kind;

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
}

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
    /// Who wrote the replicas last, from `managedFields`.
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
    /// When.
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

/// What `status` tells beyond one read; each part is `None` where the permission is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The read itself.
    pub workload: Workload,
    /// Why pods are not ready.
    pub troubles: Option<Vec<Trouble>>,
    /// Last Kubernetes Events of the object, newest first, at most three.
    pub events: Option<Vec<Happening>>,
    /// What else owns the replicas: HPA, ScaledObject, Argo CD, Flux, as `kind name`.
    pub owners: Vec<String>,
    /// What could not be seen, each with the missing permission.
    pub unseen: Vec<String>,
}

/// A Kubernetes Event, shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// When.
    pub at: Option<Timestamp>,
    /// Its reason.
    pub reason: String,
    /// Its note, at most 200 characters.
    pub note: String,
}

/// Why it will not get better by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which pod or object.
    pub object: String,
    /// What kind of failure.
    pub cause: Cause,
    /// The cluster's own words, at most 300 characters.
    pub message: String,
    /// Last log lines of the failing container, bounded; only where the configuration allows them.
    pub log: Option<String>,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No node takes the pod.
    Unschedulable,
    /// The image cannot be pulled.
    ImagePull,
    /// The container ends again and again.
    CrashLoop,
    /// The kernel killed it for its memory.
    OutOfMemory,
    /// A ConfigMap, Secret or command that is not there.
    ContainerConfig,
    /// The quota lets no pod be made.
    Quota,
    /// The node threw the pod out.
    Evicted,
    /// The container ended with a failure.
    Failed,
    /// The admission or another controller refused the pod (`ReplicaFailure`).
    Refused,
}

/// What a rollout waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// This many replicas, rolled out.
    Replicas(i32),
    /// No pod left.
    Gone,
    /// The rollout that a restart began is complete.
    Restarted,
}

/// A step of a rollout under watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not there yet.
    Waiting {
        /// Ready replicas.
        ready: i32,
        /// Wanted replicas (for `Gone`: pods that are left).
        of: i32,
        /// Why it will not get better by itself, if so; empty otherwise.
        troubles: Vec<Trouble>,
    },
    /// What was wanted is so. The stream ends.
    Done {
        /// Ready replicas.
        ready: i32,
    },
    /// Somebody else wrote other replicas meanwhile. The stream ends.
    Overruled {
        /// Replicas that are wanted now.
        desired: i32,
        /// Who wrote them, if the object tells.
        by: Option<String>,
    },
    /// The object is gone. The stream ends.
    Deleted,
    /// The deadline passed. The stream ends with the last that was seen.
    Expired {
        /// Ready replicas.
        ready: i32,
        /// Wanted replicas.
        of: i32,
        /// Why, as far as pods tell.
        troubles: Vec<Trouble>,
    },
    /// The API server cannot be asked just now; the watch goes on.
    Blind {
        /// What failed.
        error: ClusterError,
    },
}

/// Something that happened to a workload which was ready, and that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// It lost its availability.
    Fell {
        /// Available replicas.
        available: i32,
        /// Wanted replicas.
        desired: i32,
        /// Why, as far as pods tell.
        troubles: Vec<Trouble>,
    },
    /// It has all its replicas again after [`Drift::Fell`].
    Recovered {
        /// Available replicas.
        available: i32,
        /// How long it was down.
        after: jiff::SignedDuration,
    },
    /// Somebody else scaled it.
    Scaled {
        /// Replicas before.
        from: i32,
        /// Replicas now.
        to: i32,
        /// Who, if the object tells.
        by: Option<String>,
    },
    /// The object is gone.
    Deleted,
}

/// What the API server, or the way to it, said no to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// 404.
    #[error("{0} does not exist")]
    NotFound(String),
    /// 403, with what is missing (`patch deployments/scale in apps`).
    #[error("the ServiceAccount may not {0}")]
    Forbidden(String),
    /// 409.
    #[error("somebody else changed {0} at the same moment")]
    Conflict(String),
    /// 403 by a ResourceQuota.
    #[error("the quota does not allow it: {0}")]
    Quota(String),
    /// No answer in time: nothing is certain.
    #[error("the API server did not answer in time: nothing is certain")]
    Timeout,
    /// No connection.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// 401.
    #[error("the API server does not accept the credentials: {0}")]
    Unauthorized(String),
    /// 4xx otherwise.
    #[error("the API server refused: {0}")]
    Refused(String),
    /// 5xx, or an answer that cannot be read.
    #[error("the API server failed: {0}")]
    Failed(String),
}
