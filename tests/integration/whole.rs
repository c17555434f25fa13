//! The main job, whole: an encrypted command, the API server, the pods, and the words in the room.

use k8s_openapi::api::apps::v1::Deployment;

use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::house::{House, Plan, SOON};

async fn replicas(namespace: &Namespace, name: &str) -> i32 {
    let object = namespace.api::<Deployment>().get(name).await.expect("the Deployment is there");
    object.spec.and_then(|spec| spec.replicas).unwrap_or(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_starts_a_workload_once_and_the_room_reads_how_it_went() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;

        let sent = house.say("start 2").await;
        let answer = house.person.expect_reply(&sent, SOON).await;
        assert!(answer.body().contains("web"), "{}", answer.body());
        let ready = house.person.expect_text(&answer, "ready: 2/2", SOON).await;
        assert!(ready.encrypted && ready.sender == house.bot.user_id);
        assert_eq!(replicas(&namespace, "web").await, 2);

        house.ask_until("stop", "is stopped").await;
        assert_eq!(replicas(&namespace, "web").await, 0);
        // What the stop took away comes back without a number.
        house.ask_until("start", "ready: 2/2").await;
        let status = house.ask("status").await;
        assert!(status.body().contains("ready, 2/2 ready"), "{}", status.body());
        let again = house.ask("start web").await;
        assert!(again.body().contains("runs already"), "{}", again.body());
        let history = house.ask("history").await;
        assert!(history.body().contains("scaled 0 → 2, done in"), "{}", history.body());
    })
    .await;
}
