use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::StreamExt as _;
use jiff::SignedDuration;
use pilothouse::cluster::{Cluster, ClusterError, Progress, Wanted};
use pilothouse::config;
use tokio::net::TcpListener;

use super::{admin, connect, now, rollout, settings, to_the_end, until, web};
use crate::support::control_plane::{ControlPlane, with_namespace};
use crate::support::free_port;
use crate::support::kubelet::Fate;

fn at(url: &str, limit: SignedDuration) -> Cluster {
    let settings = config::Kubernetes { timeout: limit, ..settings() };
    Cluster::with(kube::Config::new(url.parse().expect("a URL")), &settings).expect("a client")
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_and_nothing_is_certain() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = at(&format!("http://{}", silent.local_addr().unwrap()), SignedDuration::from_millis(300));
    let started = std::time::Instant::now();
    assert_eq!(cluster.version().await, Err(ClusterError::Timeout));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_unreachable_and_says_why() {
    let cluster = at(&format!("https://127.0.0.1:{}", free_port()), SignedDuration::from_secs(10));
    let error = cluster.version().await.unwrap_err();
    let ClusterError::Unreachable(why) = &error else { panic!("{error:?}") };
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn a_server_that_is_too_busy_is_asked_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let busy = axum::Router::new().fallback(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::SERVICE_UNAVAILABLE }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = at(&format!("http://{}", listener.local_addr().unwrap()), SignedDuration::from_secs(10));
    let server = tokio::spawn(async move { axum::serve(listener, busy).await });
    let error = cluster.version().await.unwrap_err();
    assert!(matches!(error, ClusterError::Failed(_)), "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "whoever waits for an answer hears of it");
    server.abort();
}

#[tokio::test]
async fn a_token_that_is_not_known_is_unauthorized() {
    with_namespace(async |namespace| {
        let kubeconfig = namespace.kubeconfig_for_token("nobody");
        let cluster = connect(&kubeconfig, &settings()).await;
        let error = cluster.workload(&web(&namespace)).await.unwrap_err();
        assert!(matches!(error, ClusterError::Unauthorized(_)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn the_version_needs_no_permission() {
    with_namespace(async |namespace| {
        let cluster = super::limited(&namespace, "[]").await;
        assert!(cluster.version().await.unwrap().starts_with("v1."));
    })
    .await;
}

/// One control plane of its own for what would disturb others: KEDA's kind, and a server that freezes and dies.
#[tokio::test]
async fn a_rollout_survives_a_frozen_and_a_dead_api_server() {
    let control_plane = std::sync::Arc::new(ControlPlane::start().await);
    control_plane
        .with_namespace(async |namespace| {
            let kubelet = namespace.kubelet();
            namespace.deployment("web", "slow:1", 1).await;
            let web = web(&namespace);

            namespace.apply(KEDA).await;
            served(&namespace.client).await;
            namespace.apply(SCALED_OBJECT).await;
            assert_eq!(admin(&namespace).await.owners(&web).await, ["ScaledObject on-demand"]);
            let minimal = super::limited(&namespace, super::MINIMAL).await;
            let unseen = minimal.describe(&web, now()).await.unwrap().unseen;
            assert!(unseen.iter().any(|unseen| unseen.contains("list scaledobjects.keda.sh")), "{unseen:?}");

            let short = config::Kubernetes { timeout: SignedDuration::from_secs(1), ..settings() };
            let impatient = connect(&control_plane.kubeconfig(), &short).await;
            let cluster = admin(&namespace).await;
            let mut start = rollout(&cluster, &web, Wanted::Replicas(1));
            let mut late = rollout(&impatient, &web, Wanted::Replicas(1));
            until(&mut start, |_| true).await;
            until(&mut late, |_| true).await;

            control_plane.pause_api_server();
            // The kernel stops a process when it next runs one of its threads: a last answer may slip out.
            let frozen = async {
                loop {
                    if let Err(error) = impatient.scale(&web, 1).await {
                        return error;
                    }
                }
            };
            let error = tokio::time::timeout(super::PATIENCE, frozen).await.expect("it is frozen");
            assert_eq!(error, ClusterError::Timeout);
            control_plane.resume_api_server();

            let mut lost =
                cluster.rollout(web.clone(), Wanted::Replicas(1), None, now() + SignedDuration::from_secs(10)).boxed();
            until(&mut lost, |_| true).await;
            control_plane.stop_api_server();
            let blind = |p: &Progress| matches!(p, Progress::Blind { error: ClusterError::Unreachable(_) });
            let (_, _, lost) = tokio::join!(until(&mut start, blind), until(&mut late, blind), to_the_end(lost));
            let unseen = matches!(lost.last(), Some(Progress::Unseen { error: ClusterError::Unreachable(_) }));
            assert!(unseen, "its deadline passed while nothing could be seen: {lost:?}");
            control_plane.start_api_server().await;
            kubelet.decide("slow:1", Fate::Ready);
            for rollout in [start, late] {
                let told = to_the_end(rollout).await;
                assert_eq!(told.last(), Some(&Progress::Done { ready: 1 }), "{told:?}");
            }
        })
        .await;
}

const KEDA: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: scaledobjects.keda.sh}
spec:
  group: keda.sh
  scope: Namespaced
  names: {kind: ScaledObject, plural: scaledobjects}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

const SCALED_OBJECT: &str = "
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: on-demand}
spec: {scaleTargetRef: {name: web}}
";

/// Waits until the kind that was just defined is served and told of: the one does not mean the other.
async fn served(client: &kube::Client) {
    let told = async {
        while client.list_api_group_resources("keda.sh/v1alpha1").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, told).await.expect("the kind is served");
}
