//! From a real encrypted room into the inbox: each message once, in order, whatever breaks on the way.

use std::sync::Arc;

use pilothouse::chat::{LAST_ROOM, home_room};
use pilothouse::message::{Address, Message, Outgoing, Standing};
use pilothouse::store::Store;
use serde_json::{Value, json};

use crate::support::bot::{Bot, DEADLINE, Running, eventually, now};
use crate::support::person::{Person, Seen, Sent};
use crate::support::synapse::{Account, Synapse, synapse};
use crate::support::unique;

/// A bot, a person whom it allows, and the inbox between them.
pub(crate) struct Scene {
    pub(crate) synapse: Arc<Synapse>,
    pub(crate) account: Account,
    pub(crate) bot: Bot,
    pub(crate) anna_account: Account,
    pub(crate) anna: Person,
    pub(crate) store: Store,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::on(synapse().await).await
    }

    pub(crate) async fn on(synapse: Arc<Synapse>) -> Self {
        let (account, anna_account) = (synapse.register("bot").await, synapse.register("anna").await);
        let bot = Bot::new(&synapse, &account);
        let anna = Person::with_identity(&synapse, &anna_account).await;
        let store = bot.store();
        let scene = Self { synapse, account, bot, anna_account, anna, store };
        scene.allow(&[]);
        scene
    }

    /// Allows Anna and these.
    pub(crate) fn allow(&self, others: &[&str]) {
        let users = [self.anna.user_id.as_str()].iter().chain(others).map(|&user| user.to_owned()).collect();
        self.bot.users.send_replace(Arc::new(users));
    }

    /// Starts the bot and waits for its first sync: from there on, what is said is not history.
    pub(crate) async fn start(&self) -> Running {
        let mut running = self.bot.start().await;
        let synced = running.health.wait_for(|health| health.synced_at.is_some());
        tokio::time::timeout(DEADLINE, synced).await.expect("it syncs in time").expect("it runs");
        running
    }

    /// An encrypted room to which Anna has invited the running bot, and it came.
    pub(crate) async fn room(&self) -> String {
        let room = self.anna.create_room(&[&self.account.user_id]).await;
        self.comes(&room).await;
        room
    }

    pub(crate) async fn comes(&self, room: &str) {
        self.anna.member(room, &self.account.user_id, "join", DEADLINE).await;
    }

    /// Everything in the inbox that can be read and was not looked at, in its order.
    pub(crate) async fn inbox(&self) -> Vec<Message> {
        let entries = self.store.received(10_000).await.expect("the store answers");
        entries.iter().map(|entry| serde_json::from_str(&entry.payload).expect("a message")).collect()
    }

    /// Waits for the message of an event.
    pub(crate) async fn arrives(&self, event: &str) -> Message {
        eventually(event, async || self.inbox().await.into_iter().find(|message| message.event == event)).await
    }

    /// Says something more, and waits until it is in the inbox: all before it was seen.
    pub(crate) async fn marker(&self, room: &str) -> String {
        let sent = self.anna.send(room, &unique("marker")).await;
        self.arrives(&sent.id).await;
        sent.id
    }

    /// Says many things in a row; in parts, because a busy machine answers a hundred at once late.
    pub(crate) async fn burst(&self, room: &str, texts: &[String]) -> Vec<Sent> {
        let mut sent = Vec::new();
        for part in texts.chunks(25) {
            sent.extend(self.anna.send_burst(room, part).await);
        }
        sent
    }

    pub(crate) fn sql(&self, statement: &str) {
        let database = rusqlite::Connection::open(self.bot.file("pilothouse.sqlite3")).expect("the database");
        database.execute_batch(statement).expect("it is written");
    }

    /// What is in the outbox for a room.
    pub(crate) async fn said(&self, room: &str) -> Vec<Outgoing> {
        let parcels = self.store.outgoing(now(), 1000).await.expect("the store answers");
        let ours = parcels.iter().filter(|parcel| parcel.room == room);
        ours.map(|parcel| serde_json::from_str(&parcel.payload).expect("words")).collect()
    }
}

