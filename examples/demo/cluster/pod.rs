//! A pod's life: from its birth to ready, or to the reason why it never is.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Key, seconds};

/// How long a pod that was asked to end stays.
pub(crate) const GRACE: SignedDuration = SignedDuration::from_secs(1);

/// What the simulation knows of a pod beyond its object.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    /// The Deployment or `StatefulSet`.
    pub(crate) workload: Key,
    /// The object that owns it directly: a `ReplicaSet` or the `StatefulSet`.
    pub(crate) owner: Value,
    pub(crate) uid: String,
    /// Hash of the template that it was made from.
    pub(crate) template: String,
    pub(crate) labels: Value,
    /// The template's specification.
    pub(crate) spec: Value,
    pub(crate) born: Timestamp,
    /// How long it takes until it is ready, or until it fails for the first time.
    pub(crate) settles_after: SignedDuration,
    pub(crate) dying: Option<Timestamp>,
    pub(crate) address: String,
}

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Creating,
    Ready,
    /// `ErrImagePull`, then `ImagePullBackOff`.
    PullFailed,
    PullBackOff,
    /// Ended with a failure, then `CrashLoopBackOff`.
    Crashed,
    CrashLoop,
}

impl Pod {
    pub(crate) fn image(&self) -> &str {
        self.spec["containers"][0]["image"].as_str().unwrap_or_default()
    }

    /// Decides where the pod stands: the image's tag says what becomes of it.
    pub(crate) fn stage(&self, now: Timestamp) -> Stage {
        let age = now.duration_since(self.born);
        let settled = age >= self.settles_after;
        let later = age >= self.settles_after + SignedDuration::from_millis(1500);
        match self.image().rsplit(':').next() {
            _ if !settled => Stage::Creating,
            Some("no-such-tag") if later => Stage::PullBackOff,
            Some("no-such-tag") => Stage::PullFailed,
            Some("crashes") if later => Stage::CrashLoop,
            Some("crashes") => Stage::Crashed,
            _ => Stage::Ready,
        }
    }

    pub(crate) fn is_ready(&self, now: Timestamp) -> bool {
        self.dying.is_none() && self.stage(now) == Stage::Ready
    }

    /// What `kubectl logs` shows.
    pub(crate) fn log(&self, now: Timestamp) -> String {
        match self.stage(now) {
            Stage::Ready => "listening on :8080\nready to serve\n".to_owned(),
            Stage::Crashed | Stage::CrashLoop => {
                "reading /etc/report/settings.yaml\nerror: settings.yaml: line 7: unknown key `recipient`\n".to_owned()
            }
            Stage::Creating | Stage::PullFailed | Stage::PullBackOff => String::new(),
        }
    }

    /// The object that the API server shows.
    pub(crate) fn object(&self, key: &Key, now: Timestamp) -> Value {
        let stage = self.stage(now);
        let phase = match stage {
            Stage::Ready | Stage::Crashed | Stage::CrashLoop => "Running",
            Stage::Creating | Stage::PullFailed | Stage::PullBackOff => "Pending",
        };
        let settled = self.born + self.settles_after;
        let ready = stage == Stage::Ready;
        let container = self.container(stage, settled);
        let since = if ready { settled } else { self.born };
        let unready = (!ready).then_some("ContainersNotReady");
        let mut object = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": self.uid, "labels": self.labels,
                         "creationTimestamp": seconds(self.born), "ownerReferences": [self.owner]},
            "spec": self.spec,
            "status": {
                "phase": phase, "podIP": self.address, "hostIP": "10.0.0.1", "startTime": seconds(self.born),
                "conditions": [
                    condition("PodScheduled", true, None, self.born),
                    condition("Initialized", true, None, self.born),
                    condition("ContainersReady", ready, unready, since),
                    condition("Ready", ready, unready, since),
                ],
                "containerStatuses": [container],
            },
        });
        object["spec"]["nodeName"] = json!("pretend-node");
        if let Some(dying) = self.dying {
            object["metadata"]["deletionTimestamp"] = json!(seconds(dying + GRACE));
            object["metadata"]["deletionGracePeriodSeconds"] = json!(GRACE.as_secs());
        }
        object
    }

    fn container(&self, stage: Stage, settled: Timestamp) -> Value {
        let image = self.image();
        let waiting = |reason: &str, message: String| json!({"waiting": {"reason": reason, "message": message}});
        let crash = json!({"terminated": {"exitCode": 1, "reason": "Error",
                                          "startedAt": seconds(settled), "finishedAt": seconds(settled)}});
        let name = &self.spec["containers"][0]["name"];
        let missing = format!("{image}: not found");
        let (now, last, restarts) = match stage {
            Stage::Creating => (json!({"waiting": {"reason": "ContainerCreating"}}), json!({}), 0),
            Stage::Ready => (json!({"running": {"startedAt": seconds(settled)}}), json!({}), 0),
            Stage::PullFailed => {
                let message = format!(
                    "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {missing}"
                );
                (waiting("ErrImagePull", message), json!({}), 0)
            }
            Stage::PullBackOff => {
                let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {missing}");
                (waiting("ImagePullBackOff", message), json!({}), 0)
            }
            Stage::Crashed => (crash, json!({}), 0),
            Stage::CrashLoop => {
                (waiting("CrashLoopBackOff", "back-off 10s restarting failed container".to_owned()), crash, 1)
            }
        };
        json!({"name": name, "image": image, "imageID": "", "ready": stage == Stage::Ready,
               "started": stage == Stage::Ready, "restartCount": restarts, "state": now, "lastState": last})
    }
}

fn condition(kind: &str, holds: bool, reason: Option<&str>, since: Timestamp) -> Value {
    let mut condition = json!({"type": kind, "status": if holds { "True" } else { "False" },
                               "lastTransitionTime": seconds(since)});
    if let Some(reason) = reason {
        condition["reason"] = json!(reason);
    }
    condition
}
