//! What the sync did not bring and the homeserver does not give out: limits, faults of one room, and the ends of patience.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use jiff::SignedDuration;
use pilothouse::message::{Standing, Why};
use serde_json::{Value, json};

use crate::support::bot::{DEADLINE, Running, eventually, now};
use crate::support::front::{Asked, Front, Way};
use crate::support::person::RoomEvent;
use crate::support::synapse::{Account, Synapse, synapse};
use crate::support::unique;
use crate::sync::Scene;

/// What becomes of the requests for chosen rooms.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<BTreeMap<String, Fault>>>);

#[derive(Clone, Copy)]
enum Fault {
    Broken,
    /// Its events are given out, and its encryption is not.
    Unstated,
    Hanging,
    Limited,
    LimitedForHours,
    Forgotten,
    /// A proxy answers itself, because no homeserver is behind it now.
    Absent,
}

impl Faults {
    fn set(&self, room: &str, fault: Option<Fault>) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some(fault) => drop(faults.insert(room.to_owned(), fault)),
            None => drop(faults.remove(room)),
        }
    }

    fn decide(&self, asked: &Asked) -> Way {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fault) = faults.iter().find(|(room, _)| asked.path.contains(*room)) else { return Way::On };
        let concerned = match fault.1 {
            Fault::Unstated => asked.path.contains("/state/m.room.encryption"),
            _ => asked.path.ends_with("/messages") || asked.path.contains("/event/"),
        };
        if !concerned {
            return Way::On;
        }
        let say = |status, code, more: Value| {
            let mut body = json!({"errcode": code, "error": "as the test wants it"});
            body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
            Way::Answer(status, body)
        };
        match fault.1 {
            Fault::Broken | Fault::Unstated => say(StatusCode::BAD_GATEWAY, "M_UNKNOWN", json!({})),
            Fault::Hanging => Way::Nowhere,
            Fault::Limited => say(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", json!({"retry_after_ms": 1500})),
            Fault::LimitedForHours => {
                say(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", json!({"retry_after_ms": 3 * 3_600_000}))
            }
            Fault::Absent => Way::Answer(StatusCode::NOT_FOUND, json!("404 page not found")),
            Fault::Forgotten => say(StatusCode::BAD_REQUEST, "M_UNKNOWN", json!({})),
        }
    }
}

/// A scene whose bot reaches its homeserver through a front with faults.
async fn scene() -> (Scene, Front, Faults) {
    let mut scene = Scene::on(synapse().await).await;
    let faults = Faults::default();
    let decide = faults.clone();
    let front = Front::deciding(&scene.synapse, move |asked| decide.decide(asked)).await;
    scene.bot.matrix.homeserver = front.url().parse().expect("a URL");
    (scene, front, faults)
}

impl Scene {
    async fn position(&self) -> String {
        self.store.cursor("sync").await.expect("the store answers").expect("a position")
    }

    /// Ends the bot as a kill does between the SDK's word and ours: all that comes from now on has to be read from
    /// `/messages`. Gives the own position: the same, but not the SDK's word for it.
    async fn break_off(&self, running: Running) -> String {
        running.stop().await;
        let position = self.position().await.replacen('s', "s0", 1);
        self.store.set_cursor("sync", &position).await.expect("the store answers");
        position
    }

    async fn open_gaps(&self) -> usize {
        self.store.gaps().await.expect("the store answers").len()
    }

    async fn caught_up(&self) {
        eventually("every gap is closed", async || (self.open_gaps().await == 0).then_some(())).await;
    }

    async fn texts(&self, room: &str) -> Vec<String> {
        self.inbox().await.into_iter().filter(|message| message.room == room).map(|message| message.text).collect()
    }
}

/// A room in which `start` was said while the bot was away, and that the homeserver then gives out with this fault.
async fn missed(scene: &Scene, faults: &Faults, fault: Fault) -> String {
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    scene.break_off(running).await;
    scene.anna.send(&room, "start").await;
    faults.set(&room, Some(fault));
    room
}

