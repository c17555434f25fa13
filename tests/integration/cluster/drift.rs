use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::DeleteParams;
use pilothouse::cluster::{Cause, Cluster, Drift, Target, Wanted};
use pilothouse::config::Kind;
use tokio::sync::watch;

use super::{MINIMAL, PATIENCE, admin, limited, now, rollout, scale_as, target, to_the_end, web};
use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::kubelet::{Fate, Kubelet};

/// A stream of drift that is read in the background from its beginning, so that nothing is missed.
struct Told {
    drift: tokio::sync::mpsc::UnboundedReceiver<(Target, Drift, Timestamp)>,
    targets: watch::Sender<Vec<Target>>,
    _reading: tokio_util::task::AbortOnDropHandle<()>,
}

impl Told {
    fn by(cluster: &Cluster, targets: Vec<Target>) -> Self {
        let (targets, changes) = watch::channel(targets);
        let mut stream: Pin<Box<dyn Stream<Item = _> + Send>> = cluster.drift(changes, BTreeMap::new()).boxed();
        let (sender, drift) = tokio::sync::mpsc::unbounded_channel();
        let reading = tokio::spawn(async move {
            while let Some(told) = stream.next().await {
                let _ = sender.send(told);
            }
        });
        Self { drift, targets, _reading: tokio_util::task::AbortOnDropHandle::new(reading) }
    }

    async fn next(&mut self) -> (Target, Drift) {
        let told = tokio::time::timeout(PATIENCE, self.drift.recv()).await.expect("drift is told");
        let (target, drift, _) = told.expect("drift never ends");
        (target, drift)
    }
}

fn available(object: &Deployment) -> Option<i32> {
    object.status.as_ref().and_then(|status| status.available_replicas)
}

/// A ready Deployment `web`, and the drift that is told of it from then on. `fallen` is waited for by a first fall, so
/// that the lookout has surely seen it ready.
async fn lookout(namespace: &Namespace, cluster: &Cluster, kubelet: &Kubelet) -> Told {
    namespace.deployment("web", "image:1", 1).await;
    let web = web(namespace);
    to_the_end(rollout(cluster, &web, Wanted::Replicas(1))).await;
    let mut told = Told::by(cluster, vec![web.clone()]);
    // Until the first look has been taken, a fall is none: repeat it until it is told.
    loop {
        kubelet.decide("image:1", Fate::Unready);
        let fell = tokio::time::timeout(std::time::Duration::from_secs(2), told.drift.recv()).await;
        kubelet.decide("image:1", Fate::Ready);
        if let Ok(fell) = fell {
            assert!(matches!(fell, Some((_, Drift::Fell { available: 0, desired: 1, .. }, _))), "{fell:?}");
            break;
        }
        namespace.wait::<Deployment>("web", PATIENCE, |web| available(web) == Some(1)).await;
    }
    let (target, drift) = told.next().await;
    assert_eq!(target, web);
    assert!(matches!(drift, Drift::Recovered { available: 1, .. }), "{drift:?}");
    told
}

#[tokio::test]
async fn a_fall_is_told_with_its_cause_and_so_is_the_recovery() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        let cluster = admin(&namespace).await;
        let mut told = lookout(&namespace, &cluster, &kubelet).await;
        kubelet.decide("image:1", Fate::Crash);
        let (_, drift) = told.next().await;
        let Drift::Fell { available: 0, desired: 1, troubles } = drift else { panic!("{drift:?}") };
        assert_eq!(troubles.first().unwrap().cause, Cause::CrashLoop);
        kubelet.decide("image:1", Fate::Ready);
        let (_, drift) = told.next().await;
        let Drift::Recovered { available: 1, after } = drift else { panic!("{drift:?}") };
        assert!(after < SignedDuration::try_from(PATIENCE).unwrap(), "{after:?}");
    })
    .await;
}

#[tokio::test]
async fn a_stateful_set_that_falls_by_its_new_template_is_told() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        let (cluster, db) = (admin(&namespace).await, target(&namespace, Kind::StatefulSet, "db"));
        namespace.workload::<StatefulSet>("StatefulSet", "db", "image:1", 1).await;
        to_the_end(rollout(&cluster, &db, Wanted::Replicas(1))).await;
        let mut told = Told::by(&cluster, vec![db.clone()]);
        // What drift knows to be ready is what can fall.
        let known = async {
            while !cluster.seen(&db).is_some_and(|db| db.is_ready()) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.expect("drift sees it");

        namespace.workload::<StatefulSet>("StatefulSet", "db", "broken:1", 1).await;
        let (_, drift) = told.next().await;
        let Drift::Fell { available: 0, desired: 1, troubles } = drift else { panic!("{drift:?}") };
        assert_eq!(troubles.first().unwrap().cause, Cause::ImagePull);
        kubelet.decide("broken:1", Fate::Ready);
        let (_, drift) = told.next().await;
        assert!(matches!(drift, Drift::Recovered { available: 1, .. }), "{drift:?}");
    })
    .await;
}

