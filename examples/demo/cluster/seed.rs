//! What is in the pretend cluster when the demo begins.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Cluster, Fault, Key};

/// The namespace of everything.
pub(crate) const NAMESPACE: &str = "demo";

/// A workload of the demo.
pub(crate) struct Workload {
    plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
    /// What people read.
    pub(crate) label: &'static str,
    image: &'static str,
    /// Replicas at the beginning.
    replicas: u32,
    /// Replicas that a `start` asks for when nothing is remembered.
    pub(crate) starts_with: u32,
}

/// The workloads of the demo: one that works, one that is on, one with an image that is not there, one that crashes.
pub(crate) static WORKLOADS: &[Workload] = &[
    deployment("website", "the shop's website", "registry.example/website:1.4", 0, 2),
    deployment("llama", "the language model", "registry.example/llama:no-such-tag", 0, 1),
    deployment("report", "the nightly report", "registry.example/report:crashes", 0, 1),
    Workload {
        plural: "statefulsets",
        kind: "StatefulSet",
        name: "database",
        label: "the shop's database",
        image: "registry.example/postgres:18",
        replicas: 2,
        starts_with: 2,
    },
];

const fn deployment(
    name: &'static str,
    label: &'static str,
    image: &'static str,
    replicas: u32,
    starts_with: u32,
) -> Workload {
    Workload { plural: "deployments", kind: "Deployment", name, label, image, replicas, starts_with }
}

impl Cluster {
    /// Makes the demo's cluster as if it had been there for two hours.
    pub(crate) fn seeded(now: Timestamp) -> Result<Self, Fault> {
        let mut cluster = Self::default();
        let mut then = now - SignedDuration::from_hours(2);
        for name in ["default", NAMESPACE] {
            let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "spec": {"finalizers": ["kubernetes"]},
                                   "metadata": {"labels": {"kubernetes.io/metadata.name": name}},
                                   "status": {"phase": "Active"}});
            cluster.create(Key::new("namespaces", "", name), namespace, then)?;
        }
        for workload in WORKLOADS {
            let labels = json!({"app": workload.name});
            let mut object = json!({
                "kind": workload.kind, "apiVersion": "apps/v1", "metadata": {"labels": labels},
                "spec": {
                    "replicas": workload.replicas, "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "main", "image": workload.image}]},
                    },
                },
            });
            object["spec"][if workload.kind == "Deployment" { "strategy" } else { "updateStrategy" }] =
                json!({"type": "RollingUpdate"});
            cluster.create(Key::new(workload.plural, NAMESPACE, workload.name), object, then)?;
        }
        for _ in 0..20 {
            cluster.advance(then);
            then += SignedDuration::from_secs(1);
        }
        Ok(cluster)
    }
}
