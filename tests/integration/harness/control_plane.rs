//! A control plane, its namespaces and its kubelet.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::support::control_plane::{ControlPlane, Namespace, client_for, with_namespace};
use crate::support::kubelet::Fate;

const DEADLINE: Duration = Duration::from_mins(3);

fn available(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

async fn scale(client: Client, namespace: &str, replicas: i32) -> kube::Result<()> {
    let deployments = Api::<Deployment>::namespaced(client, namespace);
    let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments.patch_scale("web", &PatchParams::default(), &scale).await.map(|_| ())
}

#[tokio::test]
async fn a_scaled_deployment_becomes_available_and_goes_away() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "web:1", 0).await;
        for replicas in [2, 0] {
            scale(namespace.client.clone(), &namespace.name, replicas).await.expect("it scales");
            namespace
                .wait("web", DEADLINE, |web: &Deployment| {
                    let current = web.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
                    available(web) == replicas && current == replicas
                })
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_pods_of_a_stateful_set_become_ready_one_after_the_other() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.workload::<StatefulSet>("StatefulSet", "db", "db:1", 2).await;
        let ready = |db: &StatefulSet| db.status.as_ref().is_some_and(|status| status.ready_replicas == Some(2));
        namespace.wait("db", DEADLINE, ready).await;
    })
    .await;
}

#[tokio::test]
async fn a_pod_fares_as_its_image_or_the_test_says() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        for (image, reason) in [
            ("broken:1", "ImagePullBackOff"),
            ("crash:1", "CrashLoopBackOff"),
            ("oom:1", "OOMKilled"),
            ("pending:1", "Unschedulable"),
            ("config:1", "CreateContainerConfigError"),
            ("unready:1", "ContainersNotReady"),
            ("slow:1", "ContainerCreating"),
        ] {
            let name = image.trim_end_matches(":1");
            namespace.deployment(name, image, 1).await;
            let told = |pod: &Pod| serde_json::to_string(&pod.status).is_ok_and(|status| status.contains(reason));
            let pod = pod_of(&namespace, name).await;
            namespace.wait(&pod, DEADLINE, told).await;
            kubelet.decide(image, Fate::Ready);
            namespace.wait(name, DEADLINE, |web| available(web) == 1).await;
        }
        assert!(namespace.describe().await.contains("deployment slow wants Some(1)"));
    })
    .await;
}

/// Waits for the only pod of a Deployment.
async fn pod_of(namespace: &Namespace, name: &str) -> String {
    let made = |web: &Deployment| web.status.as_ref().is_some_and(|status| status.replicas == Some(1));
    namespace.wait(name, DEADLINE, made).await;
    let pods = namespace.api::<Pod>().list(&ListParams::default().labels(&format!("app={name}"))).await;
    pods.expect("pods are listed").items[0].name_any()
}

#[tokio::test]
async fn a_pod_on_a_node_has_a_log_and_goes_when_the_kubelet_says_so() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet_with_logs("one\ntwo\nthree\n").await;
        namespace.deployment("web", "crash:1", 1).await;
        let pod = pod_of(&namespace, "web").await;
        let fails = |pod: &Pod| serde_json::to_string(&pod.status).is_ok_and(|text| text.contains("CrashLoopBackOff"));
        namespace.wait(&pod, DEADLINE, fails).await;
        let wanted = LogParams { tail_lines: Some(2), limit_bytes: Some(8), previous: true, ..LogParams::default() };
        assert_eq!(namespace.api::<Pod>().logs(&pod, &wanted).await.expect("a log"), "two\nthre");

        kubelet.let_linger(true);
        scale(namespace.client.clone(), &namespace.name, 0).await.expect("it scales");
        namespace.wait(&pod, DEADLINE, |pod: &Pod| pod.metadata.deletion_timestamp.is_some()).await;
        let gone = await_condition(namespace.api::<Pod>(), &pod, |pod: Option<&Pod>| pod.is_none());
        kubelet.let_linger(false);
        tokio::time::timeout(DEADLINE, gone).await.expect("the pod goes").expect("the API server answers");
    })
    .await;
}

#[tokio::test]
async fn a_service_account_may_do_what_its_role_says_and_nothing_else() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "web:1", 0).await;
        namespace
            .apply(
                r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: bot}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: bot}
rules:
- {apiGroups: [apps], resources: [deployments], verbs: [get]}
- {apiGroups: [apps], resources: [deployments/scale], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: bot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: bot}
subjects: [{kind: ServiceAccount, name: bot}]
",
            )
            .await;
        let token = namespace.service_account_token("bot").await;
        let bot = client_for(&namespace.kubeconfig_for_token(&token)).await;
        assert_eq!(bot.default_namespace(), namespace.name);
        scale(bot.clone(), &namespace.name, 1).await.expect("it may scale");
        let pods = Api::<Pod>::default_namespaced(bot).list(&ListParams::default()).await;
        assert!(matches!(pods, Err(kube::Error::Api(status)) if status.is_forbidden()));
    })
    .await;
}

#[tokio::test]
async fn an_api_server_goes_away_hangs_and_comes_back() {
    let cluster = Arc::new(ControlPlane::start().await);
    assert!(cluster.url().starts_with("https://127.0.0.1:") && cluster.ca().is_file());
    cluster
        .with_namespace(async |namespace| {
            namespace.deployment("web", "web:1", 0).await;

            cluster.stop_api_server();
            scale(cluster.client().await, &namespace.name, 1).await.expect_err("nobody listens");
            cluster.start_api_server().await;
            scale(cluster.client().await, &namespace.name, 1).await.expect("it is back");

            cluster.pause_api_server();
            let answer = scale(cluster.client().await, &namespace.name, 2);
            tokio::time::timeout(Duration::from_millis(300), answer).await.expect_err("nobody answers");
            cluster.resume_api_server();
            scale(cluster.client().await, &namespace.name, 2).await.expect("it goes on");
        })
        .await;
}
