//! Killed on the spot: at every state of the journal, and in the middle of what it says to its servers. Nothing is done
//! twice, nothing is lost, and the room reads once what happened.

use std::sync::Arc;

use http::{Method, StatusCode};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use pilothouse::store::orders::Done;
use serde_json::json;

use crate::support::bot::now;
use crate::support::control_plane::{ControlPlane, Namespace, with_namespace};
use crate::support::front::{Asked, Front, Way};
use crate::support::house::{House, Plan, SOON};
use crate::support::journal::Journal;
use crate::support::kubelet::Fate;
use crate::support::person::{RoomEvent, Sent};

/// What writes a Kubernetes Event.
const RECORD: &str = "POST /apis/events.k8s.io/";

/// A rule under which nobody moves anything.
const READ_ONLY: &str = "[[policy.rules]]\nverbs = [\"status\", \"version\"]\n";

/// Moves the replicas, as somebody else does.
async fn scale(namespace: &Namespace, name: &str, replicas: i32) {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    namespace.api::<Deployment>().patch(name, &PatchParams::default(), &patch).await.expect("it is scaled");
}

/// A daemon that knows its room: no message is in a journal before that.
async fn house(namespace: &Namespace, plan: Plan) -> House {
    let house = House::build(namespace, plan).await;
    house.ask("version").await;
    house
}

impl House {
    /// Kills the daemon and says something that is no command: a real event, so that an answer has something to hang on.
    async fn killed_before(&mut self, talk: &str) -> (Sent, Journal) {
        self.running.kill().await;
        (self.say(talk).await, Journal::of(self))
    }

    /// Starts the daemon again and waits until it answers `sent` with `text`, in its first words or in an edit of them.
    async fn goes_on(&mut self, sent: &Sent, text: &str) -> RoomEvent {
        self.start_again().await;
        let answer = self.person.expect_reply(sent, SOON).await;
        self.person.expect_text(&answer, text, SOON).await
    }

    /// What the room has read about `sent`, answers and edits of them, once everything before now was said.
    async fn told_of(&self, sent: &Sent) -> Vec<RoomEvent> {
        self.ask("version").await;
        let events = self.person.events(&self.room);
        let answers: Vec<RoomEvent> =
            events.iter().filter(|event| event.replies_to() == Some(&sent.id)).cloned().collect();
        let edits = events.into_iter().filter(|event| answers.iter().any(|answer| event.edits() == Some(&answer.id)));
        let edits: Vec<RoomEvent> = edits.collect();
        answers.into_iter().chain(edits).collect()
    }

    /// As [`House::goes_on`]; fails unless the room has read one answer to `sent`, and `end` once.
    async fn goes_on_once(&mut self, sent: &Sent, end: &str) {
        self.goes_on(sent, end).await;
        self.told_once(sent, end).await;
    }

