//! The cluster on a real control plane: what is told is what the API server and its controllers did.

#[path = "cluster/access.rs"]
mod access;
#[path = "cluster/drift.rs"]
mod drift;
#[path = "cluster/outage.rs"]
mod outage;
#[path = "cluster/rollout.rs"]
mod rollout;
#[path = "cluster/scale.rs"]
mod scale;
#[path = "cluster/status.rs"]
pub(crate) mod status;
#[path = "cluster/trouble.rs"]
mod trouble;

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use pilothouse::cluster::{Cluster, Pace, Progress, Target, Wanted};
use pilothouse::config::{self, Kind, KubernetesSource};
use serde_json::json;

use crate::manifests::rights_of;
use crate::support::control_plane::{Namespace, client_for};

/// Everything here takes a second on an idle machine; a busy one takes its time.
const PATIENCE: Duration = Duration::from_mins(3);

/// Only what the main job needs.
const MINIMAL: &str = "
- {apiGroups: [apps], resources: [deployments, statefulsets], verbs: [get]}
- {apiGroups: [apps], resources: [deployments/scale, statefulsets/scale], verbs: [patch]}";

fn settings() -> config::Kubernetes {
    config::Kubernetes {
        source: KubernetesSource::Infer,
        context: None,
        timeout: SignedDuration::from_secs(10),
        rollout_deadline: SignedDuration::from_mins(5),
        show_logs: false,
        events: true,
    }
}

/// A client that reads a kubeconfig and asks often, so that tests do not wait.
async fn connect(kubeconfig: &Path, settings: &config::Kubernetes) -> Cluster {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let pace = Pace {
        poll: Duration::from_millis(200),
        look: Duration::from_millis(200),
        drift: Duration::from_millis(300),
        steady: Duration::from_secs(2),
        stall: Duration::from_secs(2),
        grace: Duration::from_secs(2),
    };
    Cluster::with(config.expect("a client's configuration"), settings).expect("a client").with_pace(pace)
}

/// The cluster as `system:masters` sees it.
async fn admin(namespace: &Namespace) -> Cluster {
    connect(&namespace.cluster.kubeconfig(), &settings()).await
}

/// The cluster as a ServiceAccount with these rules sees it.
async fn limited(namespace: &Namespace, rules: &str) -> Cluster {
    let name = &namespace.name;
    namespace
        .apply(&format!(
            "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: limited}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: limited}}
rules: {rules}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: limited}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: limited}}
subjects: [{{kind: ServiceAccount, name: limited, namespace: {name}}}]
"
        ))
        .await;
    let kubeconfig = namespace.kubeconfig_for_token(&namespace.service_account_token("limited").await);
    // The API server learns of a Role a moment after it is there.
    let client = client_for(&kubeconfig).await;
    let known = async {
        while rights_of(&client, name).await.is_empty() && rules.contains("verbs") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("the API server knows the Role in time");
    connect(&kubeconfig, &settings()).await
}

fn target(namespace: &Namespace, kind: Kind, name: &str) -> Target {
    Target {
        name: name.to_owned(),
        label: name.to_owned(),
        kind,
        namespace: namespace.name.clone(),
        object: name.to_owned(),
    }
}

fn web(namespace: &Namespace) -> Target {
    target(namespace, Kind::Deployment, "web")
}

#[expect(clippy::disallowed_methods, reason = "a test has a clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn rollout(cluster: &Cluster, target: &Target, wanted: Wanted) -> Pin<Box<dyn Stream<Item = Progress> + Send>> {
    cluster.rollout(target.clone(), wanted, None, now() + SignedDuration::from_mins(5)).boxed()
}

/// Takes from a stream until the item that is waited for, and returns all that came.
async fn until<T: std::fmt::Debug>(
    stream: &mut (impl Stream<Item = T> + Unpin + ?Sized),
    wanted: impl Fn(&T) -> bool,
) -> Vec<T> {
    let mut came = Vec::new();
    let waiting = async {
        while let Some(item) = stream.next().await {
            let is_wanted = wanted(&item);
            came.push(item);
            if is_wanted {
                return true;
            }
        }
        false
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(true) => came,
        Ok(false) => panic!("the stream ended without what was waited for: {came:#?}"),
        Err(elapsed) => panic!("{elapsed} after {PATIENCE:?}: {came:#?}"),
    }
}

/// Takes all of a rollout.
async fn to_the_end(rollout: Pin<Box<dyn Stream<Item = Progress> + Send>>) -> Vec<Progress> {
    tokio::time::timeout(PATIENCE, rollout.collect()).await.expect("a rollout ends")
}

/// Somebody else scales, as kubectl does.
pub(crate) async fn scale_as(manager: &str, namespace: &Namespace, name: &str, replicas: i32) {
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let api = namespace.api::<k8s_openapi::api::apps::v1::Deployment>();
    api.patch_scale(name, &params, &patch).await.expect("scaled");
}