fn events(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.event.as_str()).collect()
}

#[tokio::test]
async fn a_text_is_in_the_inbox_as_it_was_meant() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;

    let sent = scene.anna.send(&room, " start web ").await;
    let message = scene.arrives(&sent.id).await;
    assert_eq!(message.who, scene.anna.user_id);
    assert_eq!((message.room.as_str(), message.text.as_str()), (room.as_str(), "start web"));
    assert_eq!(message.device.as_ref(), Some(&scene.anna.device_id));
    assert_eq!((&message.standing, message.address), (&Standing::Proven, Address::Bare));
    let receipt = scene.anna.expect_seen(DEADLINE, |seen| match seen {
        Seen::Receipt { event, user, .. } if *user == scene.account.user_id => Some(event.clone()),
        _ => None,
    });
    assert_eq!(receipt.await, sent.id, "a read receipt at once");

    // With three in the room, what is meant for the bot says so.
    let bert = Person::with_identity(&scene.synapse, &scene.synapse.register("bert").await).await;
    scene.anna.invite(&room, &bert.user_id).await;
    bert.join(&room).await;
    scene.anna.member(&room, &bert.user_id, "join", DEADLINE).await;
    let overheard = scene.anna.send(&room, "start").await;
    let named = scene.anna.send(&room, "Pilothouse: start").await;
    let mentioned = scene.anna.send_mentioning(&room, "start web", &[&scene.account.user_id]).await;
    let text = |message: Message| (message.address, message.text);
    assert_eq!(text(scene.arrives(&overheard.id).await), (Address::Overheard, "start".to_owned()));
    assert_eq!(text(scene.arrives(&named.id).await), (Address::Mentioned, "start".to_owned()));
    assert_eq!(text(scene.arrives(&mentioned.id).await), (Address::Mentioned, "start web".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_text_of_an_allowed_person_leaves_nothing() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    let stranger = Person::with_identity(&scene.synapse, &scene.synapse.register("stranger").await).await;
    scene.anna.invite(&room, &stranger.user_id).await;
    stranger.join(&room).await;
    scene.anna.member(&room, &stranger.user_id, "join", DEADLINE).await;

    let first = scene.marker(&room).await;
    scene.anna.send_edit(&room, &first, "start").await;
    scene.anna.send_notice(&room, "start").await;
    scene.anna.send_content(&room, json!({"msgtype": "m.emote", "body": "start"})).await;
    scene.anna.react(&room, &first, "start").await;
    let hidden_edit =
        json!({"msgtype": "m.text", "body": "start", "m.new_content": {"msgtype": "m.text", "body": "start"}});
    scene.anna.send_content(&room, hidden_edit).await;
    stranger.send(&room, "start").await;
    stranger.send_plain(&room, "start").await;
    let unreadable = stranger.send_without_key(&room, "start").await;
    scene.anna.expect(DEADLINE, |event| event.id == unreadable.id).await;
    let last = scene.marker(&room).await;

    assert_eq!(events(&scene.inbox().await), [first, last]);
    assert_eq!(scene.store.waiting().await.expect("the store answers"), []);
    running.stop().await;
}

#[tokio::test]
async fn a_burst_while_it_was_away_arrives_once_and_in_order() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    let before = scene.marker(&room).await;
    running.stop().await;

    let texts: Vec<String> = (0..200).map(|number| format!("start {number}")).collect();
    let sent = scene.burst(&room, &texts).await;
    let running = scene.start().await;
    scene.arrives(&sent[199].id).await;
    let after = scene.marker(&room).await;

    let inbox = scene.inbox().await;
    let sent: Vec<&str> = sent.iter().map(|sent| sent.id.as_str()).collect();
    assert_eq!(events(&inbox), [&[before.as_str()], &sent[..], &[after.as_str()]].concat());
    assert!(inbox.iter().all(|message| message.standing == Standing::Proven));
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_was_lost_after_the_sdk_had_it_is_read_again() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    let position = scene.store.cursor("sync").await.expect("the store answers").expect("a position");
    let texts: Vec<String> = (0..5).map(|number| format!("start {number}")).collect();
    let sent = scene.anna.send_burst(&room, &texts).await;
    scene.arrives(&sent[4].id).await;
    running.stop().await;

    // As if it had been killed after the SDK saved its position and before the inbox was written, but for one message. What
    // lies before the position is long forgotten by the inbox too, and not read again.
    scene.sql(&format!("DELETE FROM inbox WHERE event <> '{0}'; DELETE FROM replay WHERE event <> '{0}'", sent[0].id));
    scene.store.set_cursor("sync", &position).await.expect("the store answers");
    let running = scene.start().await;
    scene.arrives(&sent[4].id).await;
    let after = scene.marker(&room).await;
    let inbox = scene.inbox().await;
    let sent: Vec<&str> = sent.iter().map(|sent| sent.id.as_str()).collect();
    assert_eq!(events(&inbox), [&sent[..], &[after.as_str()]].concat());
    assert!(inbox.iter().all(|message| message.standing == Standing::Proven), "{inbox:?}");
    running.stop().await;
}

