//! From the outbox into a real encrypted room, read by a person at an unrelated client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use pilothouse::chat::Gesture;
use pilothouse::message::Outgoing;
use pilothouse::store::Store;
use pilothouse::store::outbox::{Draft, Speech};
use serde_json::json;

use crate::support::bot::{Bot, DEADLINE, eventually, join, now};
use crate::support::control_plane::with_namespace;
use crate::support::front::{Front, Way};
use crate::support::house::{House, Plan, SOON};
use crate::support::kubelet::Fate;
use crate::support::person::{Person, RoomEvent, Seen};
use crate::support::proxy::{Answer, Proxy};
use crate::support::synapse::{Account, Synapse, synapse};
use crate::support::unique;

/// Part of the path of every message that is sent.
const SEND: &str = "/send/m.room.encrypted/";

/// A bot and a person, and a way for both into rooms.
struct Scene {
    synapse: Arc<Synapse>,
    account: Account,
    bot: Bot,
    anna_account: Account,
    anna: Person,
}

impl Scene {
    async fn on(synapse: Arc<Synapse>) -> Self {
        let account = synapse.register("bot").await;
        let anna_account = synapse.register("anna").await;
        let bot = Bot::new(&synapse, &account);
        bot.users.send_replace(Arc::new(vec![anna_account.user_id.clone()]));
        let anna = Person::with_identity(&synapse, &anna_account).await;
        Self { synapse, account, bot, anna_account, anna }
    }

    /// An encrypted room with both in it.
    async fn room(&self) -> String {
        let room = self.anna.create_room(&[&self.account.user_id]).await;
        join(&self.synapse, &self.account, &room).await;
        self.anna.member(&room, &self.account.user_id, "join", DEADLINE).await;
        room
    }

    /// Waits until Anna reads this text from the bot.
    async fn reads(&self, room: &str, text: &str) -> RoomEvent {
        let from = &self.account.user_id;
        self.anna.expect(DEADLINE, |event| event.room == room && event.sender == *from && event.body() == text).await
    }

    /// The notices of the bot that Anna has read so far, without edits.
    fn notices(&self, room: &str) -> Vec<String> {
        let seen = self.anna.seen();
        let ours = seen.iter().filter_map(|seen| match seen {
            Seen::Event(event) if event.room == room && event.sender == self.account.user_id => Some(event),
            _ => None,
        });
        ours.filter(|event| event.is_notice() && event.edits().is_none()).map(|event| event.body().to_owned()).collect()
    }
}

