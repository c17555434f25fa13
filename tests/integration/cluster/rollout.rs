use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use pilothouse::cluster::{Cause, ClusterError, Left, Progress, RolloutState, Wanted};
use pilothouse::config::Kind;
use serde_json::json;

use super::{MINIMAL, PATIENCE, admin, limited, now, rollout, scale_as, target, to_the_end, until, web};
use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::kubelet::Fate;

#[tokio::test]
async fn start_and_stop_are_told_until_they_are_done() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "slow:1", 0).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));

        cluster.scale(&web, 2).await.unwrap();
        let mut start = rollout(&cluster, &web, Wanted::Replicas(2));
        let first = until(&mut start, |_| true).await;
        assert_eq!(first, [Progress::Waiting { ready: 0, of: 2, troubles: vec![] }]);
        kubelet.decide("slow:1", Fate::Ready);
        let told = to_the_end(start).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 2 }), "{told:?}");

        let workload = cluster.workload(&web).await.unwrap();
        assert_eq!((workload.desired, workload.ready, workload.available), (2, 2, 2));
        assert_eq!(workload.rollout, RolloutState::Complete);
        assert_eq!(workload.images, ["slow:1"]);
        assert_eq!(workload.scaled_by.unwrap().manager, "pilothouse");

        cluster.scale(&web, 0).await.unwrap();
        let told = to_the_end(rollout(&cluster, &web, Wanted::Gone)).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 0 }), "{told:?}");
        assert!(namespace.api::<Pod>().list(&ListParams::default()).await.unwrap().items.is_empty());
    })
    .await;
}

#[tokio::test]
async fn fewer_replicas_are_done_when_the_surplus_is_gone() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "ready:1", 3).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        to_the_end(rollout(&cluster, &web, Wanted::Replicas(3))).await;
        cluster.scale(&web, 1).await.unwrap();
        let told = to_the_end(rollout(&cluster, &web, Wanted::Replicas(1))).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 1 }), "{told:?}");
    })
    .await;
}

/// A workload whose pods stay, terminating, until [`let_go`].
async fn clinging(namespace: &Namespace, kind: &str, name: &str) {
    let object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "finalizers": ["example.org/hold"]},
                "spec": {"containers": [{"name": "main", "image": "ready:1"}]},
            },
        },
    });
    namespace.apply(&object.to_string()).await;
}

async fn let_go(namespace: &Namespace) {
    let pods = namespace.api::<Pod>();
    for pod in pods.list(&ListParams::default()).await.expect("pods") {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        pods.patch(&pod.name_any(), &PatchParams::default(), &patch).await.expect("patched");
    }
}

#[tokio::test]
async fn stop_is_not_done_while_a_pod_is_terminating_whatever_may_be_read() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        clinging(&namespace, "Deployment", "web").await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        let minimal = limited(&namespace, MINIMAL).await;
        to_the_end(rollout(&cluster, &web, Wanted::Replicas(1))).await;

        cluster.scale(&web, 0).await.unwrap();
        let left = Progress::Waiting { ready: 0, of: 1, troubles: vec![] };
        let (mut stop, mut stop_blindly) =
            (rollout(&cluster, &web, Wanted::Gone), rollout(&minimal, &web, Wanted::Gone));
        tokio::join!(until(&mut stop, |p| *p == left), until(&mut stop_blindly, |p| *p == left));
        for cluster in [&cluster, &minimal] {
            // Whether they are listed or counted by the object: a `status`, or a second stop, must not take them for gone.
            assert_eq!(cluster.describe(&web, now()).await.unwrap().left, Left::Counted(1));
            assert_eq!(cluster.left(&web).await, Some(Left::Counted(1)));
        }
        let_go(&namespace).await;
        let (told, told_blindly) = tokio::join!(to_the_end(stop), to_the_end(stop_blindly));
        assert_eq!(told.last(), Some(&Progress::Done { ready: 0 }), "{told:?}");
        assert_eq!(told_blindly.last(), Some(&Progress::Done { ready: 0 }), "{told_blindly:?}");
        assert_eq!(cluster.describe(&web, now()).await.unwrap().left, Left::Counted(0));
    })
    .await;
}

#[tokio::test]
async fn a_stateful_set_counts_its_terminating_pods_itself() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        clinging(&namespace, "StatefulSet", "db").await;
        let (minimal, db) = (limited(&namespace, MINIMAL).await, target(&namespace, Kind::StatefulSet, "db"));
        to_the_end(rollout(&minimal, &db, Wanted::Replicas(1))).await;
        minimal.scale(&db, 0).await.unwrap();
        let terminating = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        namespace.wait("db-0", PATIENCE, terminating).await;
        let observed = |db: &StatefulSet| {
            db.status.as_ref().and_then(|status| status.observed_generation) == db.metadata.generation
        };
        namespace.wait("db", PATIENCE, observed).await;
        assert_eq!(minimal.left(&db).await, Some(Left::Counted(1)));
        let stop = rollout(&minimal, &db, Wanted::Gone);
        let_go(&namespace).await;
        let told = to_the_end(stop).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 0 }), "{told:?}");
        assert_eq!(minimal.left(&db).await, Some(Left::Counted(0)));
    })
    .await;
}