#[tokio::test]
async fn history_from_before_it_came_is_not_acted_on() {
    let mut scene = Scene::new().await;
    let alias = unique("alias");
    scene.bot.matrix.rooms = vec![format!("#{alias}:pilothouse.test")];
    let room = scene.anna.create_room_with(json!({"room_alias_name": alias})).await;
    scene.bot.trust.plaintext = vec![room.clone()];
    scene.anna.send_plain(&room, "before the first start").await;
    let running = scene.start().await;
    scene.anna.send_plain(&room, "before it came").await;
    scene.anna.invite(&room, &scene.account.user_id).await;
    scene.comes(&room).await;
    let first = scene.anna.send_plain(&room, "right after it came").await;
    let message = scene.arrives(&first.id).await;
    assert_eq!(message.standing, Standing::Believed, "the configuration allows plaintext there");
    running.stop().await;

    // The way back through `/messages` ends there too.
    let position = scene.store.cursor("sync").await.expect("the store answers").expect("a position");
    let (_, rest) = position.split_once('_').expect("a position of Synapse");
    scene.store.set_cursor("sync", &format!("s0_{rest}")).await.expect("the store answers");
    scene.sql("DELETE FROM inbox");
    let running = scene.start().await;
    assert_eq!(scene.arrives(&first.id).await.standing, Standing::Believed);
    assert_eq!(events(&scene.inbox().await), [first.id]);
    running.stop().await;
}

#[tokio::test]
async fn a_late_key_brings_the_message_back_over_a_restart() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    let waits = async |event: String| {
        let waiting = async || scene.store.waiting().await.expect("the store answers");
        eventually("it waits", async || waiting().await.into_iter().find(|entry| entry.event == event)).await
    };

    let late = scene.anna.send_without_key(&room, "start").await;
    waits(late.id.clone()).await;
    scene.anna.deliver_key(&late).await;
    let message = scene.arrives(&late.id).await;
    assert_eq!((message.text.as_str(), &message.standing), ("start", &Standing::Proven));

    let later = scene.anna.send_without_key(&room, "stop").await;
    waits(later.id.clone()).await;
    running.stop().await;
    scene.anna.deliver_key(&later).await;
    let running = scene.start().await;
    assert_eq!(scene.arrives(&later.id).await.standing, Standing::Proven);

    // Nobody waits a minute here: the message has waited one already, and a day.
    let never = scene.anna.send_without_key(&room, "status").await;
    waits(never.id.clone()).await;
    running.stop().await;
    scene.sql("UPDATE inbox SET received_at = received_at - 61000 WHERE state = 'waiting'");
    let running = scene.start().await;
    let asks = scene.anna.expect(DEADLINE, |event| event.is_notice() && event.replies_to() == Some(&never.id)).await;
    assert!(asks.body().contains("send it again"), "{}", asks.body());
    running.stop().await;
    scene.sql("UPDATE inbox SET received_at = received_at - 86400000 WHERE state = 'waiting'");
    let running = scene.start().await;
    eventually("it is closed", async || {
        let waiting = scene.store.waiting().await.expect("the store answers");
        waiting.is_empty().then_some(())
    })
    .await;
    let asked = scene.anna.events(&room).into_iter().filter(|event| event.replies_to() == Some(&never.id)).count();
    assert_eq!(asked, 1, "asked once");
    running.stop().await;
}

