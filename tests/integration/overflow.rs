//! More to say than may wait: what was given up is counted, and told when the homeserver is back.

use std::sync::Arc;
use std::time::Duration;

use pilothouse::store::outbox::CAPACITY;
use serde_json::json;

use crate::support::bot::eventually;
use crate::support::person::RoomEvent;
use crate::support::synapse::Synapse;
use crate::sync::Scene;

/// Some twenty events, one in a second.
const DRAINED: Duration = Duration::from_mins(2);

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
    assert!(told.body().contains("3 messages were given up"), "{}", told.body());
    let notices = || scene.anna.events(&room).into_iter().filter(RoomEvent::is_notice);
    assert!(notices().any(|event| event.body().lines().any(|line| line == format!("answer {}.", CAPACITY + 2))));
    eventually("nothing waits", async || matches!(scene.store.outbox_depth().await, Ok(0)).then_some(())).await;
    assert_eq!(notices().filter(|event| event.body().contains("given up")).count(), 1, "once");
    assert_eq!(scene.store.outbox_dropped().await.expect("read"), 3);
    running.stop().await;
}