fn sql(bot: &Bot, statement: &str, row: i64) -> (String, Option<String>) {
    let database = rusqlite::Connection::open(bot.file("pilothouse.sqlite3")).expect("the database");
    if !statement.is_empty() {
        database.execute(statement, [row]).expect("it is written");
    }
    database
        .query_row("SELECT state, event FROM outbox WHERE id = ?1", [row], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("the row")
}

async fn state(bot: &Bot, row: i64, wanted: &str) -> Option<String> {
    eventually(wanted, async || {
        let (state, event) = sql(bot, "", row);
        (state == wanted).then_some(event)
    })
    .await
}

#[tokio::test]
async fn an_answer_is_an_encrypted_notice_in_reply_and_its_edit_replaces_it() {
    let scene = Scene::on(synapse().await).await;
    let room = scene.room().await;
    let store = scene.bot.store();
    let running = scene.bot.start().await;
    let asked = scene.anna.send(&room, "start").await;
    let row = scene.bot.say(&store, &room, "starting", Some(&asked.id)).await;
    let answer = scene.reads(&room, "starting").await;
    assert!(answer.encrypted && answer.is_notice());
    assert_eq!((answer.replies_to(), answer.html()), (Some(asked.id.as_str()), "<b>starting</b>"));

    scene.bot.revise(&store, row, "ready").await;
    let edit = scene.reads(&room, "ready").await;
    assert!(edit.encrypted);
    assert_eq!(edit.edits(), Some(answer.id.as_str()));
    assert_eq!(state(&scene.bot, row, "sent").await.as_deref(), Some(answer.id.as_str()));
    assert!(running.health.borrow().can_encrypt);

    // Given again as whoever works gives it: shown for a few seconds, one may be over before a slow machine has brought it.
    let working = async {
        let mut again = tokio::time::interval(Duration::from_secs(3));
        loop {
            again.tick().await;
            running.gestures.send(Gesture::Typing { room: room.clone(), on: true }).await.expect("taken");
        }
    };
    let seen = eventually("a receipt and typing", async || {
        let seen = scene.anna.seen();
        let read = |seen: &Seen| matches!(seen, Seen::Receipt { event, .. } if *event == asked.id);
        let typing = |seen: &Seen| matches!(seen, Seen::Typing { users, .. } if users.contains(&scene.account.user_id));
        (seen.iter().any(read) && seen.iter().any(typing)).then_some(())
    });
    tokio::select! {
        () = working => {}
        () = seen => {}
    }
    running.stop().await;
}

#[tokio::test]
async fn what_was_sent_but_not_recorded_is_sent_again_as_the_same_event() {
    let scene = Scene::on(synapse().await).await;
    let room = scene.room().await;
    let store = scene.bot.store();
    let running = scene.bot.start().await;
    let row = scene.bot.say(&store, &room, "once", None).await;
    let event = state(&scene.bot, row, "sent").await;
    running.stop().await;

    // As a crash leaves it between the homeserver's answer and the record of it.
    sql(&scene.bot, "UPDATE outbox SET state = 'trying', event = NULL WHERE id = ?1", row);
    let running = scene.bot.start().await;
    assert_eq!(state(&scene.bot, row, "sent").await, event);
    let last = scene.bot.say(&store, &room, "after", None).await;
    state(&scene.bot, last, "sent").await;
    scene.reads(&room, "after").await;
    assert_eq!(scene.notices(&room), ["once", "after"]);
    running.stop().await;
}

#[tokio::test]
async fn under_a_limit_what_waits_is_told_together_and_nothing_is_lost() {
    let limits = json!({"rc_message": {"per_second": 0.5, "burst_count": 5}});
    let scene = Scene::on(Arc::new(Synapse::start(limits).await)).await;
    let room = scene.room().await;
    let store = scene.bot.store();
    let running = scene.bot.start().await;
    let texts: Vec<String> = (0..30).map(|number| format!("answer {number}")).collect();
    for text in &texts {
        scene.bot.say(&store, &room, text, None).await;
    }
    let told = eventually("all answers", async || {
        let notices = scene.notices(&room);
        (notices.iter().map(|notice| notice.lines().count()).sum::<usize>() >= texts.len()).then_some(notices)
    })
    .await;
    assert_eq!(told.iter().flat_map(|notice| notice.lines()).collect::<Vec<_>>(), texts, "in order, each once");
    assert_eq!(told[0], "answer 0", "the first leaves at once and alone");
    assert!(told.len() < texts.len() / 2, "merged: {told:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_limit_is_waited_for_as_long_as_it_says() {
    // Longer than what a limit means that does not say.
    const LIMIT: Duration = Duration::from_secs(8);
    let mut scene = Scene::on(synapse().await).await;
    let limited = Arc::new(AtomicBool::new(false));
    let limit = Arc::clone(&limited);
    let front = Front::deciding(&scene.synapse, move |asked| {
        if asked.path.contains(SEND) && limit.swap(false, Ordering::SeqCst) {
            let error = json!({"errcode": "M_LIMIT_EXCEEDED", "error": "slowly", "retry_after_ms": LIMIT.as_millis()});
            return Way::Answer(StatusCode::TOO_MANY_REQUESTS, error);
        }
        Way::On
    })
    .await;
    scene.bot.matrix.homeserver = front.url().parse().expect("a URL");
    let room = scene.room().await;
    let store = scene.bot.store();
    let running = scene.bot.start().await;
    // The key of the room is shared with the first words; then every request is one event.
    scene.bot.say(&store, &room, "before", None).await;
    scene.reads(&room, "before").await;
    let earlier = front.asked(SEND).len();
    limited.store(true, Ordering::SeqCst);
    scene.bot.say(&store, &room, "limited", None).await;
    let row = scene.bot.say(&store, &room, "next", None).await;
    state(&scene.bot, row, "sent").await;
    scene.reads(&room, "next").await;

    let (at, tries) = (front.asked(SEND).split_off(earlier), front.asked_for(SEND).split_off(earlier));
    assert_eq!(tries.len(), 3, "the first twice, the second once: {tries:?}");
    let waited = at[1].duration_since(at[0]);
    assert!(waited >= LIMIT && waited < LIMIT * 3, "{waited:?}");
    assert_eq!(tries[0], tries[1], "the same transaction id");
    assert_ne!(tries[1], tries[2]);
    assert_eq!(scene.notices(&room), ["before", "limited", "next"], "each once");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_edited_once_in_five_seconds_whatever_happens_meanwhile() {
    with_namespace(async |namespace| {
        let kubelet = namespace.kubelet();
        namespace.deployment("web", "slow", 0).await;
        let synapse = synapse().await;
        let front = Front::deciding(&synapse, |_| Way::On).await;
        let plan = Plan { homeserver: Some(front.url().to_owned()), ..Plan::of(&["web"]) };
        let house = House::build(&namespace, plan).await;
        house.ask("version").await;
        let earlier = front.asked(SEND).len();
        let sent = house.say("start 2").await;
        let answer = house.person.expect_reply(&sent, SOON).await;
        namespace.wait_replicas("web", 2, SOON).await;
        // More happens than anybody wants to read.
        let mut changes = tokio::time::interval(Duration::from_millis(700));
        for fate in [Fate::ImagePull, Fate::Slow, Fate::Crash, Fate::Unready, Fate::Unschedulable].repeat(5) {
            changes.tick().await;
            kubelet.decide("slow", fate);
        }
        kubelet.decide("slow", Fate::Ready);
        house.person.expect_text(&answer, "ready: 2/2", SOON).await;

        let mut at = front.asked(SEND).split_off(earlier);
        // The last words may leave at once, or take the place of progress that waits.
        at.pop();
        assert!((3..=8).contains(&at.len()), "the answer and some progress: {at:?}");
        for pair in at.windows(2) {
            let pause = pair[1].duration_since(pair[0]);
            assert!(pause >= Duration::from_millis(4900), "{pause:?} of {at:?}");
        }
        let edits = house.person.events(&house.room);
        let edits: Vec<&RoomEvent> = edits.iter().filter(|event| event.edits() == Some(&answer.id)).collect();
        assert_eq!(edits.len(), at.len(), "each request was one edit, and the last words another: {edits:#?}");
    })
    .await;
}

#[tokio::test]
async fn without_a_limit_each_answer_is_an_event_of_its_own_and_an_outage_loses_none() {
    let scene = Scene::on(Arc::new(Synapse::start(json!({})).await)).await;
    let room = scene.room().await;
    let store = scene.bot.store();
    let mut running = scene.bot.start().await;
    scene.bot.say(&store, &room, "before", None).await;
    scene.reads(&room, "before").await;
    scene.synapse.stop();
    let mut rows = Vec::new();
    for number in 0..20 {
        rows.push(scene.bot.say(&store, &room, &format!("answer {number}"), None).await);
    }
    running.health.wait_for(|health| health.trouble.is_some()).await.expect("it runs");
    scene.synapse.restart().await;
    for row in rows {
        state(&scene.bot, row, "sent").await;
    }
    scene.reads(&room, "answer 19").await;
    let mut expected = vec!["before".to_owned()];
    expected.extend((0..20).map(|number| format!("answer {number}")));
    assert_eq!(scene.notices(&room), expected);
    running.stop().await;
}

/// Who logs in while the daemon is deaf must be able to read what it says afterwards.
#[tokio::test]
async fn what_is_said_after_an_outage_is_sealed_for_the_devices_of_now() {
    let mut scene = Scene::on(synapse().await).await;
    let room = scene.room().await;
    let proxy = Proxy::before(&scene.synapse).await;
    scene.bot.matrix.homeserver = proxy.url();
    let store = scene.bot.store();
    let mut running = scene.bot.start().await;
    scene.bot.say(&store, &room, "before", None).await;
    scene.reads(&room, "before").await;

    proxy.fail("/sync", Answer::page(502));
    scene.anna.send(&room, "this ends the poll that waits").await;
    let deaf = running.health.wait_for(|health| health.trouble.is_some());
    tokio::time::timeout(DEADLINE, deaf).await.expect("it is noticed").expect("it runs");
    let again = Person::log_in(&scene.synapse, &scene.anna_account).await;
    again.member(&room, &scene.account.user_id, "join", DEADLINE).await;
    scene.anna.sign_device(&again.device_id).await;
    let row = scene.bot.say(&store, &room, "after", None).await;
    proxy.mend();
    let news = again.expect(DEADLINE, |event| event.room == room && event.body() == "after").await;
    assert!(news.encrypted);
    state(&scene.bot, row, "sent").await;
    running.stop().await;
}

#[tokio::test]
async fn a_room_that_is_plain_unknown_or_left_loses_its_words_and_holds_up_nobody() {
    let mut scene = Scene::on(synapse().await).await;
    let room = scene.room().await;
    let left = scene.room().await;
    let mut plain = Vec::new();
    for _ in 0..2 {
        let room = scene.anna.create_plain_room(&[&scene.account.user_id]).await;
        join(&scene.synapse, &scene.account, &room).await;
        plain.push(room);
    }
    scene.bot.trust.plaintext = vec![plain[1].clone()];
    let store: Store = scene.bot.store();
    let running = scene.bot.start().await;
    scene.bot.say(&store, &left, "here", None).await;
    scene.reads(&left, "here").await;
    let login = scene.synapse.login(&scene.account).await;
    let path = format!("/_matrix/client/v3/rooms/{left}/leave");
    scene.synapse.call(&login.access_token, http::Method::POST, &path, Some(json!({}))).await;

    let silent = scene.bot.say(&store, &plain[0], "not in the clear", None).await;
    let unreadable = scene.bot.say(&store, "not a room", "nowhere", None).await;
    let gone = scene.bot.say(&store, &left, "gone", None).await;
    scene.bot.say(&store, &plain[1], "in the clear", None).await;
    scene.bot.say(&store, &room, "in the room", None).await;
    assert!(scene.reads(&room, "in the room").await.encrypted);
    assert!(!scene.reads(&plain[1], "in the clear").await.encrypted);
    for row in [silent, unreadable, gone] {
        state(&scene.bot, row, "dropped").await;
    }
    assert_eq!(scene.notices(&plain[0]), Vec::<String>::new());
    running.stop().await;
}

#[tokio::test]
async fn what_is_refused_in_its_thread_goes_out_as_a_plain_reply() {
    let scene = Scene::on(synapse().await).await;
    let room = scene.room().await;
    let store = scene.bot.store();
    let running = scene.bot.start().await;
    let talk = scene.anna.send(&room, "good morning").await;
    // No homeserver begins a thread at an event that stands in a relation itself; it looks at what is not encrypted.
    let asked = json!({
        "msgtype": "m.text", "body": "status",
        "m.relates_to": { "rel_type": "m.thread", "event_id": talk.id },
    });
    let asked = scene.anna.send_raw(&room, "m.room.message", &asked).await;
    let answer = Outgoing {
        reply_to: Some(asked.id.clone()),
        thread: Some(asked.id.clone()),
        ..Outgoing::new("stopped".to_owned(), "<b>stopped</b>".to_owned())
    };
    let draft = Draft { txn: unique("txn"), room: room.clone(), payload: answer.json() };
    let row = store.say(None, Speech::New(draft), now()).await.expect("it is written");
    scene.bot.outbox.notify_one();

    let told = scene.reads(&room, "stopped").await;
    assert_eq!(told.content["m.relates_to"], json!({ "m.in_reply_to": { "event_id": asked.id } }));
    assert_eq!(state(&scene.bot, row, "sent").await.as_deref(), Some(told.id.as_str()));
    assert_eq!(scene.notices(&room), ["stopped"], "once");
    running.stop().await;
}
