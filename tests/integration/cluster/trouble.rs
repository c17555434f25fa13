use k8s_openapi::api::apps::v1::StatefulSet;
use pilothouse::cluster::{Cause, Cluster, Progress, Target, Trouble, Wanted};
use pilothouse::config::Kind;

use super::{MINIMAL, admin, limited, rollout, target, until, web};
use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::kubelet::Fate;

/// Watches a start until a trouble is told.
async fn first_trouble(cluster: &Cluster, target: &Target) -> Trouble {
    let mut start = rollout(cluster, target, Wanted::Replicas(1));
    let told = until(&mut start, |p| matches!(p, Progress::Waiting { troubles, .. } if !troubles.is_empty())).await;
    match told.last() {
        Some(Progress::Waiting { troubles, .. }) => troubles.first().expect("just seen").clone(),
        told => panic!("{told:?}"),
    }
}

#[tokio::test]
async fn what_keeps_pods_from_being_ready_is_told() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        let cluster = admin(&namespace).await;
        let table = [
            ("broken", Cause::ImagePull, "main: ImagePullBackOff: Back-off pulling image \"broken:1\""),
            ("crash", Cause::CrashLoop, "main: Error, exit code 1"),
            ("oom", Cause::OutOfMemory, "main: OOMKilled, exit code 137"),
            ("pending", Cause::Unschedulable, "0/1 nodes are available: 1 Insufficient cpu."),
            ("config", Cause::ContainerConfig, "main: CreateContainerConfigError: configmap \"settings\" not found"),
        ];
        for (image, ..) in table {
            namespace.deployment(image, &format!("{image}:1"), 1).await;
        }
        for (image, cause, message) in table {
            let trouble = first_trouble(&cluster, &target(&namespace, Kind::Deployment, image)).await;
            assert_eq!((trouble.cause, trouble.message.as_str(), trouble.log), (cause, message, None), "{image}");
            assert!(trouble.object.starts_with(&format!("{image}-")), "{}", trouble.object);
        }
    })
    .await;
}

#[tokio::test]
async fn a_trouble_that_goes_away_is_no_end() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "broken:1", 1).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        let mut start = rollout(&cluster, &web, Wanted::Replicas(1));
        until(&mut start, |p| matches!(p, Progress::Waiting { troubles, .. } if !troubles.is_empty())).await;
        kubelet.decide("broken:1", Fate::Ready);
        until(&mut start, |p| *p == Progress::Done { ready: 1 }).await;
    })
    .await;
}

async fn quota(namespace: &Namespace) {
    namespace.apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: none}, spec: {hard: {pods: \"0\"}}}").await;
    namespace
        .wait::<k8s_openapi::api::core::v1::ResourceQuota>("none", super::PATIENCE, |quota| {
            quota.status.as_ref().is_some_and(|status| status.hard.is_some())
        })
        .await;
}

#[tokio::test]
async fn a_quota_is_told_even_where_only_the_deployment_may_be_read() {
    with_namespace(async |namespace| {
        quota(&namespace).await;
        namespace.deployment("web", "ready:1", 1).await;
        let web = web(&namespace);
        for cluster in [admin(&namespace).await, limited(&namespace, MINIMAL).await] {
            let trouble = first_trouble(&cluster, &web).await;
            assert_eq!(trouble.cause, Cause::Quota);
            assert!(trouble.message.contains("exceeded quota: none"), "{}", trouble.message);
        }
    })
    .await;
}

#[tokio::test]
async fn a_quota_that_stops_a_stateful_set_is_told_from_its_events() {
    with_namespace(async |namespace| {
        quota(&namespace).await;
        namespace.workload::<StatefulSet>("StatefulSet", "db", "ready:1", 1).await;
        let trouble = first_trouble(&admin(&namespace).await, &target(&namespace, Kind::StatefulSet, "db")).await;
        assert_eq!(trouble.cause, Cause::Quota);
        assert_eq!(trouble.object, "db");
    })
    .await;
}
