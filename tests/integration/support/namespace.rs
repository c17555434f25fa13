//! A namespace of one test: what is in it, how it is moved, and what is waited for.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Event;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watch_object, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::control_plane::{ControlPlane, apply, describe, service_account_token, write_kubeconfig};
use super::kubelet::Kubelet;
use super::node::Node;
use super::unique;

/// A namespace of one test.
pub(crate) struct Namespace {
    /// Its random name.
    pub(crate) name: String,
    /// A client of `system:masters`.
    pub(crate) client: Client,
    /// The control plane it is in.
    pub(crate) cluster: Arc<ControlPlane>,
}

impl Namespace {
    /// The objects of one kind in this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Starts a kubelet for this namespace; it ends when dropped.
    pub(crate) fn kubelet(&self) -> Kubelet {
        Kubelet::start(self.client.clone(), &self.name, None)
    }

    /// Starts a kubelet with a node, on which every container has written `log`.
    pub(crate) async fn kubelet_with_logs(&self, log: &str) -> Kubelet {
        let node = Node::start(self.client.clone(), &self.cluster.folder.join("certs"), log).await;
        Kubelet::start(self.client.clone(), &self.name, Some(node))
    }

    /// Applies YAML documents, as `kubectl apply --server-side -n` does: what names no namespace lands in this one.
    pub(crate) async fn apply(&self, yaml: &str) {
        apply(&self.client, yaml, &self.name).await;
    }

    /// Makes a Deployment with one container `main` of `image`; the image says how its pods fare (see the kubelet).
    pub(crate) async fn deployment(&self, name: &str, image: &str, replicas: i32) -> Deployment {
        self.workload("Deployment", name, image, replicas).await
    }

    /// Makes a Deployment or a StatefulSet with one container `main` of `image`.
    pub(crate) async fn workload<K>(&self, kind: &str, name: &str, image: &str, replicas: i32) -> K
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": image}]},
                },
            },
        });
        self.apply(&object.to_string()).await;
        self.api::<K>().get(name).await.expect("what was applied is there")
    }

    /// The replicas that a Deployment is to have.
    pub(crate) async fn replicas(&self, name: &str) -> i32 {
        let object = self.api::<Deployment>().get(name).await.expect("the Deployment is there");
        object.spec.and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// How often what a Deployment is to be was changed, and by whomever: a patch that changes nothing does not count.
    pub(crate) async fn generation(&self, name: &str) -> i64 {
        let object = self.api::<Deployment>().get(name).await.expect("the Deployment is there");
        object.metadata.generation.expect("the API server counts")
    }

    /// Waits until a Deployment is to have so many replicas.
    pub(crate) async fn wait_replicas(&self, name: &str, wanted: i32, deadline: Duration) {
        let so = |object: &Deployment| object.spec.as_ref().and_then(|spec| spec.replicas) == Some(wanted);
        self.wait::<Deployment>(name, deadline, so).await;
    }

    /// Waits until so many pods of a Deployment are ready.
    pub(crate) async fn wait_ready(&self, name: &str, wanted: i32, deadline: Duration) {
        let so = |object: &Deployment| object.status.as_ref().and_then(|status| status.ready_replicas) == Some(wanted);
        self.wait::<Deployment>(name, deadline, so).await;
    }

    /// Waits until the object satisfies `wanted`, and returns it.
    ///
    /// # Panics
    /// With the object as it was last seen, when the deadline passes first.
    pub(crate) async fn wait<K>(&self, name: &str, deadline: Duration, wanted: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + serde::Serialize
            + Send
            + 'static,
        K::DynamicType: Default,
    {
        let mut seen = pin!(watch_object(self.api::<K>(), name).default_backoff());
        let mut last = None;
        let found = async {
            loop {
                // An error is no end: the watch comes back by itself.
                if let Some(Ok(Some(object))) = seen.next().await {
                    if wanted(&object) {
                        return object;
                    }
                    last = Some(object);
                }
            }
        };
        let Ok(found) = tokio::time::timeout(deadline, found).await else {
            let last = serde_json::to_string_pretty(&last).expect("an object is JSON");
            panic!("{name} is not as wanted within {deadline:?}; it is {last}")
        };
        found
    }

    /// Waits for the Kubernetes Event with this reason and note, and returns it.
    pub(crate) async fn event(&self, reason: &str, note: &str, deadline: Duration) -> Event {
        let events = watcher(self.api::<Event>(), Config::default().fields(&format!("reason={reason}")));
        let mut events = pin!(events.default_backoff().applied_objects());
        let found = async {
            loop {
                // An error is no end: the watch comes back by itself.
                if let Some(Ok(event)) = events.next().await
                    && event.message.as_deref() == Some(note)
                {
                    return event;
                }
            }
        };
        let found = tokio::time::timeout(deadline, found).await;
        found.unwrap_or_else(|_| panic!("no event {reason} with {note:?} within {deadline:?}"))
    }

    /// Makes a token of a ServiceAccount in this namespace, as a pod would get it.
    pub(crate) async fn service_account_token(&self, account: &str) -> String {
        service_account_token(&self.client, &self.name, account).await
    }

    /// Writes a kubeconfig for `token` with this namespace as its own, and returns its path.
    pub(crate) fn kubeconfig_for_token(&self, token: &str) -> PathBuf {
        let path = self.cluster.folder.join(format!("{}.kubeconfig", unique("token")));
        write_kubeconfig(&path, self.cluster.url(), &self.cluster.ca(), token, &self.name);
        path
    }

    /// Writes a kubeconfig of `system:masters` for what stands before the API server at `url`, and returns its path.
    pub(crate) fn kubeconfig_at(&self, url: &str) -> PathBuf {
        let path = self.cluster.folder.join(format!("{}.kubeconfig", unique("front")));
        write_kubeconfig(&path, url, &self.cluster.ca(), "admintoken", &self.name);
        path
    }

    /// The state of workloads, pods and events, for people.
    pub(crate) async fn describe(&self) -> String {
        describe(&self.client, &self.name).await
    }
}
