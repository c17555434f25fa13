//! What others do to a workload, as the room reads it: somebody at another keyboard, and what owns the replicas.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;

use crate::cluster::scale_as;
use crate::cluster::status::AUTOSCALER;
use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::person::RoomEvent;

/// How long a change is waited for, before it is made again: until it was seen ready, nothing that it does is news.
const A_LOOK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_is_told_in_the_room_where_it_is_wanted() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 1).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let quiet = Plan { more: "[drift]\nenabled = false\n".to_owned(), ..Plan::of(&["web"]) };
        let quiet = House::build(&namespace, quiet).await;
        // What nobody asked for goes to the room of the last command.
        house.ask("version").await;
        quiet.ask("version").await;
        let mut replicas = 1;
        let told = loop {
            let all =
                |web: &Deployment| web.status.as_ref().and_then(|status| status.available_replicas) == Some(replicas);
            namespace.wait("web", SOON, all).await;
            replicas += 1;
            scale_as("kubectl", &namespace, "web", replicas).await;
            let scaled = |event: &RoomEvent| event.body().contains("was scaled");
            if let Ok(told) = tokio::time::timeout(A_LOOK, house.person.expect(SOON, scaled)).await {
                break told;
            }
        };
        // Of what was done before it was told of it may be any.
        let words = |from: i32| format!("web was scaled {from} → {} by kubectl, not by me.", from + 1);
        assert!((1..replicas).any(|from| told.body().contains(&words(from))), "{}", told.body());
        let all = |web: &Deployment| web.status.as_ref().and_then(|status| status.available_replicas) == Some(replicas);
        namespace.wait("web", SOON, all).await;
        namespace.api::<Deployment>().delete("web", &DeleteParams::default()).await.expect("it is deleted");
        house.person.expect(SOON, |event| event.body().contains("web was deleted.")).await;

        quiet.ask("status").await;
        let notices = quiet.person.events(&quiet.room).into_iter().filter(RoomEvent::is_notice);
        let unasked: Vec<String> =
            notices.filter(|event| event.replies_to().is_none()).map(|event| event.body().to_owned()).collect();
        assert!(unasked.is_empty(), "{unasked:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_owns_the_replicas_is_named_before_and_after() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        namespace.apply(AUTOSCALER).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let owned = "Its replicas also belong to HorizontalPodAutoscaler more";
        let before = house.ask("start 2").await;
        assert!(before.body().contains(owned), "{}", before.body());
        let after = house.person.expect_text(&before, "ready: 2/2", SOON).await;
        assert!(after.body().contains(owned), "{}", after.body());
        let status = house.ask("status").await;
        assert!(status.body().contains(owned), "{}", status.body());
    })
    .await;
}
