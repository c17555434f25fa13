//! Answers to the bot, as clients write them: with the words that they answer above their own, and a mention that nobody
//! typed.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::bot::{eventually, now};
use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::journal::Journal;
use crate::support::person::{Person, RoomEvent, Sent};

/// Answers an event as a client does that still repeats it, and mentions its sender.
async fn reply(person: &Person, to: &RoomEvent, text: &str) -> Sent {
    let quoted = to.body().replace('\n', "\n> ");
    let content: Value = json!({
        "msgtype": "m.text",
        "body": format!("> <{}> {quoted}\n\n{text}", to.sender),
        "m.mentions": { "user_ids": [to.sender] },
        "m.relates_to": { "m.in_reply_to": { "event_id": to.id } },
    });
    person.send_content(&to.room, content).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_in_a_thread_is_answered_in_it() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let root = house.say("good morning").await;
        let content = json!({
            "msgtype": "m.text", "body": "start",
            "m.relates_to": {
                "rel_type": "m.thread", "event_id": root.id, "is_falling_back": true,
                "m.in_reply_to": { "event_id": root.id },
            },
        });
        let asked = house.person.send_content(&house.room, content).await;
        let answer = house.person.expect_reply(&asked, SOON).await;
        let relation = &answer.content["m.relates_to"];
        assert_eq!((&relation["rel_type"], &relation["event_id"]), (&json!("m.thread"), &json!(root.id)));
        let ready = house.person.expect_text(&answer, "ready: 1/1", SOON).await;
        assert_eq!(ready.edits(), Some(answer.id.as_str()));
    })
    .await;
}

/// The thread that an event stands in.
fn thread(event: &RoomEvent) -> Option<&str> {
    let relation = &event.content["m.relates_to"];
    (relation["rel_type"] == "m.thread").then(|| relation["event_id"].as_str()).flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_told_in_each_thread_where_it_was_said() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask("version").await;
        house.running.kill().await;
        let (first, second) = (house.say("good morning").await.id, house.say("good evening").await.id);
        let journal = Journal::of(&house);
        let then = now() - SignedDuration::from_mins(6);
        let said = [
            (Some(first.as_str()), "start 2"),
            (None, "stop"),
            (Some(second.as_str()), "status"),
            (Some(first.as_str()), "start 3"),
        ];
        for (n, (thread, text)) in said.into_iter().enumerate() {
            journal.receive_in(thread, &format!("$stale{n}:test"), text, then).await;
        }
        drop(journal);
        house.start_again().await;
        let is_stale = |event: &RoomEvent| event.body().contains("Too old to act on");
        for (place, texts) in [(Some(first), "start 2, start 3."), (Some(second), "status."), (None, "stop.")] {
            let told = |event: &RoomEvent| is_stale(event) && thread(event) == place.as_deref();
            let told = house.person.expect(SOON, told).await;
            assert!(told.body().contains(&format!("on the way): {texts} Nothing was done")), "{}", told.body());
        }
        house.ask("version").await;
        assert_eq!(house.person.events(&house.room).iter().filter(|event| is_stale(event)).count(), 3, "once in each");
        assert_eq!(namespace.replicas("web").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_thread_whose_key_is_late_is_asked_for_and_answered_in_it() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask("version").await;
        let root = house.say("good morning").await;
        let relation = json!({
            "rel_type": "m.thread", "event_id": root.id, "is_falling_back": true,
            "m.in_reply_to": { "event_id": root.id },
        });
        let asked = house.person.send_without_key_in(&house.room, "status", &relation).await;
        let journal = Journal::of(&house);
        eventually("it waits", async || {
            let waiting = journal.store.waiting().await.expect("read");
            waiting.iter().any(|entry| entry.event == asked.id).then_some(())
        })
        .await;
        assert!(house.running.stop(SOON).await.success());
        drop(journal);
        // As if it had waited for a minute.
        let path = house.pilothouse.database();
        let database = rusqlite::Connection::open(path).expect("opened");
        let aged = database.execute("UPDATE inbox SET received_at = received_at - 61000 WHERE state = 'waiting'", []);
        assert_eq!(aged.expect("written"), 1);
        drop(database);
        house.start_again().await;
        let asks = house.person.expect_reply(&asked, SOON).await;
        assert!(asks.body().contains("send it again"), "{}", asks.body());
        assert_eq!(thread(&asks), Some(root.id.as_str()));

        house.person.deliver_key(&asked).await;
        let about = |event: &RoomEvent| event.is_notice() && event.replies_to() == Some(&asked.id);
        let answer = house.person.expect(SOON, |event| about(event) && event.body().contains("stopped")).await;
        assert_eq!(thread(&answer), Some(root.id.as_str()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_the_bot_is_a_command_without_what_it_quotes_and_thanks_are_thanks() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let status = house.ask("status").await;
        assert!(status.body().contains("stopped"), "{}", status.body());
        let sent = reply(&house.person, &status, "start 2").await;
        let started = house.person.expect_reply(&sent, SOON).await;
        assert!(started.body().contains("0 → 2"), "{}", started.body());

        // In a room of many every client mentions whom it answers.
        let bert = house.synapse.register("bert").await;
        let bert = Person::with_identity(&house.synapse, &bert).await;
        house.person.invite(&house.room, &bert.user_id).await;
        bert.join(&house.room).await;
        house.person.member(&house.room, &bert.user_id, "join", SOON).await;
        let mut thanks = Vec::new();
        for text in ["thanks", "", "on it"] {
            thanks.push(reply(&house.person, &started, text).await);
        }
        let sent = reply(&house.person, &started, "stop").await;
        let stopped = house.person.expect_reply(&sent, SOON).await;
        // On a busy machine it is done before its first word is out.
        house.person.expect_text(&stopped, "is stopped", SOON).await;
        let near = reply(&house.person, &stopped, "statsu").await;
        let near = house.person.expect_reply(&near, SOON).await;
        assert!(near.body().contains("status"), "{}", near.body());
        for thanks in thanks {
            let answered = |event: &&RoomEvent| event.is_notice() && event.replies_to() == Some(&thanks.id);
            assert_eq!(house.person.events(&house.room).iter().find(answered).map(RoomEvent::body), None);
        }
    })
    .await;
}