#[tokio::test]
async fn after_an_outage_it_says_that_a_room_is_still_to_be_read() {
    let (mut scene, _front, faults) = scene().await;
    let running = scene.start().await;
    let (home, broken) = (scene.room().await, scene.room().await);
    scene.marker(&home).await;
    scene.marker(&broken).await;
    scene.break_off(running).await;
    scene.bot.matrix.home_room = Some(home.clone());
    let waits = scene.anna.send(&broken, "start").await;
    faults.set(&broken, Some(Fault::Broken));
    let then = now() - SignedDuration::from_mins(12);
    scene.store.set_cursor("synced_at", &then.as_millisecond().to_string()).await.expect("the store answers");
    let running = scene.start().await;
    let told = |event: &RoomEvent| event.room == home && event.is_notice() && event.body().contains("Back after");
    let told = scene.anna.expect(DEADLINE, told).await;
    assert!(
        told.body().contains("Nothing has come yet.") && told.body().ends_with("more may come."),
        "{}",
        told.body()
    );
    faults.set(&broken, None);
    scene.arrives(&waits.id).await;
    running.stop().await;
}

#[tokio::test]
async fn one_room_that_cannot_be_read_holds_up_no_other_and_loses_nothing() {
    for fault in [Fault::Broken, Fault::Hanging, Fault::Absent] {
        let (scene, front, faults) = scene().await;
        let running = scene.start().await;
        let (bad, good) = (scene.room().await, scene.room().await);
        scene.marker(&bad).await;
        scene.marker(&good).await;
        scene.sql("DELETE FROM inbox");
        let position = scene.break_off(running).await;
        faults.set(&bad, Some(fault));
        for text in ["start", "stop"] {
            scene.anna.send(&bad, text).await;
            scene.anna.send(&good, text).await;
        }

        let running = scene.start().await;
        let live = scene.anna.send(&good, "status").await;
        scene.arrives(&live.id).await;
        assert_eq!(scene.texts(&good).await, ["start", "stop", "status"]);
        // Not before what was said earlier.
        scene.anna.send(&bad, "status").await;
        scene.marker(&good).await;
        assert_eq!(scene.texts(&bad).await, Vec::<String>::new());
        assert_eq!(scene.open_gaps().await, 1);
        assert_ne!(scene.position().await, position, "the position goes on");

        // Over a restart too.
        running.stop().await;
        let running = scene.start().await;
        scene.marker(&good).await;
        assert_eq!((scene.open_gaps().await, scene.texts(&bad).await.len()), (1, 0));
        let asked = front.asked("/messages").len();
        assert!(asked < 40, "with growing pauses, not in a circle: {asked}");

        faults.set(&bad, None);
        scene.caught_up().await;
        let after = scene.marker(&bad).await;
        let inbox = scene.inbox().await;
        assert_eq!(scene.texts(&bad).await[..3], ["start", "stop", "status"]);
        assert_eq!(inbox.iter().filter(|message| message.room == bad).count(), 4, "each once, and {after}");
        assert_eq!(scene.said(&bad).await, []);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_limit_on_reading_is_waited_for_as_the_homeserver_asks() {
    let (scene, front, faults) = scene().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    scene.sql("DELETE FROM inbox");
    scene.break_off(running).await;
    let sent = scene.anna.send(&room, "start").await;
    faults.set(&room, Some(Fault::Limited));
    let running = scene.start().await;
    eventually("it tries twice", async || (front.asked("/messages").len() >= 2).then_some(())).await;
    faults.set(&room, None);
    scene.arrives(&sent.id).await;
    let asked = front.asked("/messages");
    assert!(asked[1] - asked[0] >= Duration::from_millis(1400), "{:?}", asked[1] - asked[0]);
    running.stop().await;
}

#[tokio::test]
async fn what_the_homeserver_will_never_give_out_is_passed_over_and_said() {
    let (scene, _front, faults) = scene().await;
    let room = missed(&scene, &faults, Fault::Forgotten).await;
    let running = scene.start().await;
    let told = scene.anna.expect(DEADLINE, |event| event.is_notice() && event.body().contains("say it again")).await;
    assert_eq!(told.room, room);
    scene.marker(&room).await;
    assert!(!scene.texts(&room).await.contains(&"start".to_owned()));
    running.stop().await;
}

/// Makes every gap older, in milliseconds.
fn age(by: i64) -> String {
    format!("UPDATE cursor SET token = (substr(token, 1, 13) - {by}) || substr(token, 14) WHERE name GLOB 'gap/*'")
}

#[tokio::test]
async fn however_long_a_limit_on_reading_is_the_room_is_told_in_a_minute_and_heard_in_an_hour() {
    let (scene, _front, faults) = scene().await;
    let room = missed(&scene, &faults, Fault::LimitedForHours).await;
    let running = scene.start().await;
    eventually("a gap is open", async || (scene.open_gaps().await == 1).then_some(())).await;
    running.stop().await;
    for (aged, told) in [(45_000, "act on nothing here"), (3_540_000, "say it again")] {
        scene.sql(&age(aged));
        let running = scene.start().await;
        scene.anna.expect(DEADLINE, |event| event.is_notice() && event.body().contains(told)).await;
        if aged > 60_000 {
            scene.caught_up().await;
            scene.marker(&room).await;
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn a_room_whose_encryption_cannot_be_asked_for_holds_up_no_other() {
    let (scene, _front, faults) = scene().await;
    let running = scene.start().await;
    let plain = scene.anna.create_plain_room(&[&scene.account.user_id]).await;
    scene.comes(&plain).await;
    let good = scene.room().await;
    scene.marker(&good).await;
    faults.set(&plain, Some(Fault::Unstated));
    let sent = scene.anna.send_plain(&plain, "start").await;
    eventually("it waits", async || (scene.open_gaps().await == 1).then_some(())).await;
    scene.marker(&good).await;
    assert_eq!(scene.texts(&plain).await, Vec::<String>::new());
    faults.set(&plain, None);
    assert_eq!(scene.arrives(&sent.id).await.standing, Standing::Unproven(Why::PlaintextRoom));
    running.stop().await;
}

#[tokio::test]
async fn a_late_message_that_cannot_be_looked_at_holds_up_no_other_and_has_its_end() {
    let (scene, _front, faults) = scene().await;
    let running = scene.start().await;
    let (bad, good) = (scene.room().await, scene.room().await);
    scene.marker(&bad).await;
    scene.marker(&good).await;
    let waiting = async || scene.store.waiting().await.expect("the store answers").len();
    let stuck = scene.anna.send_without_key(&bad, "start").await;
    eventually("one waits", async || (waiting().await == 1).then_some(())).await;
    let late = scene.anna.send_without_key(&good, "stop").await;
    eventually("two wait", async || (waiting().await == 2).then_some(())).await;
    faults.set(&bad, Some(Fault::Broken));
    scene.anna.deliver_key(&stuck).await;
    scene.anna.deliver_key(&late).await;
    assert_eq!(scene.arrives(&late.id).await.standing, Standing::Proven);
    assert_eq!(waiting().await, 1);
    running.stop().await;

    scene.sql("UPDATE inbox SET received_at = received_at - 86400000 WHERE state = 'waiting'");
    let running = scene.start().await;
    let asks = scene.anna.expect(DEADLINE, |event| event.is_notice() && event.replies_to() == Some(&stuck.id)).await;
    assert!(asks.body().contains("send it again"), "{}", asks.body());
    eventually("nothing waits", async || (waiting().await == 0).then_some(())).await;
    running.stop().await;
}

#[tokio::test]
async fn patience_with_one_room_has_an_end_and_it_is_said() {
    let (scene, _front, faults) = scene().await;
    let room = missed(&scene, &faults, Fault::Broken).await;
    let mut running = scene.start().await;
    eventually("a gap is open", async || (scene.open_gaps().await == 1).then_some(())).await;
    // It is the only room.
    let deaf = running.health.wait_for(|health| health.trouble.as_ref().is_some_and(|why| why.contains("in no room")));
    tokio::time::timeout(DEADLINE, deaf).await.expect("it is noticed").expect("it runs");
    running.stop().await;

    // Nobody waits an hour here.
    scene.sql(&age(61_000));
    let running = scene.start().await;
    scene.anna.expect(DEADLINE, |event| event.is_notice() && event.body().contains("act on nothing here")).await;
    running.stop().await;
    scene.sql(&age(3_600_000));
    let running = scene.start().await;
    scene.anna.expect(DEADLINE, |event| event.is_notice() && event.body().contains("say it again")).await;
    scene.caught_up().await;
    scene.marker(&room).await;
    assert!(!scene.texts(&room).await.contains(&"start".to_owned()));
    let said = scene.anna.events(&room).into_iter().filter(crate::support::person::RoomEvent::is_notice).count();
    assert_eq!(said, 2, "each once");
    running.stop().await;
}

#[tokio::test]
async fn of_more_than_a_thousand_events_the_newest_count_and_the_rest_is_told() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    scene.sql("DELETE FROM inbox");
    scene.break_off(running).await;

    let old = scene.anna.send(&room, "start").await;
    let (synapse, token) = (&scene.synapse, &scene.anna.access_token);
    let fill = (0..1010).map(|number| {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/test.filler/{}", unique("txn"));
        async move { synapse.call(token, Method::PUT, &path, Some(json!({ "number": number }))).await }
    });
    futures_util::stream::iter(fill).buffer_unordered(10).for_each(|_| std::future::ready(())).await;
    let texts: Vec<String> = (0..5).map(|number| format!("start {number}")).collect();
    let mut sent = Vec::new();
    for text in &texts {
        sent.push(scene.anna.send(&room, text).await.id);
    }

    let running = scene.start().await;
    scene.arrives(&sent[4]).await;
    let told = |event: &crate::support::person::RoomEvent| event.is_notice() && event.body().contains("1000 events");
    scene.anna.expect(DEADLINE, told).await;
    let after = scene.marker(&room).await;
    let inbox: Vec<String> = scene.inbox().await.into_iter().map(|message| message.event).collect();
    sent.push(after);
    assert_eq!(inbox, sent);
    assert!(!inbox.contains(&old.id));
    let position = scene.position().await;
    running.stop().await;

    // What was left is left for good.
    let running = scene.start().await;
    scene.marker(&room).await;
    assert_ne!(scene.position().await, position);
    assert_eq!(scene.anna.events(&room).into_iter().filter(told).count(), 1);
    running.stop().await;
}

/// An application service that may speak for everybody, at any time.
async fn with_forger() -> (Arc<Synapse>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let service = folder.path().join("service.yaml");
    let registration = json!({
        "id": "forger", "url": null, "as_token": "forger", "hs_token": "unused", "sender_localpart": "forger",
        "rate_limited": false, "namespaces": {"users": [{"exclusive": false, "regex": ".*"}]},
    });
    std::fs::write(&service, registration.to_string()).expect("written");
    (Arc::new(Synapse::start(json!({ "app_service_config_files": [service] })).await), folder)
}

async fn forge(synapse: &Synapse, account: &Account, room: &str, sealed: (String, Value), age: SignedDuration) {
    let at = (now() - age).as_millisecond();
    let (kind, content) = sealed;
    let user: String = url::form_urlencoded::byte_serialize(account.user_id.as_bytes()).collect();
    let txn = unique("txn");
    let path = format!("/_matrix/client/v3/rooms/{room}/send/{kind}/{txn}?user_id={user}&ts={at}");
    synapse.call("forger", Method::PUT, &path, Some(content)).await;
}

#[tokio::test]
async fn what_is_older_than_a_day_is_not_read_again_and_that_is_told() {
    let (synapse, _folder) = with_forger().await;
    let scene = Scene::on(synapse).await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    scene.sql("DELETE FROM inbox");
    let position = scene.break_off(running).await;

    // What the homeserver had before it is read whatever time another event bears.
    scene.anna.send(&room, "first").await;
    let sealed = scene.anna.seal(&room, "older").await;
    forge(&scene.synapse, &scene.anna_account, &room, sealed, SignedDuration::from_hours(25)).await;
    let sealed = scene.anna.seal(&room, "old").await;
    forge(&scene.synapse, &scene.anna_account, &room, sealed, SignedDuration::from_hours(23)).await;
    let new = scene.anna.send(&room, "new").await;

    let begun = Instant::now();
    let running = scene.start().await;
    scene.arrives(&new.id).await;
    assert!(begun.elapsed() < DEADLINE);
    assert_eq!(scene.texts(&room).await, ["first", "old", "new"]);
    let told = |event: &crate::support::person::RoomEvent| event.is_notice() && event.body().contains("were not seen");
    scene.anna.expect(DEADLINE, told).await;
    assert_ne!(scene.position().await, position);
    running.stop().await;
}
