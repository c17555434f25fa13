//! A kubelet in so far as the API server can see one: it says how the pods of a namespace fare.
//!
//! Without a node the API server removes pods as soon as they are deleted.

use std::collections::HashMap;
use std::pin::pin;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::node::Node;

/// How a pod fares. Without a word from the test, the name of its image decides: `broken:1` cannot be pulled, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs and is ready: every image that is not named below.
    Ready,
    /// `slow`: it is being created until the test decides otherwise.
    Slow,
    /// `unready`: it runs, and its readiness probe fails.
    Unready,
    /// `broken`: its image cannot be pulled.
    ImagePull,
    /// `crash`: it ends with code 1 again and again.
    Crash,
    /// `oom`: it is killed for its memory again and again.
    OutOfMemory,
    /// `pending`: no node takes it.
    Unschedulable,
    /// `config`: its ConfigMap is missing.
    ConfigError,
}

impl Fate {
    fn of_image(image: &str) -> Self {
        match image.split(':').next().unwrap_or_default() {
            "slow" => Self::Slow,
            "unready" => Self::Unready,
            "broken" => Self::ImagePull,
            "crash" => Self::Crash,
            "oom" => Self::OutOfMemory,
            "pending" => Self::Unschedulable,
            "config" => Self::ConfigError,
            _ => Self::Ready,
        }
    }
}

/// The running kubelet of one namespace; it ends when dropped.
pub(crate) struct Kubelet {
    task: JoinHandle<()>,
    decided: watch::Sender<Decided>,
}

/// What the test has decided.
#[derive(Debug, Clone, Default)]
struct Decided {
    fates: HashMap<String, Fate>,
    lingering: bool,
}

impl Kubelet {
    /// Starts a kubelet for `namespace`. With a node, pods are bound to it: they have logs, and a deleted one is gone
    /// only when the kubelet says so.
    pub(crate) fn start(client: Client, namespace: &str, node: Option<Node>) -> Self {
        let decided = watch::Sender::new(Decided::default());
        let pods = Api::namespaced(client, namespace);
        let told = HashMap::new();
        let task = tokio::spawn(Telling { pods, node, told }.run(decided.subscribe()));
        Self { task, decided }
    }

    /// Decides how pods of `image` fare from now on, those that exist too.
    pub(crate) fn decide(&self, image: &str, fate: Fate) {
        self.decided.send_modify(|decided| {
            decided.fates.insert(image.to_owned(), fate);
        });
    }

    /// Decides whether deleted pods stay (as `Terminating`) until the test decides otherwise; only pods of a node can.
    pub(crate) fn let_linger(&self, lingering: bool) {
        self.decided.send_modify(|decided| decided.lingering = lingering);
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task holds.
struct Telling {
    pods: Api<Pod>,
    node: Option<Node>,
    /// Fates that the API server knows, by the pod's uid.
    told: HashMap<String, Fate>,
}

impl Telling {
    async fn run(mut self, mut decided: watch::Receiver<Decided>) {
        let watch = watcher(self.pods.clone(), watcher::Config::default());
        let mut seen = pin!(watch.default_backoff().applied_objects());
        loop {
            tokio::select! {
                pod = seen.next() => match pod {
                    Some(Ok(pod)) => {
                        let now = decided.borrow().clone();
                        self.tell(&pod, &now).await;
                    }
                    Some(Err(_)) => {} // the watcher comes back by itself
                    None => break,
                },
                changed = decided.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let now = decided.borrow_and_update().clone();
                    for pod in self.pods.list(&ListParams::default()).await.into_iter().flatten() {
                        self.tell(&pod, &now).await;
                    }
                }
            }
        }
    }

    /// Writes the status of a pod, once for each fate.
    async fn tell(&mut self, pod: &Pod, decided: &Decided) {
        if pod.metadata.deletion_timestamp.is_some() {
            if let Some(node) = self.node.as_ref().filter(|_| !decided.lingering) {
                node.bury(&self.pods, pod).await;
            }
            return;
        }
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let image = container.and_then(|container| container.image.clone()).unwrap_or_default();
        let fate = decided.fates.get(&image).copied().unwrap_or_else(|| Fate::of_image(&image));
        let uid = pod.uid().unwrap_or_default();
        if self.told.get(&uid) == Some(&fate) {
            return;
        }
        if let Some(node) = self.node.as_ref().filter(|_| fate != Fate::Unschedulable) {
            node.bind(&self.pods, pod).await;
        }
        let status = Patch::Merge(json!({ "status": status(pod, fate) }));
        // A pod that has just gone, or an API server that is away: the next word about it counts.
        if self.pods.patch_status(&pod.name_any(), &PatchParams::default(), &status).await.is_ok() {
            self.told.insert(uid, fate);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a kubelet writes down when something happened")]
fn status(pod: &Pod, fate: Fate) -> Value {
    let now = Timestamp::now().round(jiff::Unit::Second).expect("seconds").to_string();
    let scheduled = fate != Fate::Unschedulable;
    let ready = fate == Fate::Ready;
    let condition = |kind: &str, holds: bool, reason: Option<&str>, message: Option<&str>| {
        json!({
            "type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now,
            "reason": reason, "message": message,
        })
    };
    let unready = (!ready).then_some("ContainersNotReady");
    let mut conditions = vec![if scheduled {
        condition("PodScheduled", true, None, None)
    } else {
        let message = "0/1 nodes are available: 1 Insufficient cpu.";
        condition("PodScheduled", false, Some("Unschedulable"), Some(message))
    }];
    if scheduled {
        conditions.push(condition("Initialized", true, None, None));
        conditions.push(condition("ContainersReady", ready, unready, None));
        conditions.push(condition("Ready", ready, unready, None));
    }

    let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let ended = |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}});
    let back_off = waiting("CrashLoopBackOff", "back-off 40s restarting failed container");
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| {
        let image = container.image.as_deref().unwrap_or_default();
        let (state, last_state, restarts) = match fate {
            Fate::Ready | Fate::Unready => (json!({"running": {"startedAt": now}}), json!({}), 0),
            Fate::Slow | Fate::Unschedulable => (waiting("ContainerCreating", ""), json!({}), 0),
            Fate::ImagePull => {
                let message = format!("Back-off pulling image \"{image}\"");
                (waiting("ImagePullBackOff", &message), json!({}), 0)
            }
            Fate::Crash => (back_off.clone(), ended(1, "Error"), 3),
            Fate::OutOfMemory => (back_off.clone(), ended(137, "OOMKilled"), 3),
            Fate::ConfigError => {
                (waiting("CreateContainerConfigError", "configmap \"settings\" not found"), json!({}), 0)
            }
        };
        json!({
            "name": container.name, "image": image, "imageID": "", "ready": ready, "started": ready,
            "restartCount": restarts, "state": state, "lastState": last_state,
        })
    });
    let containers: Vec<Value> = if scheduled { containers.collect() } else { Vec::new() };
    let running = matches!(fate, Fate::Ready | Fate::Unready | Fate::Crash | Fate::OutOfMemory);
    json!({
        "phase": if running { "Running" } else { "Pending" },
        "startTime": scheduled.then_some(&now),
        "conditions": conditions,
        "containerStatuses": containers,
    })
}
