//! Answers to the bot, as clients write them: with the words that they answer above their own, and a mention that nobody
//! typed.

use serde_json::{Value, json};

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
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
        assert!(stopped.body().contains("2 → 0"), "{}", stopped.body());
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
