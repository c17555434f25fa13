//! The main job, whole: an encrypted command, the API server, the pods, and the words in the room.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::kubelet::Fate;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_starts_a_workload_once_and_the_room_reads_how_it_went() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "slow", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let before = namespace.generation("web").await;

        let sent = house.say("start 2").await;
        let answer = house.person.expect_reply(&sent, SOON).await;
        assert!(answer.body().contains("web: starting, 0 → 2"), "{}", answer.body());
        namespace.wait_replicas("web", 2, SOON).await;
        // One message: what was said first becomes how it ended.
        kubelet.decide("slow", Fate::Ready);
        let ready = house.person.expect_text(&answer, "ready: 2/2", SOON).await;
        assert_eq!(ready.edits(), Some(answer.id.as_str()));
        assert!(ready.encrypted && ready.sender == house.bot.user_id);
        assert_eq!((namespace.replicas("web").await, namespace.generation("web").await), (2, before + 1));

        house.ask_until("stop", "is stopped").await;
        assert_eq!((namespace.replicas("web").await, namespace.generation("web").await), (0, before + 2));
        // What the stop took away comes back without a number.
        house.ask_until("start", "ready: 2/2").await;
        let status = house.ask("status").await;
        assert!(status.body().contains("ready, 2/2 ready"), "{}", status.body());
        let again = house.ask("start web").await;
        assert!(again.body().contains("runs already"), "{}", again.body());
        assert_eq!(namespace.generation("web").await, before + 3, "each command once, and one of them changed nothing");
        let history = house.ask("history").await;
        assert!(history.body().contains("scaled 0 → 2, done in"), "{}", history.body());

        // And whoever looks at the object reads who did that, and from where.
        let object = namespace.api::<Deployment>().get("web").await.expect("the Deployment is there");
        let note = format!("Scaled from 2 to 0 for {} in room {}", house.person.user_id, house.room);
        let event = namespace.event("ScaledByChat", &note, SOON).await;
        assert_eq!(event.involved_object.uid, object.uid());
        assert_eq!(
            event.source.and_then(|source| source.component).or(event.reporting_component).as_deref(),
            Some("pilothouse")
        );
    })
    .await;
}