#[tokio::test]
async fn it_follows_allowed_people_in_and_out_and_declines_others() {
    let mut scene = Scene::new().await;
    let stranger = Person::with_identity(&scene.synapse, &scene.synapse.register("stranger").await).await;
    let us = scene.account.user_id.clone();

    // Invited before it ran for the first time.
    let early = scene.anna.create_room(&[&us]).await;
    let foreign = stranger.create_room(&[&us]).await;
    let running = scene.start().await;
    scene.comes(&early).await;
    stranger.member(&foreign, &us, "leave", DEADLINE).await;

    scene.anna.invite(&early, &stranger.user_id).await;
    stranger.join(&early).await;
    scene.anna.leave(&early).await;
    stranger.member(&early, &us, "leave", DEADLINE).await;

    // Nobody allowed is left, by the rules.
    let room = scene.room().await;
    scene.bot.users.send_replace(Arc::new(vec![stranger.user_id.clone()]));
    scene.anna.member(&room, &us, "leave", DEADLINE).await;
    running.stop().await;

    // Where rooms are named, others are declined.
    scene.allow(&[]);
    let alias = unique("alias");
    scene.bot.matrix.rooms = vec![format!("#{alias}:pilothouse.test")];
    let running = scene.start().await;
    let other = scene.anna.create_room(&[&us]).await;
    scene.anna.member(&other, &us, "leave", DEADLINE).await;
    let named = scene.anna.create_room_with(json!({"room_alias_name": alias, "invite": [us]})).await;
    scene.comes(&named).await;
    running.stop().await;
}

#[tokio::test]
async fn it_follows_a_room_upgrade() {
    let mut scene = Scene::new().await;
    let running = scene.start().await;
    let open = json!({
        "preset": "public_chat", "invite": [scene.account.user_id], "room_version": "10",
        "initial_state": [
            {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}},
        ],
    });
    let room = scene.anna.create_room_with(open).await;
    scene.comes(&room).await;
    scene.marker(&room).await;
    scene.store.set_cursor(LAST_ROOM, &room).await.expect("the store answers");
    let next = scene.anna.upgrade(&room, "11").await;
    scene.comes(&next).await;
    let news = async || home_room(&scene.store, None).await.expect("the store answers");
    eventually("news goes there", async || (news().await.as_ref() == Some(&next)).then_some(())).await;
    let sent = scene.anna.send(&next, "status").await;
    assert_eq!(scene.arrives(&sent.id).await.standing, Standing::Proven);

    // Whoever leaves tells no news there.
    scene.anna.leave(&next).await;
    eventually("news goes nowhere", async || news().await.is_none().then_some(())).await;

    // Where the new room is closed, the invitation opens it, though the configuration names the old one alone.
    let closed = scene.room().await;
    running.stop().await;
    scene.bot.matrix.rooms = vec![closed.clone()];
    let running = scene.start().await;
    let us = &scene.account.user_id;
    let other = scene.anna.create_room(&[us]).await;
    scene.anna.member(&other, us, "leave", DEADLINE).await;
    let next = scene.anna.upgrade(&closed, "11").await;
    scene.anna.invite(&next, us).await;
    scene.comes(&next).await;
    running.stop().await;
}

