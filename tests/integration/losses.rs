//! Answers that did not get out: more than may wait, too old, refused. What was given up is counted, and told once words
//! pass again.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pilothouse::store::outbox::CAPACITY;
use serde_json::json;

use crate::support::bot::{DEADLINE, eventually};
use crate::support::person::RoomEvent;
use crate::support::proxy::{Answer, Proxy};
use crate::support::synapse::Synapse;
use crate::sync::Scene;

/// Part of the path of every message that is sent.
const SEND: &str = "/send/m.room.encrypted/";

/// Some twenty events, one in a second.
const DRAINED: Duration = Duration::from_mins(5);

#[tokio::test]
async fn the_room_reads_how_much_was_given_up_while_the_homeserver_was_away() {
    // A limit has what waits told together, however slow the machine is: a thousand events would take their time.
    let limits = json!({"rc_message": {"per_second": 1, "burst_count": 5}});
    let scene = Scene::on(Arc::new(Synapse::start(limits).await)).await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.synapse.stop();
    for number in 0..CAPACITY + 3 {
        scene.bot.say(&scene.store, &room, &format!("answer {number}."), None).await;
    }
    scene.synapse.restart().await;
    let told = scene.anna.expect(DRAINED, |event| event.is_notice() && event.body().contains("given up")).await;
    assert!(
        told.body().contains("3 messages could not be said here and were given up, the first of "),
        "{}",
        told.body()
    );
    let notices = || scene.anna.events(&room).into_iter().filter(RoomEvent::is_notice);
    assert!(notices().any(|event| event.body().lines().any(|line| line == format!("answer {}.", CAPACITY + 2))));
    eventually("nothing waits", async || matches!(scene.store.outbox_depth().await, Ok(0)).then_some(())).await;
    assert_eq!(notices().filter(|event| event.body().contains("given up")).count(), 1, "once");
    assert_eq!(scene.store.outbox_dropped().await.expect("read"), 3);
    running.stop().await;
}

/// A scene whose bot reaches its homeserver through a proxy, and has spoken in a room.
async fn proxied() -> (Scene, Proxy) {
    let mut scene = Scene::new().await;
    let proxy = Proxy::before(&scene.synapse).await;
    scene.bot.matrix.homeserver = proxy.url();
    (scene, proxy)
}

impl Scene {
    /// Says something, and waits until Anna has read it.
    async fn tells(&self, room: &str, text: &str) {
        self.bot.say(&self.store, room, text, None).await;
        self.anna.expect(DEADLINE, |event| event.room == room && event.body() == text).await;
    }

    /// Waits until so many rows were given up.
    async fn gives_up(&self, rows: u64) {
        let given_up = async || (self.store.outbox_dropped().await.expect("read") == rows).then_some(());
        eventually("they are given up", given_up).await;
    }

    /// What the room has read of losses.
    fn told_losses(&self, room: &str) -> Vec<String> {
        let events = self.anna.events(room).into_iter();
        events.filter(|event| event.body().contains("given up")).map(|event| event.body().to_owned()).collect()
    }
}

#[tokio::test]
async fn what_could_not_be_said_for_a_day_is_told_once_when_something_can() {
    let (scene, proxy) = proxied().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.tells(&room, "before").await;
    proxy.fail(SEND, Answer::page(502));
    for text in ["one", "two"] {
        scene.bot.say(&scene.store, &room, text, None).await;
    }
    eventually("a try", async || (proxy.count(&Method::PUT, SEND) > 1).then_some(())).await;
    running.stop().await;
    scene.sql(
        "UPDATE outbox SET created_at = created_at - 90000000, not_before = 0 WHERE state IN ('queued', 'trying')",
    );

    let running = scene.start().await;
    scene.gives_up(2).await;
    let waits = async || matches!(scene.store.outbox_depth().await, Ok(1)).then_some(());
    eventually("it is to be told", waits).await;
    proxy.mend();
    let told = |event: &RoomEvent| event.is_notice() && event.body().contains("given up");
    let told = scene.anna.expect(DEADLINE, told).await;
    assert!(
        told.body().contains("2 messages could not be said here and were given up, the first of "),
        "{}",
        told.body()
    );
    scene.tells(&room, "after").await;
    assert_eq!(scene.told_losses(&room).len(), 1, "once");
    assert_eq!(scene.store.losses().await.expect("read"), []);
    running.stop().await;
}

/// As after an outage of more than a day, in which nothing is tried.
#[tokio::test]
async fn what_has_waited_for_a_day_is_not_said_any_more_and_that_is_told() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.tells(&room, "before").await;
    running.stop().await;
    scene.bot.say(&scene.store, &room, "yesterday", None).await;
    scene.sql("UPDATE outbox SET created_at = created_at - 90000000 WHERE state = 'queued'");

    let running = scene.start().await;
    let told = |event: &RoomEvent| event.is_notice() && event.body().contains("given up");
    let told = scene.anna.expect(DEADLINE, told).await;
    assert!(told.body().contains("One message of "), "{}", told.body());
    scene.tells(&room, "today").await;
    assert!(!scene.anna.events(&room).iter().any(|event| event.body() == "yesterday"));
    running.stop().await;
}

#[tokio::test]
async fn what_was_refused_is_told_after_the_next_words_that_are_not() {
    let (scene, proxy) = proxied().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.tells(&room, "before").await;
    let earlier = proxy.count(&Method::PUT, SEND);
    let error = json!({"errcode": "M_FORBIDDEN", "error": "as the test wants it"});
    proxy.fail(SEND, Answer::json(403, &error));
    // Each is refused, and so is what tells of it, once: what is refused is not asked for again and again.
    for (text, given_up) in [("one", 2), ("two", 4)] {
        scene.bot.say(&scene.store, &room, text, None).await;
        scene.gives_up(given_up).await;
    }
    proxy.mend();
    scene.tells(&room, "after").await;
    let told = |event: &RoomEvent| event.is_notice() && event.body().contains("given up");
    let told = scene.anna.expect(DEADLINE, told).await;
    assert!(told.body().contains("2 messages could not be said here"), "{}", told.body());
    scene.tells(&room, "and on").await;
    assert_eq!(scene.told_losses(&room).len(), 1, "once");
    assert_eq!(proxy.count(&Method::PUT, SEND) - earlier, 4 + 3);
    running.stop().await;
}