    /// Fails unless the room has read one answer to `sent`, and `end` once.
    async fn told_once(&self, sent: &Sent, end: &str) {
        let told = self.told_of(sent).await;
        let answers = told.iter().filter(|event| event.edits().is_none()).count();
        let ends = told.iter().filter(|event| event.body().contains(end)).count();
        assert_eq!((answers, ends), (1, 1), "{told:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_certainly_still_wanted_is_done_once() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let mut house = house(&namespace, Plan::of(&["web"])).await;

        // Received, not looked at: it is done.
        let before = namespace.generation("web").await;
        let (anchor, journal) = house.killed_before("good morning").await;
        journal.receive(&anchor.id, "start 2").await;
        house.goes_on_once(&anchor, "ready: 2/2").await;
        assert_eq!(namespace.generation("web").await, before + 1);

        // Started, and the cluster as before: it is finished.
        let (anchor, journal) = house.killed_before("hello again").await;
        let id = journal.receive(&anchor.id, "stop").await;
        journal.start(&namespace, id, "web", 2, 0).await;
        house.goes_on_once(&anchor, "is stopped").await;
        assert_eq!((namespace.replicas("web").await, namespace.generation("web").await), (0, before + 2));

        // Started, and the cluster as after: it was done, and the room has yet to read so.
        let (anchor, journal) = house.killed_before("still there?").await;
        let id = journal.receive(&anchor.id, "start 3").await;
        journal.start(&namespace, id, "web", 0, 3).await;
        scale(&namespace, "web", 3).await;
        house.goes_on_once(&anchor, "ready: 3/3").await;
        assert_eq!((namespace.replicas("web").await, namespace.generation("web").await), (3, before + 3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_certain_is_told_and_not_done() {
    with_namespace(async |namespace| {
        for name in ["web", "db"] {
            namespace.deployment(name, "fine", 0).await;
        }
        let mut house = house(&namespace, Plan::of(&["web", "db"])).await;
        let toml =
            |house: &House, plan: Plan| plan.toml(&house.synapse, &house.bot, &house.person.user_id, &namespace.name);
        let before = namespace.generation("web").await;

        // Somebody else has moved the replicas since.
        let (anchor, journal) = house.killed_before("good morning").await;
        let id = journal.receive(&anchor.id, "start web 3").await;
        journal.start(&namespace, id, "web", 1, 3).await;
        house.goes_on(&anchor, "was interrupted during this start").await;

        // It is too long ago.
        let (anchor, journal) = house.killed_before("hello again").await;
        let id = journal.receive_of(&anchor.id, "start db 4", now() - SignedDuration::from_mins(6)).await;
        journal.start(&namespace, id, "db", 0, 4).await;
        house.goes_on(&anchor, "was interrupted during this start").await;

        // Something newer was begun for the target.
        let (anchor, journal) = house.killed_before("still there?").await;
        let older = journal.receive(&anchor.id, "start web 5").await;
        journal.start(&namespace, older, "web", 0, 5).await;
        let newer = journal.receive("$newer:test", "stop web").await;
        journal.start(&namespace, newer, "web", 5, 0).await;
        journal.store.finish(Done::silent(newer, "scaled 5 → 0"), now()).await.expect("written");
        house.goes_on(&anchor, "was interrupted during this start").await;

        // Something newer waits for the target.
        let (anchor, journal) = house.killed_before("are you well?").await;
        let older = journal.receive(&anchor.id, "start web 2").await;
        journal.start(&namespace, older, "web", 0, 2).await;
        journal.receive("$waits:test", "stop web").await;
        house.goes_on(&anchor, "was interrupted during this start").await;
        house.person.expect(SOON, |event| event.body().contains("web is already stopped")).await;

        // Whoever gave it may not give it any more.
        let (anchor, journal) = house.killed_before("who am I?").await;
        let id = journal.receive(&anchor.id, "start web 2").await;
        journal.start(&namespace, id, "web", 0, 2).await;
        house
            .pilothouse
            .write_configuration(&toml(&house, Plan { more: READ_ONLY.to_owned(), ..Plan::of(&["web", "db"]) }));
        house.goes_on(&anchor, "was interrupted during this start").await;
        house.pilothouse.write_configuration(&toml(&house, Plan::of(&["web", "db"])));

        // A restart cannot be told from its result.
        let (anchor, journal) = house.killed_before("and now?").await;
        let id = journal.receive(&anchor.id, "restart web").await;
        journal.begin(&namespace, id, "web", &json!("restart")).await;
        house.goes_on(&anchor, "was interrupted during this restart").await;

        // The target is not in the configuration any more.
        let (anchor, journal) = house.killed_before("one more").await;
        let id = journal.receive(&anchor.id, "start web 6").await;
        journal.start(&namespace, id, "web", 0, 6).await;
        house.pilothouse.write_configuration(&toml(&house, Plan::of(&["db"])));
        house.goes_on(&anchor, "was interrupted during this start").await;

        house.told_once(&anchor, "was interrupted").await;
        assert_eq!((namespace.replicas("web").await, namespace.generation("web").await), (0, before), "never touched");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_several_goes_on_target_by_target() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        for name in ["web", "db", "api"] {
            namespace.deployment(name, "fine", 0).await;
        }
        let mut house = house(&namespace, Plan::of(&["web", "db", "api"])).await;
        let (anchor, journal) = house.killed_before("good morning").await;
        let id = journal.receive(&anchor.id, "start all 2").await;
        let parts = [("web", "start web 2"), ("db", "start db 2"), ("api", "start api 2")];
        let rows = journal.split(id, &anchor.id, &parts).await;
        // The first is done in the cluster, the second is begun, the third was not looked at.
        journal.start(&namespace, rows[0], "web", 0, 2).await;
        scale(&namespace, "web", 2).await;
        journal.start(&namespace, rows[1], "db", 0, 2).await;
        drop(journal);
        house.start_again().await;
        for name in ["web", "db", "api"] {
            let ready = format!("{name} is ready: 2/2");
            house.person.expect(SOON, |event| event.body().contains(&ready)).await;
            assert_eq!(namespace.generation(name).await, 2, "{name} was moved once");
        }
        let told = house.told_of(&anchor).await;
        assert_eq!(told.iter().filter(|event| event.edits().is_none()).count(), 3, "{told:#?}");
        assert_eq!(told.iter().filter(|event| event.body().contains("is ready: 2/2")).count(), 3, "{told:#?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_comes_later_is_waited_for() {
    let cluster = Arc::new(ControlPlane::start().await);
    cluster
        .with_namespace(async |namespace| {
            let _kubelet = namespace.kubelet();
            namespace.deployment("web", "fine", 0).await;
            let mut house = house(&namespace, Plan::of(&["web"])).await;
            let (anchor, journal) = house.killed_before("good morning").await;
            let id = journal.receive(&anchor.id, "start 2").await;
            journal.start(&namespace, id, "web", 0, 2).await;
            drop(journal);
            cluster.stop_api_server();
            house.running = house.pilothouse.start();
            house.running.line("the workload of an interrupted order cannot be read", SOON).await;
            cluster.start_api_server().await;
            let answer = house.person.expect_reply(&anchor, SOON).await;
            house.person.expect_text(&answer, "ready: 2/2", SOON).await;

            // Who wants something else by now, or only asks, is not kept waiting.
            let (anchor, journal) = house.killed_before("hello again").await;
            let id = journal.receive(&anchor.id, "stop").await;
            journal.start(&namespace, id, "web", 2, 0).await;
            drop(journal);
            cluster.stop_api_server();
            house.running = house.pilothouse.start();
            house.running.line("the workload of an interrupted order cannot be read", SOON).await;
            let told = house.ask("status web").await;
            assert!(told.body().contains("cannot be reached"), "{}", told.body());
            let told = house.person.expect_reply(&anchor, SOON).await;
            assert!(told.body().contains("was interrupted during this stop"), "{}", told.body());
            cluster.start_api_server().await;
            assert_eq!(namespace.replicas("web").await, 2);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_asks_the_api_server_how_things_are_the_command_is_done_once() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        // Without a watch that shows the workload it is asked for before the order is written.
        let forbidden = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
            "reason": "Forbidden", "message": "deployments.apps is forbidden"});
        let decide = move |asked: &Asked| {
            let watches = asked.path.ends_with("/deployments");
            if watches { Way::Answer(StatusCode::FORBIDDEN, forbidden.clone()) } else { Way::On }
        };
        let front = Front::deciding_for_api_server(&namespace.cluster, decide).await;
        let kubeconfig = Some(namespace.kubeconfig_at(front.url()));
        let mut house = House::build(&namespace, Plan { kubeconfig, ..Plan::of(&["web"]) }).await;
        for (replicas, way) in [(1, Way::Nowhere), (2, Way::Lost)] {
            let before = namespace.generation("web").await;
            let written = front.asked("/scale").len();
            front.cut(Method::GET, "/deployments/web", way);
            let sent = house.say(&format!("start {replicas}")).await;
            front.until_cut(replicas).await;
            house.running.kill().await;
            assert_eq!(front.asked("/scale").len(), written, "nothing is ordered yet");
            house.goes_on_once(&sent, &format!("ready: {replicas}/{replicas}")).await;
            assert_eq!(namespace.generation("web").await, before + 1, "start {replicas}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_speaks_with_the_api_server_the_order_is_done_once() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let front = Front::before_api_server(&namespace.cluster).await;
        let kubeconfig = Some(namespace.kubeconfig_at(front.url()));
        let mut house = House::build(&namespace, Plan { kubeconfig, ..Plan::of(&["web"]) }).await;
        let cuts = [
            // The order is journaled; whether it came through, nobody knows.
            (Method::PATCH, "/deployments/web/scale", Way::Nowhere),
            (Method::PATCH, "/deployments/web/scale", Way::Lost),
            // It is done, and not on record yet; then on record, and nobody knows.
            (Method::POST, "/events", Way::Nowhere),
            (Method::POST, "/events", Way::Lost),
        ];
        for (replicas, (method, part, way)) in (1..).zip(cuts) {
            let before = namespace.generation("web").await;
            front.cut(method, part, way);
            kubelet.decide("fine", Fate::Slow);
            let sent = house.say(&format!("start {replicas}")).await;
            front.until_cut(replicas).await;
            house.running.kill().await;
            let records = front.asked(RECORD).len();
            kubelet.decide("fine", Fate::Ready);
            let end = format!("ready: {replicas}/{replicas}");
            house.goes_on_once(&sent, &end).await;
            assert_eq!(namespace.generation("web").await, before + 1, "start {replicas}");
            let note = format!(
                "Scaled from {} to {replicas} for {} in room {}",
                replicas - 1,
                house.person.user_id,
                house.room
            );
            namespace.event("ScaledByChat", &note, SOON).await;
            front.until_asked(RECORD, records).await;
            house.ask("version").await;
            let events = namespace.api::<Event>().list(&ListParams::default()).await.expect("a list");
            let written = events.iter().filter(|event| event.message.as_deref() == Some(&note)).count();
            assert_eq!(written, 1, "{note}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_speaks_with_the_homeserver_the_room_reads_it_once() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let synapse = crate::support::synapse::synapse().await;
        let front = Front::deciding(&synapse, |_| Way::On).await;
        let plan = Plan { homeserver: Some(front.url().to_owned()), ..Plan::of(&["web"]) };
        let mut house = House::build(&namespace, plan).await;
        let mut cuts = 0;

        // The answer: before it is in the room, and before the daemon knows that it is.
        for (replicas, way) in [(1, Way::Nowhere), (2, Way::Lost)] {
            let before = namespace.generation("web").await;
            front.cut(Method::PUT, "/send/m.room.encrypted/", way);
            let sent = house.say(&format!("start {replicas}")).await;
            cuts += 1;
            front.until_cut(cuts).await;
            house.running.kill().await;
            let end = format!("ready: {replicas}/{replicas}");
            house.goes_on_once(&sent, &end).await;
            assert_eq!(namespace.generation("web").await, before + 1);
        }

        // Its last words, done long before they are said.
        kubelet.decide("fine", Fate::Slow);
        for (replicas, way) in [(3, Way::Nowhere), (4, Way::Lost)] {
            let before = namespace.generation("web").await;
            let sent = house.say(&format!("start {replicas}")).await;
            house.person.expect_reply(&sent, SOON).await;
            namespace.wait_replicas("web", replicas, SOON).await;
            front.cut(Method::PUT, "/send/m.room.encrypted/", way);
            kubelet.decide("fine", Fate::Ready);
            cuts += 1;
            front.until_cut(cuts).await;
            house.running.kill().await;
            let end = format!("ready: {replicas}/{replicas}");
            house.goes_on_once(&sent, &end).await;
            assert_eq!(namespace.generation("web").await, before + 1);
            kubelet.decide("fine", Fate::Slow);
        }

        // The command itself: it came down a sync whose answer got lost, with the key that opens it.
        kubelet.decide("fine", Fate::Ready);
        let before = namespace.generation("web").await;
        house.person.rotate(&house.room).await;
        front.cut(Method::GET, "/sync", Way::Lost);
        let syncs = front.asked("/sync").len();
        // Ends the sync that is under way.
        house.say("good morning").await;
        front.until_asked("/sync", syncs).await;
        let sent = house.say("start 5").await;
        front.until_cut(cuts + 1).await;
        house.running.kill().await;
        house.goes_on_once(&sent, "ready: 5/5").await;
        assert_eq!(namespace.generation("web").await, before + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_joins_a_room_it_comes_and_answers_there() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let synapse = crate::support::synapse::synapse().await;
        let front = Front::deciding(&synapse, |_| Way::On).await;
        let plan = Plan { homeserver: Some(front.url().to_owned()), ..Plan::of(&["web"]) };
        let mut house = House::build(&namespace, plan).await;
        for (cuts, way) in (1..).zip([Way::Nowhere, Way::Lost]) {
            front.cut(Method::POST, "/join", way);
            let room = house.person.create_room(&[&house.bot.user_id]).await;
            front.until_cut(cuts).await;
            house.running.kill().await;
            house.start_again().await;
            house.person.member(&room, &house.bot.user_id, "join", SOON).await;
            let sent = house.person.send(&room, "version").await;
            house.person.expect_reply(&sent, SOON).await;
        }
    })
    .await;
}