#[tokio::test]
async fn the_minimal_role_scales_and_polls_to_the_end() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "ready:1", 0).await;
        let (cluster, web) = (limited(&namespace, MINIMAL).await, web(&namespace));
        cluster.scale(&web, 2).await.unwrap();
        let told = to_the_end(rollout(&cluster, &web, Wanted::Replicas(2))).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 2 }), "{told:?}");
        cluster.scale(&web, 0).await.unwrap();
        let told = to_the_end(rollout(&cluster, &web, Wanted::Gone)).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 0 }), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_watch_can_be_allowed_by_name() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "slow:1", 1).await;
        let by_name = "
- {apiGroups: [apps], resources: [deployments], resourceNames: [web], verbs: [get, watch]}
- {apiGroups: [apps], resources: [deployments/scale], resourceNames: [web], verbs: [patch]}";
        // Polling would take an hour: what comes, comes by the watch.
        let pace = pilothouse::cluster::Pace { poll: std::time::Duration::from_hours(1), ..Default::default() };
        let (cluster, web) = (limited(&namespace, by_name).await.with_pace(pace), web(&namespace));
        let mut start = rollout(&cluster, &web, Wanted::Replicas(1));
        until(&mut start, |_| true).await;
        kubelet.decide("slow:1", Fate::Ready);
        let told = to_the_end(start).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 1 }), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_stateful_set_starts_and_stops() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.workload::<StatefulSet>("StatefulSet", "db", "ready:1", 0).await;
        let (cluster, db) = (admin(&namespace).await, target(&namespace, Kind::StatefulSet, "db"));
        cluster.scale(&db, 2).await.unwrap();
        let told = to_the_end(rollout(&cluster, &db, Wanted::Replicas(2))).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 2 }), "{told:?}");
        assert_eq!(cluster.workload(&db).await.unwrap().scaled_by.unwrap().manager, "pilothouse");
        cluster.scale(&db, 0).await.unwrap();
        let told = to_the_end(rollout(&cluster, &db, Wanted::Gone)).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 0 }), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn whoever_scales_meanwhile_overrules_and_is_named() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "slow:1", 0).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        cluster.scale(&web, 2).await.unwrap();
        let mut start = rollout(&cluster, &web, Wanted::Replicas(2));
        until(&mut start, |_| true).await;
        scale_as("kubectl", &namespace, "web", 5).await;
        let told = to_the_end(start).await;
        assert_eq!(told.last(), Some(&Progress::Overruled { desired: 5, by: Some("kubectl".into()) }), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_deletion_ends_the_watch() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "slow:1", 1).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        let mut start = rollout(&cluster, &web, Wanted::Replicas(1));
        until(&mut start, |_| true).await;
        namespace.api::<Deployment>().delete("web", &DeleteParams::default()).await.unwrap();
        let told = to_the_end(start).await;
        assert_eq!(told.last(), Some(&Progress::Deleted), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn after_the_deadline_one_last_look_is_taken() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "slow:1", 1).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        let late = || Box::pin(cluster.rollout(web.clone(), Wanted::Replicas(1), None, now()));
        assert_eq!(to_the_end(late()).await, [Progress::Expired { ready: 0, of: 1, troubles: vec![] }]);

        kubelet.decide("slow:1", Fate::ImagePull);
        let told = tokio::time::timeout(PATIENCE, async {
            loop {
                let told = to_the_end(late()).await;
                if !matches!(&told[..], [Progress::Expired { troubles, .. }] if troubles.is_empty()) {
                    return told;
                }
            }
        });
        let told = told.await.expect("the pod says it in time");
        let [Progress::Expired { ready: 0, of: 1, troubles }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(troubles[0].cause, Cause::ImagePull, "asked for in the one look that is left");

        kubelet.decide("slow:1", Fate::Ready);
        namespace
            .wait::<Deployment>("web", PATIENCE, |d| d.status.as_ref().unwrap().available_replicas == Some(1))
            .await;
        assert_eq!(to_the_end(late()).await, [Progress::Done { ready: 1 }]);
    })
    .await;
}

#[tokio::test]
async fn a_restart_is_done_when_every_pod_is_new() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "ready:1", 2).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        to_the_end(rollout(&cluster, &web, Wanted::Replicas(2))).await;
        let names = async || {
            let pods = namespace.api::<Pod>().list(&ListParams::default()).await.unwrap();
            pods.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>()
        };
        let before = names().await;
        assert_eq!(cluster.may_restart(&web).await, Ok(true));
        cluster.restart(&web, now()).await.unwrap();
        let told = to_the_end(rollout(&cluster, &web, Wanted::Restarted)).await;
        assert_eq!(told.last(), Some(&Progress::Done { ready: 2 }), "{told:?}");
        let after = names().await;
        assert!(before.iter().all(|name| !after.contains(name)), "{before:?} {after:?}");
    })
    .await;
}

#[tokio::test]
async fn a_paused_deployment_is_not_restarted() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "ready:1", 1).await;
        let patch = Patch::Merge(json!({"spec": {"paused": true}}));
        namespace.api::<Deployment>().patch("web", &PatchParams::default(), &patch).await.unwrap();
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        let refused = cluster.restart(&web, now()).await.unwrap_err();
        let ClusterError::Pointless(why) = &refused else { panic!("{refused:?}") };
        assert!(why.contains("is paused"), "{why}");
        let template = namespace.api::<Deployment>().get("web").await.unwrap().spec.unwrap().template;
        assert_eq!(template.metadata.unwrap().annotations, None);
    })
    .await;
}
