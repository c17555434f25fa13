//! What goes wrong, on real parts: servers away, bursts, rules, signals. Nothing is done twice, nothing is lost silently,
//! and the room reads what happened. What a kill leaves behind is in `kills.rs`.

use std::time::Duration;

use http::Method;
use jiff::SignedDuration;
use pilothouse::message::{Standing, Why};
use serde_json::json;

use crate::support::bot::now;
use crate::support::control_plane::{ControlPlane, with_namespace};
use crate::support::front::{Front, Way};
use crate::support::house::{House, Plan, SOON};
use crate::support::journal::Journal;
use crate::support::kubelet::Fate;
use crate::support::manifests::Manifests;
use crate::support::person::{Person, Seen};
use crate::support::synapse::Synapse;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_200_commands_while_it_is_away_is_answered_once_each() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask("version").await;
        house.running.kill().await;
        let before = namespace.generation("web").await;
        // Every tenth changes something, and what comes next for the target undoes it.
        let text = |n: usize| match (n % 20, n % 2) {
            (3, _) => "start 2",
            (13, _) => "stop",
            (_, 0) => "version",
            _ => "help stop",
        };
        let texts: Vec<String> = (0..200).map(|n| text(n).to_owned()).collect();
        let sent = house.person.send_burst(&house.room, &texts).await;
        house.start_again().await;
        for sent in &sent {
            house.person.expect_reply(sent, Duration::from_mins(4)).await;
        }
        let answers = house.person.events(&house.room);
        for sent in &sent {
            let count =
                answers.iter().filter(|event| event.is_notice() && event.replies_to() == Some(&sent.id)).count();
            assert_eq!(count, 1, "{} was answered {count} times", sent.id);
        }
        assert_eq!(namespace.generation("web").await, before + 20, "ten starts and ten stops, each done once");
        assert_eq!(namespace.replicas("web").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_key_comes_late_does_not_undo_what_was_said_last() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let late = house.person.send_without_key(&house.room, "start").await;
        house.person.rotate(&house.room).await;
        let told = house.ask("stop").await;
        assert!(told.body().contains("already stopped"), "{}", told.body());
        house.person.deliver_key(&late).await;
        let told = house.person.expect_reply(&late, SOON).await;
        assert!(told.body().contains("newer command"), "{}", told.body());
        assert_eq!((namespace.replicas("web").await, namespace.generation("web").await), (0, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_told_in_one_line_and_not_done() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.running.kill().await;
        let journal = Journal::of(&house);
        let old = now() - SignedDuration::from_mins(6);
        for (n, text) in ["start 2", "status", "good morning", "strat web"].into_iter().enumerate() {
            journal.receive_of(&format!("$stale{n}:test"), text, old).await;
        }
        // Why a command does not count is told, however old it is.
        let unproven = Standing::Unproven(Why::Replayed);
        journal.receive_with(unproven, "$replayed:test", "start 3", old).await;
        drop(journal);
        house.start_again().await;
        let told = house.person.expect(SOON, |event| event.body().contains("Too old to act on")).await;
        assert!(told.body().contains("start 2, status, strat web. Nothing was done"), "{}", told.body());
        house.person.expect(SOON, |event| event.body().contains("was sent before")).await;
        assert_eq!(namespace.replicas("web").await, 0);
        let history = house.ask("history").await;
        assert!(history.body().contains("start 3 → refused: "), "{}", history.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_a_rollout_exits_in_time_and_the_next_start_goes_on_with_it() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "slow", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        let answer = house.ask_until("start 2", "0 → 2").await;
        namespace.wait_replicas("web", 2, SOON).await;
        let status = house.running.stop(Duration::from_secs(15)).await;
        assert!(status.success(), "{status}");
        kubelet.decide("slow", Fate::Ready);
        house.start_again().await;
        let answer = answer.edits().unwrap_or(&answer.id).to_owned();
        let ready = |event: &crate::support::person::RoomEvent| {
            event.edits() == Some(&answer) && event.body().contains("ready: 2/2")
        };
        house.person.expect(SOON, ready).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_get_better_is_told_and_a_newer_command_takes_over() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "broken", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let answer = house.ask_until("start", "The image cannot be pulled").await;
        let first = answer.edits().unwrap_or(&answer.id).to_owned();
        house.ask_until("stop", "is stopped").await;
        let taken = |event: &crate::support::person::RoomEvent| {
            event.edits() == Some(&first) && event.body().contains("said stop")
        };
        house.person.expect(SOON, taken).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_last_for_a_target_holds_also_after_a_command_for_all() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        for name in ["web", "db"] {
            namespace.deployment(name, "fine", 1).await;
        }
        let mut house = House::build(&namespace, Plan::of(&["web", "db"])).await;
        // Both are there at once when it looks: one batch, one scan.
        house.running.kill().await;
        let all = house.say("stop all").await;
        let web = house.say("start web 2").await;
        house.start_again().await;
        let answer = house.person.expect_reply(&web, SOON).await;
        house.person.expect_text(&answer, "ready: 2/2", SOON).await;
        house.person.expect_reply(&all, SOON).await;
        assert_eq!((namespace.replicas("web").await, namespace.replicas("db").await), (2, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_targets_are_done_each_and_the_rules_say_who_may() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        for name in ["web", "db"] {
            namespace.deployment(name, "fine", 0).await;
        }
        let synapse = crate::support::synapse::synapse().await;
        let (bob, eve) = (synapse.register("bob").await, synapse.register("eve").await);
        let bob_person = Person::with_identity(&synapse, &bob).await;
        let eve_person = Person::with_identity(&synapse, &eve).await;
        let rules = format!(
            "[[policy.rules]]\nusers = [{:?}]\nverbs = [\"help\", \"status\", \"start\"]\ntargets = [\"web\"]\n",
            bob.user_id
        );
        let mut plan = Plan { users: vec![bob.user_id.clone()], ..Plan::of(&["web", "db"]) };
        plan.more = rules;
        let house = House::build(&namespace, plan).await;
        // With rules, only what one of them allows: the person of the house has none.
        let refused = house.ask("start all").await;
        assert!(refused.body().contains("do not let you use start"), "{}", refused.body());

        house.person.invite(&house.room, &bob.user_id).await;
        bob_person.join(&house.room).await;
        let sent = bob_person.send(&house.room, "!ph start all").await;
        let answer = bob_person.expect_reply(&sent, SOON).await;
        bob_person.expect_text(&answer, "ready: 1/1", SOON).await;
        assert_eq!((namespace.replicas("web").await, namespace.replicas("db").await), (1, 0));
        let sent = bob_person.send(&house.room, "!ph start db").await;
        let refused = bob_person.expect_reply(&sent, SOON).await;
        assert!(refused.body().contains("do not let you start db"), "{}", refused.body());
        // In a room of many, bare words that change something are talk; reading is a command.
        bob_person.send(&house.room, "start web").await;
        let sent = bob_person.send(&house.room, "status web").await;
        bob_person.expect_reply(&sent, SOON).await;

        // A stranger meets silence: the next answer is somebody else's.
        house.person.invite(&house.room, &eve.user_id).await;
        eve_person.join(&house.room).await;
        let silent = eve_person.send(&house.room, "!ph status").await;
        let sent = bob_person.send(&house.room, "!ph status web").await;
        bob_person.expect_reply(&sent, SOON).await;
        let answered = bob_person.events(&house.room).iter().any(|event| event.replies_to() == Some(&silent.id));
        assert!(!answered);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_away_slow_and_unwilling_is_told_as_what_it_is() {
    let cluster = std::sync::Arc::new(ControlPlane::start().await);
    cluster
        .with_namespace(async |namespace| {
            namespace.deployment("web", "fine", 0).await;
            let plan = Plan { more: "[kubernetes]\ntimeout = \"6s\"\n".to_owned(), ..Plan::of(&["web"]) };
            let mut house = House::build(&namespace, plan).await;
            namespace.cluster.pause_api_server();
            // Where it is the order itself that has no answer, it may be carried out once the API server goes on.
            house.ask_until("start", "did not answer").await;
            namespace.cluster.resume_api_server();
            namespace.cluster.stop_api_server();
            let away = house.ask_until("start", "cannot be reached").await;
            assert!(away.body().contains("Nothing was changed."), "{}", away.body());
            house.running.unready("cannot be reached", SOON).await;
            namespace.cluster.start_api_server().await;
            house.running.ready(SOON).await;
            house.ask_until("start 3", "→ 3").await;
            namespace.wait_replicas("web", 3, SOON).await;
            // Where the API server names nobody (after a scale from 0), the journal does.
            let status = house.ask("status").await;
            let who = format!("Scaled last by pilothouse for {}", house.person.user_id);
            assert!(status.body().contains(&who), "{}", status.body());
            let log = house.running.log();
            let says = |words: &str| log.iter().any(|line| line.contains(words));
            assert!(says("the API server does not answer; commands are told so"), "{log:?}");
            assert!(!says("kube_client::client::builder"), "each request that found nobody is in the log: {log:?}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_forbids_is_named_as_the_permission_that_is_missing() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        // The predecessor's Role, but for the one thing that it is for.
        let role = Manifests::minimal_role(&namespace.name);
        let blind = role.replace("verbs: [patch]", "verbs: [get]");
        assert_ne!(role, blind);
        namespace.apply(&blind).await;
        let token = namespace.service_account_token("minimal").await;
        let kubeconfig = Some(namespace.kubeconfig_for_token(&token));
        let house = House::build(&namespace, Plan { kubeconfig, ..Plan::of(&["web"]) }).await;
        let before = namespace.generation("web").await;
        let missing = format!("may not patch deployments/scale in {}. Nothing was changed.", namespace.name);
        let refused = house.ask_until("start", &missing).await;
        assert!(refused.body().contains("can add it to its Role"), "{}", refused.body());
        assert_eq!(namespace.generation("web").await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_does_not_come_is_told_as_uncertain_and_status_knows() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let front = Front::before_api_server(&namespace.cluster).await;
        let plan = Plan {
            more: "[kubernetes]\ntimeout = \"6s\"\n".to_owned(),
            kubeconfig: Some(namespace.kubeconfig_at(front.url())),
            ..Plan::of(&["web"])
        };
        let house = House::build(&namespace, plan).await;
        let before = namespace.generation("web").await;
        // The same words, whether it came through or not: nobody here can know.
        front.cut(Method::PATCH, "/deployments/web/scale", Way::Nowhere);
        house.ask_until("start 2", "nothing is certain").await;
        assert_eq!(namespace.generation("web").await, before, "it did not arrive, and was not sent again");
        let status = house.ask("status").await;
        assert!(status.body().contains("web: stopped"), "{}", status.body());

        front.cut(Method::PATCH, "/deployments/web/scale", Way::Lost);
        house.ask_until("start 2", "nothing is certain").await;
        assert_eq!(namespace.generation("web").await, before + 1, "it arrived, and was not sent again");
        namespace.wait_ready("web", 2, SOON).await;
        let status = house.ask("status").await;
        assert!(status.body().contains("2/2 ready"), "{}", status.body());
        let history = house.ask("history").await;
        assert!(history.body().contains("nothing is certain"), "{}", history.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_was_away_is_no_end_and_what_was_said_meanwhile_counts() {
    let synapse = std::sync::Arc::new(Synapse::start(json!({})).await);
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build_on(synapse, &namespace, Plan::of(&["web"])).await;
        house.ask("version").await;
        house.synapse.stop();
        house.running.unready("homeserver", Duration::from_mins(4)).await;
        house.synapse.restart().await;
        let sent = house.say("start").await;
        let answer = house.person.expect_reply(&sent, Duration::from_mins(4)).await;
        house.person.expect_text(&answer, "ready: 1/1", SOON).await;
        house.running.ready(SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_homeserver_finishes_what_the_journal_holds_and_tells_it_later() {
    let synapse = std::sync::Arc::new(Synapse::start(json!({})).await);
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build_on(std::sync::Arc::clone(&synapse), &namespace, Plan::of(&["web"])).await;
        let anchor = house.say("good morning").await;
        house.running.kill().await;
        Journal::of(&house).receive(&anchor.id, "start 2").await;
        synapse.stop();
        house.running = house.pilothouse.start();
        namespace.wait_replicas("web", 2, SOON).await;
        // The lock comes before everything else: a second process gets no further.
        let second = house.pilothouse.start();
        second.line("another process holds the Matrix store", SOON).await;
        synapse.restart().await;
        let answer = house.person.expect_reply(&anchor, SOON).await;
        house.person.expect_text(&answer, "ready: 2/2", SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_cannot_be_written_nothing_is_acted_on() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask("version").await;
        let path = house.pilothouse.database();
        let lock = rusqlite::Connection::open(&path).expect("opened");
        lock.execute_batch("BEGIN IMMEDIATE").expect("locked");
        let sent = house.say("start").await;
        house.running.unready("store", SOON).await;
        assert_eq!(namespace.replicas("web").await, 0);
        lock.execute_batch("ROLLBACK").expect("unlocked");
        let answer = house.person.expect_reply(&sent, Duration::from_mins(1)).await;
        house.person.expect_text(&answer, "ready: 1/1", SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_targets_are_read_again_on_sighup_or_it_says_why_not() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        for name in ["web", "db"] {
            namespace.deployment(name, "fine", 0).await;
        }
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let unknown = house.ask("status db").await;
        assert!(unknown.body().contains("There is no target db"), "{}", unknown.body());
        house.pilothouse.write_configuration("[matrix]\nhomserver = \"x\"\n");
        house.running.signal("HUP");
        house.running.line("the configuration was not read again", SOON).await;
        let toml = Plan::of(&["web", "db"]).toml(&house.synapse, &house.bot, &house.person.user_id, &namespace.name);
        house.pilothouse.write_configuration(&toml);
        house.running.signal("HUP");
        house.running.line("rules and targets were read again", SOON).await;
        let known = house.ask("status db").await;
        assert!(known.body().contains("db: stopped"), "{}", known.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let cluster = std::sync::Arc::new(ControlPlane::start().await);
    cluster
        .with_namespace(async |namespace| {
            namespace.deployment("web", "fine", 0).await;
            let mut house = House::build(&namespace, Plan::of(&["web"])).await;
            namespace.cluster.pause_api_server();
            house.say("start").await;
            let bot = house.bot.user_id.clone();
            let works = |seen: &Seen| matches!(seen, Seen::Typing { users, .. } if users.contains(&bot)).then_some(());
            house.person.expect_seen(SOON, works).await;
            // The command in work holds a polite end up for seconds; the second signal does not wait for it.
            house.running.signal("TERM");
            house.running.line("a second signal ends at once", SOON).await;
            house.running.signal("TERM");
            let status = house.running.end(Duration::from_secs(8)).await;
            assert_eq!(status.code(), Some(143), "{status}");
            namespace.cluster.resume_api_server();
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_identity_is_suspended_until_another_trusted_person_accepts_it() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let synapse = crate::support::synapse::synapse().await;
        let bob = synapse.register("bob").await;
        let bob_person = Person::with_identity(&synapse, &bob).await;
        let plan = Plan {
            users: vec![bob.user_id.clone()],
            matrix: "bare_words_everywhere = true\n".to_owned(),
            ..Plan::of(&["web"])
        };
        let house = House::build(&namespace, plan).await;
        house.person.invite(&house.room, &bob.user_id).await;
        bob_person.join(&house.room).await;
        house.ask("version").await;
        let sent = bob_person.send(&house.room, "version").await;
        bob_person.expect_reply(&sent, SOON).await;

        let key = house.person.new_identity().await;
        house.person.rotate(&house.room).await;
        let refused = house.ask("start").await;
        assert!(refused.body().contains("identity has changed"), "{}", refused.body());
        assert_eq!(namespace.replicas("web").await, 0);
        // Nobody vouches for themselves; a wrong fingerprint changes nothing; the right one does.
        let wrong = format!("trust accept {} {}", house.person.user_id, "A".repeat(43));
        let sent = bob_person.send(&house.room, &wrong).await;
        let answer = bob_person.expect_reply(&sent, SOON).await;
        assert!(answer.body().contains("that is not the key"), "{}", answer.body());
        let sent = bob_person.send(&house.room, &format!("trust accept {} {key}", house.person.user_id)).await;
        let answer = bob_person.expect_reply(&sent, SOON).await;
        assert!(answer.body().contains("is trusted with the identity"), "{}", answer.body());
        house.ask_until("start", "0 → 1").await;
    })
    .await;
}
