//! What does not count, the whole way: the workload is not touched, and the room reads why, once.

use serde_json::json;

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::person::{Person, RoomEvent};

/// What the bot has said in a room that contains `text`.
fn said(house: &House, room: &str, text: &str) -> Vec<RoomEvent> {
    let events = house.person.events(room).into_iter();
    events.filter(|event| event.sender == house.bot.user_id && event.body().contains(text)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_does_not_count_moves_nothing_and_is_refused_once() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let (person, room) = (&house.person, house.room.as_str());
        let unsigned = Person::log_in(&house.synapse, &house.account).await;
        unsigned.member(room, &house.bot.user_id, "join", SOON).await;
        let plain = person.create_plain_room(&[&house.bot.user_id]).await;
        person.member(&plain, &house.bot.user_id, "join", SOON).await;

        // Two good ones: what they say can be said again by whoever has seen it.
        let good = house.say("start 2").await;
        let answer = person.expect_reply(&good, SOON).await;
        person.expect_text(&answer, "ready: 2/2", SOON).await;
        house.ask_until("stop", "is stopped").await;
        let before = namespace.generation("web").await;

        for _ in 0..2 {
            unsigned.send(room, "start 3").await;
            person.send_plain(room, "start 3").await;
            person.send_plain(&plain, "start 3").await;
            person.send_raw(room, &good.kind, &good.content).await;
            person.send_edit(room, &good.id, "start 3").await;
            person.send_notice(room, "start 3").await;
            let hidden =
                json!({"msgtype": "m.text", "body": "start 3", "m.new_content": {"msgtype": "m.text", "body": "start 3"}});
            person.send_content(room, hidden).await;
        }

        // Whoever may read it, reads why; an edit and a notice are nobody's command.
        let not_verified = format!("{} is not verified by you", unsigned.device_id);
        let refusals = [
            (room, not_verified.as_str()),
            (room, "came unencrypted into an encrypted room"),
            (room, "was sent before"),
            (&plain, "this room is not encrypted"),
        ];
        for (room, why) in refusals {
            person.expect(SOON, |event| event.room == room && event.body().contains(why)).await;
        }
        let touched = async || (namespace.replicas("web").await, namespace.generation("web").await);
        assert_eq!(touched().await, (0, before));

        // The lane of the target keeps the order: with this one done, everything before it was looked at.
        house.ask_until("start 1", "ready: 1/1").await;
        assert_eq!(touched().await, (1, before + 1), "the good one alone");
        for (room, why) in refusals {
            assert_eq!(said(&house, room, why).len(), 1, "{why}");
        }
        assert_eq!(said(&house, room, "Not done").len(), 3, "nothing else was refused");
        let starting = said(&house, room, "starting").into_iter().chain(said(&house, room, "ready: 3/3"));
        let answered = starting.filter(|event| event.body().contains("→ 3") || event.body().contains("3/3"));
        assert_eq!(answered.count(), 0);
        let elsewhere = person.events(&plain);
        let elsewhere = elsewhere.iter().filter(|event| event.sender == house.bot.user_id && event.state_key.is_none());
        assert_eq!(elsewhere.count(), 1, "the plaintext room reads why, and no more");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_accepted_from_a_plaintext_room() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let synapse = crate::support::synapse::synapse().await;
        let bert = Person::with_identity(&synapse, &synapse.register("bert").await).await;
        let plan = || Plan { users: vec![bert.user_id.clone()], ..Plan::of(&["web"]) };
        let mut house = House::build(&namespace, plan()).await;
        let room = bert.create_room(&[&house.bot.user_id]).await;
        bert.member(&room, &house.bot.user_id, "join", SOON).await;
        let asks = async |text: &str| {
            let sent = bert.send(&room, text).await;
            bert.expect_reply(&sent, SOON).await.body().to_owned()
        };
        assert!(asks("version").await.contains("Pilothouse "));
        let key = bert.new_identity().await;
        assert!(asks("version").await.contains("has changed"));
        let accept = format!("trust accept {} {key}", bert.user_id);

        // In any plaintext room nothing counts.
        let clear = house.person.create_plain_room(&[&house.bot.user_id]).await;
        house.person.member(&clear, &house.bot.user_id, "join", SOON).await;
        let sent = house.person.send_plain(&clear, &accept).await;
        let refused = house.person.expect_reply(&sent, SOON).await;
        assert!(refused.body().contains("this room is not encrypted"), "{}", refused.body());

        // Where commands are taken from it nevertheless, whom to trust is not.
        assert!(house.running.stop(SOON).await.success());
        let plan = Plan { more: format!("[trust]\nplaintext = [{clear:?}]\n"), ..plan() };
        let toml = plan.toml(&house.synapse, &house.bot, &house.person.user_id, &namespace.name);
        house.pilothouse.write_configuration(&toml);
        house.start_again().await;
        let sent = house.person.send_plain(&clear, "version").await;
        let told = house.person.expect_reply(&sent, SOON).await;
        assert!(told.body().contains("Pilothouse "), "{}", told.body());
        let sent = house.person.send_plain(&clear, &accept).await;
        let refused = house.person.expect_reply(&sent, SOON).await;
        assert!(refused.body().contains("Whom to trust is not taken from here"), "{}", refused.body());
        bert.rotate(&room).await;
        let sent = bert.send(&room, "start").await;
        house.ask(&accept).await;
        let accepted = bert.send(&room, "version").await;
        assert!(bert.expect_reply(&accepted, SOON).await.body().contains("Pilothouse "));
        let answered = bert.events(&room).iter().any(|event| event.replies_to() == Some(&sent.id));
        assert!(!answered, "refused again, and once in ten minutes is enough");
        assert_eq!(namespace.generation("web").await, 1);
    })
    .await;
}