#[tokio::test]
async fn own_scaling_is_not_told_and_that_of_others_is() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        let cluster = admin(&namespace).await;
        let mut told = lookout(&namespace, &cluster, &kubelet).await;
        let web = web(&namespace);
        for (replicas, wanted) in [(2, Wanted::Replicas(2)), (0, Wanted::Gone), (1, Wanted::Replicas(1))] {
            cluster.scale(&web, replicas).await.unwrap();
            to_the_end(rollout(&cluster, &web, wanted)).await;
        }
        // The lookout sees the same states, but a moment later: what follows must be its next word in any case.
        scale_as("kubectl", &namespace, "web", 3).await;
        let (_, drift) = told.next().await;
        // The writer is not known: after a scale to 0 the API server tracks none.
        assert!(matches!(drift, Drift::Scaled { to: 3, by: None, .. }), "{drift:?}");
        to_the_end(rollout(&cluster, &web, Wanted::Replicas(3))).await;
        namespace.api::<Deployment>().delete("web", &DeleteParams::default()).await.unwrap();
        let drift = told.next().await;
        assert_eq!(drift, (web, Drift::Deleted));
    })
    .await;
}

#[tokio::test]
async fn a_stop_by_somebody_else_is_told() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        let cluster = admin(&namespace).await;
        let mut told = lookout(&namespace, &cluster, &kubelet).await;
        scale_as("kubectl", &namespace, "web", 0).await;
        let (_, drift) = told.next().await;
        assert_eq!(drift, Drift::Scaled { from: 1, to: 0, by: None });
    })
    .await;
}

#[tokio::test]
async fn what_an_autoscaler_does_is_its_work() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        let cluster = admin(&namespace).await;
        let mut told = lookout(&namespace, &cluster, &kubelet).await;
        let web = web(&namespace);
        namespace.apply(super::status::AUTOSCALER).await;
        // Named by the object, and then, after a stop and a start, not.
        scale_as("kube-controller-manager", &namespace, "web", 2).await;
        to_the_end(rollout(&cluster, &web, Wanted::Replicas(2))).await;
        for replicas in [0, 1] {
            cluster.scale(&web, replicas).await.unwrap();
            to_the_end(rollout(&cluster, &web, Wanted::Replicas(replicas))).await;
        }
        scale_as("kube-controller-manager", &namespace, "web", 3).await;
        to_the_end(rollout(&cluster, &web, Wanted::Replicas(3))).await;
        namespace.api::<Deployment>().delete("web", &DeleteParams::default()).await.unwrap();
        assert_eq!(told.next().await, (web, Drift::Deleted));
    })
    .await;
}

#[tokio::test]
async fn in_quiet_nothing_is_told() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        let cluster = admin(&namespace).await;
        let mut told = lookout(&namespace, &cluster, &kubelet).await;
        let web = web(&namespace);
        cluster.quiet(&web, now() + SignedDuration::from_mins(5));
        kubelet.decide("image:1", Fate::Unready);
        namespace.wait::<Deployment>("web", PATIENCE, |web| available(web).is_none()).await;
        kubelet.decide("image:1", Fate::Ready);
        namespace.wait::<Deployment>("web", PATIENCE, |web| available(web) == Some(1)).await;
        namespace.api::<Deployment>().delete("web", &DeleteParams::default()).await.unwrap();
        assert_eq!(told.next().await, (web, Drift::Deleted), "a deletion is told even then");
    })
    .await;
}

#[tokio::test]
async fn the_minimal_role_sees_drift_by_reading_again() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        let cluster = limited(&namespace, MINIMAL).await;
        let mut told = lookout(&namespace, &cluster, &kubelet).await;
        scale_as("kubectl", &namespace, "web", 3).await;
        let (_, drift) = told.next().await;
        assert_eq!(drift, Drift::Scaled { from: 1, to: 3, by: Some("kubectl".into()) });
    })
    .await;
}

#[tokio::test]
async fn targets_come_and_go() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        let cluster = admin(&namespace).await;
        let mut told = lookout(&namespace, &cluster, &kubelet).await;
        namespace.deployment("shop", "ready:1", 0).await;
        let shop = target(&namespace, Kind::Deployment, "shop");
        told.targets.send(vec![shop.clone()]).unwrap();
        // The lookout has forgotten `web` when it tells anything of `shop`.
        let mut replicas = 0;
        let (target, _) = loop {
            replicas += 1;
            scale_as("kubectl", &namespace, "shop", replicas).await;
            to_the_end(rollout(&cluster, &shop, Wanted::Replicas(replicas))).await;
            if let Ok(Some((target, drift, _))) =
                tokio::time::timeout(std::time::Duration::from_secs(1), told.drift.recv()).await
            {
                break (target, drift);
            }
        };
        assert_eq!(target, shop);
        kubelet.decide("image:1", Fate::Unready);
        namespace.wait::<Deployment>("web", PATIENCE, |web| available(web).is_none()).await;
        namespace.api::<Deployment>().delete("shop", &DeleteParams::default()).await.unwrap();
        loop {
            let (target, drift) = told.next().await;
            assert_eq!(target, shop);
            if drift == Drift::Deleted {
                break;
            }
        }
    })
    .await;
}
