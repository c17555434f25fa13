//! Drift over a restart of the daemon: what fell before it is well again after it, and the same message says so.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;

use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::house::{House, Plan, SOON};
use crate::support::kubelet::{Fate, Kubelet};
use crate::support::person::RoomEvent;

/// A recovery is told when it has lasted a minute.
const STEADY: Duration = Duration::from_mins(2);

/// Lets the workload fall until it is told: before the first look has been taken, a fall is none.
async fn fall(namespace: &Namespace, kubelet: &Kubelet, house: &House) -> RoomEvent {
    loop {
        kubelet.decide("fine", Fate::Unready);
        let told = house.person.expect(SOON, |event| event.body().contains("fell over: 0/1"));
        if let Ok(told) = tokio::time::timeout(Duration::from_secs(5), told).await {
            return told;
        }
        kubelet.decide("fine", Fate::Ready);
        let available = |web: &Deployment| web.status.as_ref().and_then(|status| status.available_replicas) == Some(1);
        namespace.wait::<Deployment>("web", SOON, available).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fall_before_a_restart_is_edited_by_its_recovery_after_it() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask_until("start", "ready: 1/1").await;
        let told = fall(&namespace, &kubelet, &house).await;
        house.running.kill().await;
        kubelet.decide("fine", Fate::Ready);
        house.start_again().await;
        let back = |event: &RoomEvent| event.edits() == Some(&told.id) && event.body().contains("is back: 1 available");
        house.person.expect(STEADY, back).await;
        // Once: the next start owes nothing.
        assert_eq!(falls(&house).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_for_what_fell_ends_the_fall() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask_until("start", "ready: 1/1").await;
        fall(&namespace, &kubelet, &house).await;
        assert_eq!(falls(&house).await, 1);
        house.ask_until("stop", "is stopped").await;
        assert_eq!(falls(&house).await, 0);
    })
    .await;
}

async fn falls(house: &House) -> usize {
    let path = house.pilothouse.database();
    let store = pilothouse::store::Store::open(&path).expect("the store can be opened");
    store.falls().await.expect("the store answers").len()
}
