//! A node in so far as the API server asks one: over TLS, for the logs of containers.

use std::collections::HashMap;
use std::path::Path;

use axum::Router;
use axum::http::Uri;
use axum::routing::get;
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::front::Tls;
use super::unique;

/// A node on loopback; it ends when dropped.
pub(crate) struct Node {
    name: String,
    server: JoinHandle<()>,
}

impl Node {
    /// Registers a node and answers for it: every container of its pods has written `log`. It shows the certificate of
    /// the API server, which does not verify a kubelet's unless it is told how.
    pub(crate) async fn start(client: Client, certificates: &Path, log: &str) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = tcp.local_addr().expect("an address").port();
        let log = log.to_owned();
        let logs = get(move |uri: Uri| async move { excerpt(&log, &uri) });
        let router = Router::new().route("/containerLogs/{namespace}/{pod}/{container}", logs);
        let listener = Tls::over(tcp, &certificates.join("apiserver.crt"), &certificates.join("apiserver.key"));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves for ever") });

        let name = unique("node");
        let nodes = Api::<NodeObject>::all(client);
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        let object = serde_json::from_value(object).expect("a node");
        nodes.create(&PostParams::default(), &object).await.expect("a node is made");
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }});
        let patched = nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
        patched.expect("the node has an address");
        Self { name, server }
    }

    /// Puts a pod on this node, if it is on none.
    pub(crate) async fn bind(&self, pods: &Api<Pod>, pod: &Pod) {
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            return;
        }
        let name = pod.name_any();
        let target = json!({"apiVersion": "v1", "kind": "Node", "name": self.name});
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target,
        });
        // A pod that has just gone needs no node.
        let _ = pods.create_subresource::<_, Value>("binding", &name, &PostParams::default(), &binding).await;
    }

    /// Says that a pod's containers have ended, which only its node can: then it is gone.
    pub(crate) async fn bury(&self, pods: &Api<Pod>, pod: &Pod) {
        let _ = pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What a kubelet gives of a log: `tailLines` first, of these `limitBytes`.
fn excerpt(log: &str, uri: &Uri) -> String {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query: HashMap<String, String> = query.into_owned().collect();
    let bound = |name: &str| query.get(name).and_then(|bound| bound.parse::<usize>().ok()).unwrap_or(usize::MAX);
    let lines: Vec<&str> = log.lines().collect();
    let tail = &lines[lines.len().saturating_sub(bound("tailLines"))..];
    let mut text = (tail.join("\n") + "\n").into_bytes();
    text.truncate(bound("limitBytes"));
    String::from_utf8_lossy(&text).into_owned()
}
