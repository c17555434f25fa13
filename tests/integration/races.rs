//! Somebody else scales at the same moment: what is done and told rests on what the workload was when it was written.

use http::{Method, StatusCode};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use serde_json::json;

use crate::cluster::scale_as;
use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::front::{Front, Way};
use crate::support::house::{House, Plan, SOON};
use crate::support::kubelet::Fate;
use crate::support::person::{RoomEvent, Sent};

/// What a command asks the API server for, and where it is held.
const SCALE: &str = "/deployments/web/scale";

/// Nobody here waits for the limit of an answer.
const PATIENT: &str = "[kubernetes]\ntimeout = \"2m\"\n";

/// A daemon whose way to the API server can be held.
struct Scene {
    front: Front,
    house: House,
}

impl Scene {
    async fn build(namespace: &Namespace, image: &str, replicas: i32) -> Self {
        namespace.deployment("web", image, replicas).await;
        if replicas > 0 {
            namespace.wait_ready("web", replicas, SOON).await;
        }
        let front = Front::before_api_server(&namespace.cluster).await;
        let kubeconfig = Some(namespace.kubeconfig_at(front.url()));
        let house = House::build(namespace, Plan { kubeconfig, more: PATIENT.to_owned(), ..Plan::of(&["web"]) }).await;
        Self { front, house }
    }

    /// With a rollout that is not over, and a `stop` after it that the API server has refused; gives the rollout's words.
    async fn refusing(namespace: &Namespace) -> (Self, RoomEvent) {
        let scene = Self::build(namespace, "slow", 0).await;
        let house = &scene.house;
        let sent = house.say("start 2").await;
        let first = house.person.expect_reply(&sent, SOON).await;
        namespace.wait_replicas("web", 2, SOON).await;
        let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden",
            "message": "admission webhook denied the request"});
        scene.front.cut(Method::PATCH, SCALE, Way::Answer(StatusCode::FORBIDDEN, refusal));
        house.ask_until("stop", "Nothing was changed").await;
        (scene, first)
    }

    /// Says something, and holds its order on the way: the n-th that is held.
    async fn held(&self, n: usize, text: &str) -> Sent {
        self.front.cut(Method::PATCH, SCALE, Way::Held);
        let sent = self.house.say(text).await;
        self.front.until_cut(n).await;
        sent
    }

    /// The words that a command has in the end.
    async fn ends(&self, sent: &Sent, end: &str) -> RoomEvent {
        let answer = self.house.person.expect_reply(sent, SOON).await;
        self.house.person.expect_text(&answer, end, SOON).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_judged_anew_where_somebody_else_was_first() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        let scene = Scene::build(&namespace, "fine", 0).await;
        let before = namespace.generation("web").await;
        let sent = scene.held(1, "start 3").await;
        // It takes its time, so the room reads what it is meant to come to.
        let answer = scene.house.person.expect_reply(&sent, SOON).await;
        assert!(answer.body().contains("starting, 0 → 3"), "{}", answer.body());
        scale_as("kubectl", &namespace, "web", 1).await;
        scene.front.let_go();
        scene.ends(&sent, "3/3").await;
        assert_eq!(namespace.generation("web").await, before + 2, "somebody else's change and this one");
        let history = scene.house.ask("history").await;
        assert!(history.body().contains("scaled 1 → 3"), "{}", history.body());

        // `start` would give the replicas back, but somebody else has done that.
        scene.house.ask_until("stop", "is stopped").await;
        let sent = scene.held(2, "start").await;
        scale_as("kubectl", &namespace, "web", 2).await;
        scene.front.let_go();
        let told = scene.ends(&sent, "already").await;
        let said = |words| told.body().contains(words);
        assert!(said("2 replicas already") || said("runs already, 2/2 ready"), "{}", told.body());
        assert_eq!(namespace.replicas("web").await, 2, "what runs is left alone");
        let history = scene.house.ask("history").await;
        assert!(history.body().contains("nothing to change"), "{}", history.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_for_what_is_gone_meanwhile_says_that_nothing_was_done() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        let scene = Scene::build(&namespace, "fine", 1).await;
        let sent = scene.held(1, "stop").await;
        namespace.api::<Deployment>().delete("web", &DeleteParams::default()).await.unwrap();
        scene.front.let_go();
        let told = scene.ends(&sent, "does not exist").await;
        assert!(told.body().contains("Nothing was changed"), "{}", told.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_asks_nothing_that_is_known_already() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        let scene = Scene::build(&namespace, "fine", 1).await;
        let asked = || scene.front.asked_for("/deployments/web");
        let mut unasked = 0;
        for (text, end) in
            [("stop", "is stopped"), ("start", "is ready"), ("stop", "is stopped"), ("start 2", "is ready")]
        {
            let before = asked().len();
            scene.house.ask_until(text, end).await;
            let asked = &asked()[before..];
            let orders = asked.iter().filter(|asked| asked.starts_with("PATCH")).count();
            unasked += usize::from(asked[0].starts_with("PATCH") && orders == 1);
        }
        // The watch of drift is opened anew every half minute, and something may change just then.
        assert!(unasked >= 1, "{:#?}", asked());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_twice_is_done_once_and_told_to_its_end() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "slow", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let before = namespace.generation("web").await;
        let sent = house.person.send_burst(&house.room, &["start 2".to_owned(), "start  2".to_owned()]).await;
        let first = house.person.expect_reply(&sent[0], SOON).await;
        let second = house.person.expect_reply(&sent[1], SOON).await;
        house.person.expect_text(&second, "2 replicas already", SOON).await;
        kubelet.decide("slow", Fate::Ready);
        house.person.expect_text(&first, "ready: 2/2", SOON).await;
        assert_eq!(namespace.generation("web").await, before + 1);
        // What was done here is not told as somebody else's doing: that would have come before this.
        house.ask("version").await;
        let told = house.person.events(&house.room);
        let strange: Vec<_> =
            told.iter().filter(|event| event.body().contains("scaled")).map(RoomEvent::body).collect();
        assert!(strange.is_empty(), "{strange:#?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_followed_where_the_order_after_it_was_refused() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        let (scene, first) = Scene::refusing(&namespace).await;
        kubelet.decide("slow", Fate::Ready);
        scene.house.person.expect_text(&first, "ready: 2/2", SOON).await;
        let history = scene.house.ask("history").await;
        assert!(history.body().contains("scaled 0 → 2, done in"), "{}", history.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_told_who_took_over_although_an_order_before_was_refused() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        let (scene, first) = Scene::refusing(&namespace).await;
        // The refused order had ended it too, and those words may be in the room.
        scene.house.person.expect_text(&first, "0/2", SOON).await;
        scene.house.ask_until("start 3", "2 → 3").await;
        scene.house.person.expect_text(&first, "said start", SOON).await;
    })
    .await;
}
