use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use pilothouse::cluster::{Cause, ClusterError, Record};
use pilothouse::config::{self, Kind};

use super::{MINIMAL, PATIENCE, admin, connect, limited, now, scale_as, settings, target, web};
use crate::support::control_plane::with_namespace;

pub(crate) const AUTOSCALER: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: more}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 3
";

fn record(reason: &'static str, note: &str) -> Record {
    Record { id: "c0ffee".to_owned(), reason, note: note.to_owned(), at: now() }
}

#[tokio::test]
async fn status_tells_what_may_be_seen() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "broken:1", 1).await;
        namespace.apply(AUTOSCALER).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        cluster.record(&web, &record("StartedByChat", "@alice:example.org asked for 1 replica")).await.unwrap();

        let described = tokio::time::timeout(PATIENCE, async {
            loop {
                let described = cluster.describe(&web, now()).await.unwrap();
                let is_told = |reason: &str| described.events.iter().flatten().any(|event| event.reason == reason);
                let is_scaled = is_told("ScalingReplicaSet") && is_told("StartedByChat");
                if is_scaled && described.troubles.as_ref().is_some_and(|troubles| !troubles.is_empty()) {
                    return described;
                }
            }
        });
        let described = described.await.expect("the image that cannot be pulled is told");
        assert_eq!(described.workload.desired, 1);
        assert_eq!(described.troubles.unwrap().first().unwrap().cause, Cause::ImagePull);
        assert_eq!(described.owners, ["HorizontalPodAutoscaler more"]);
        assert_eq!(cluster.owners(&web).await, ["HorizontalPodAutoscaler more"]);
        assert_eq!(described.unseen, [""; 0]);
        let events = described.events.unwrap();
        let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
        assert!(reasons.contains(&"StartedByChat") && reasons.contains(&"ScalingReplicaSet"), "{events:?}");
        assert!(events.iter().all(|event| event.at.is_some()), "{events:?}");
    })
    .await;
}

#[tokio::test]
async fn of_a_stateful_set_its_pods_tell_since_when() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        // The kubelet of the tests rounds to seconds.
        let second = jiff::SignedDuration::from_secs(1);
        let before = now() - second;
        namespace.workload::<StatefulSet>("StatefulSet", "db", "ready:1", 2).await;
        let ready = |db: &StatefulSet| db.status.as_ref().and_then(|status| status.ready_replicas) == Some(2);
        namespace.wait("db", PATIENCE, ready).await;
        let (cluster, db) = (admin(&namespace).await, target(&namespace, Kind::StatefulSet, "db"));
        let since = cluster.describe(&db, now()).await.unwrap().workload.since.expect("its pods tell it");
        assert!(since >= before && since <= now() + second, "{since}");
        let blind = limited(&namespace, MINIMAL).await;
        assert_eq!(blind.describe(&db, now()).await.unwrap().workload.since, None, "pods may not be read");
    })
    .await;
}

#[tokio::test]
async fn a_rollout_beside_pods_that_serve_does_not_last_as_long_as_these() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "ready:1", 1).await;
        namespace.wait_ready("web", 1, PATIENCE).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        let described = cluster.describe(&web, now()).await.unwrap();
        assert!(described.workload.since.is_some(), "{described:?}");
        namespace.deployment("web", "broken:1", 1).await;
        let described = tokio::time::timeout(PATIENCE, async {
            loop {
                let described = cluster.describe(&web, now()).await.unwrap();
                if described.troubles.as_ref().is_some_and(|troubles| !troubles.is_empty()) {
                    return described;
                }
            }
        });
        let described = described.await.expect("the image that cannot be pulled is told");
        assert_eq!((described.workload.ready, described.workload.since), (1, None), "{described:?}");
    })
    .await;
}

#[tokio::test]
async fn status_says_what_the_minimal_role_does_not_see() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "broken:1", 1).await;
        let (cluster, web) = (limited(&namespace, MINIMAL).await, web(&namespace));
        let described = cluster.describe(&web, now()).await.unwrap();
        assert_eq!((described.troubles, described.events), (None, None));
        let name = &namespace.name;
        for missing in ["list pods", "list events.events.k8s.io", "list horizontalpodautoscalers.autoscaling"] {
            let words = format!("the ServiceAccount may not {missing} in {name}");
            assert!(
                described.unseen.iter().any(|unseen| unseen.ends_with(&words)),
                "{missing}: {:?}",
                described.unseen
            );
        }
        assert_eq!(cluster.owners(&web).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn events_are_read_in_either_group() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "ready:1", 1).await;
        let rules = format!("{MINIMAL}\n- {{apiGroups: [\"\"], resources: [events], verbs: [list]}}");
        let (cluster, web) = (limited(&namespace, &rules).await, web(&namespace));
        admin(&namespace).await.record(&web, &record("StoppedByChat", "by hand")).await.unwrap();
        let events = cluster.describe(&web, now()).await.unwrap().events.unwrap();
        assert!(events.iter().any(|event| event.reason == "StoppedByChat" && event.note == "by hand"), "{events:?}");
    })
    .await;
}

#[tokio::test]
async fn an_event_is_bounded_written_once_and_only_where_it_is_wanted() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "ready:1", 1).await;
        let web = web(&namespace);
        let cluster = admin(&namespace).await;
        for _ in 0..2 {
            cluster.record(&web, &record("StartedByChat", &"ä".repeat(2000))).await.unwrap();
        }
        let silent = config::Kubernetes { events: false, ..settings() };
        let silent = connect(&namespace.cluster.kubeconfig(), &silent).await;
        silent.record(&web, &record("NeverWritten", "no")).await.unwrap();
        let events = namespace.api::<Event>().list(&ListParams::default()).await.unwrap();
        let written: Vec<_> =
            events.iter().filter(|e| e.reporting_component.as_deref() == Some("pilothouse")).collect();
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].message.as_ref().unwrap().len(), 1024);
        assert_eq!(written[0].involved_object.name.as_deref(), Some("web"));
        assert!(written[0].involved_object.uid.is_some());
    })
    .await;
}

#[tokio::test]
async fn the_last_who_scaled_is_named() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "ready:1", 1).await;
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        cluster.scale(&web, 2).await.unwrap();
        scale_as("kubectl", &namespace, "web", 3).await;
        let writer = cluster.workload(&web).await.unwrap().scaled_by.unwrap();
        assert_eq!(writer.manager, "kubectl");
        scale_as("kubectl", &namespace, "web", 0).await;
        assert_eq!(cluster.workload(&web).await.unwrap().scaled_by, None, "nobody is tracked from here on");
    })
    .await;
}

#[tokio::test]
async fn what_does_not_exist_is_said() {
    with_namespace(async |namespace| {
        let (cluster, web) = (admin(&namespace).await, web(&namespace));
        let missing = ClusterError::NotFound(format!("Deployment web in namespace {}", namespace.name));
        assert_eq!(cluster.workload(&web).await, Err(missing.clone()));
        assert_eq!(cluster.scale(&web, 1).await, Err(missing.clone()));
        assert_eq!(cluster.describe(&web, now()).await, Err(missing));
    })
    .await;
}
