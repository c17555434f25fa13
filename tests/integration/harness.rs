//! The harness holds what it promises: real parts that answer, and people who can talk.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::control_plane::with_namespace;
use crate::support::kubelet::Fate;
use crate::support::person::Person;
use crate::support::synapse::synapse;

const DEADLINE: Duration = Duration::from_secs(30);

fn available(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

#[tokio::test]
async fn a_scaled_deployment_becomes_available_and_goes_away() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "web:1", 0).await;
        let deployments = namespace.api::<Deployment>();
        for replicas in [2, 0] {
            let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
            deployments.patch_scale("web", &PatchParams::default(), &scale).await.expect("it scales");
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
async fn a_broken_image_keeps_a_deployment_down_until_the_test_decides() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "broken:1", 1).await;
        let unavailable = |web: &Deployment| web.status.as_ref().is_some_and(|s| s.unavailable_replicas == Some(1));
        namespace.wait("web", DEADLINE, unavailable).await;
        kubelet.decide("broken:1", Fate::Ready);
        namespace.wait("web", DEADLINE, |web| available(web) == 1).await;
    })
    .await;
}

#[tokio::test]
async fn two_people_talk_encrypted() {
    let synapse = synapse().await;
    let (alice, bob) = (synapse.register("alice").await, synapse.register("bob").await);
    let (alice, bob) = tokio::join!(Person::with_identity(&synapse, &alice), Person::with_identity(&synapse, &bob));
    let room = alice.create_room(&[&bob.user_id]).await;
    bob.join(&room).await;
    alice.member(&room, &bob.user_id, "join", DEADLINE).await;

    let sent = alice.send(&room, "start web").await;
    let read = bob.expect(DEADLINE, |event| event.id == sent.id).await;
    assert!(read.encrypted);
    assert_eq!(read.body(), "start web");
    assert_eq!(sent.kind, "m.room.encrypted");
}