#[tokio::test]
async fn another_home_room_in_the_configuration_is_not_answered_by_the_one_of_before() {
    let mut scene = Scene::new().await;
    let running = scene.start().await;
    let (first, alias) = (scene.room().await, unique("alias"));
    let second =
        scene.anna.create_room_with(json!({"room_alias_name": alias, "invite": [scene.account.user_id]})).await;
    scene.comes(&second).await;
    running.stop().await;
    let home = async |name: &str| home_room(&scene.store, Some(name)).await.expect("the store answers");
    let alias = format!("#{alias}:pilothouse.test");
    let name = async |name: &str, bot: &mut Bot, room: &str| {
        bot.matrix.home_room = Some(name.to_owned());
        let running = bot.start().await;
        eventually("it is noted", async || (home(name).await.as_deref() == Some(room)).then_some(())).await;
        running.stop().await;
    };
    name(&first, &mut scene.bot, &first).await;
    // Before the first sync of the next start.
    assert_eq!(home(&second).await.as_ref(), Some(&second));
    assert_eq!(home(&alias).await, None, "until it is known");
    name(&alias, &mut scene.bot, &second).await;
    assert_eq!(home(&first).await.as_ref(), Some(&first));
}

#[tokio::test]
async fn a_homeserver_that_goes_away_loses_nothing_and_is_told_of() {
    let synapse = Arc::new(Synapse::start(Value::Object(serde_json::Map::new())).await);
    let mut scene = Scene::on(synapse).await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    running.stop().await;
    scene.bot.matrix.home_room = Some(room.clone());

    let mut running = scene.start().await;
    scene.synapse.stop();
    let trouble = running.health.wait_for(|health| health.trouble.is_some());
    tokio::time::timeout(DEADLINE, trouble).await.expect("it is noticed").expect("it runs");
    scene.synapse.restart().await;
    let well = running.health.wait_for(|health| health.trouble.is_none());
    tokio::time::timeout(DEADLINE, well).await.expect("it comes back").expect("it runs");
    let first = scene.marker(&room).await;
    running.stop().await;

    // Away for twelve minutes, as far as it can know.
    let sent = scene.anna.send(&room, "start").await;
    let then = now().as_millisecond() - 12 * 60 * 1000 - 5000;
    scene.store.set_cursor("synced_at", &then.to_string()).await.expect("the store answers");
    let running = scene.start().await;
    scene.arrives(&sent.id).await;
    let told = |event: &crate::support::person::RoomEvent| event.is_notice() && event.body().contains("Back after");
    let told = scene.anna.expect(DEADLINE, told).await;
    assert_eq!(told.body(), "📡 Back after 12 min. One message waited.");
    assert!(events(&scene.inbox().await).contains(&first.as_str()));
    running.stop().await;
}

#[tokio::test]
async fn without_a_store_nothing_is_acted_on_and_nothing_is_lost() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;

    let database = rusqlite::Connection::open(scene.bot.file("pilothouse.sqlite3")).expect("the database");
    database.execute_batch("BEGIN IMMEDIATE").expect("it is locked");
    let sent = scene.anna.send(&room, "start").await;
    let trouble = running.health.wait_for(|health| health.trouble.is_some());
    let health = tokio::time::timeout(DEADLINE, trouble).await.expect("it is noticed").expect("it runs").clone();
    assert!(health.trouble.as_ref().is_some_and(|trouble| trouble.contains("nothing is acted on")), "{health:?}");
    // Who invites it is followed all the same, and not looked over minutes later.
    let invited = scene.anna.create_room(&[&scene.account.user_id]).await;
    scene.comes(&invited).await;
    database.execute_batch("ROLLBACK").expect("it is open");

    scene.arrives(&sent.id).await;
    let well = running.health.wait_for(|health| health.trouble.is_none());
    tokio::time::timeout(DEADLINE, well).await.expect("it is well again").expect("it runs");
    assert_eq!(scene.said(&room).await, []);
    running.stop().await;
}
