//! What waits: messages without their key, invitations without their alias, devices without their keys.

use http::Method;
use pilothouse::message::{Address, Standing};
use serde_json::json;

use crate::support::bot::{DEADLINE, eventually};
use crate::support::person::{Person, Sent};
use crate::support::proxy::{Answer, Proxy};
use crate::support::unique;
use crate::sync::Scene;

impl Scene {
    /// Waits until a message is in the inbox without its key.
    async fn waits(&self, sent: &Sent) {
        let waiting = async || self.store.waiting().await.expect("the store answers");
        eventually("it waits", async || waiting().await.into_iter().find(|entry| entry.event == sent.id)).await;
    }

    /// Waits until no message waits any more.
    async fn nothing_waits(&self) {
        eventually("nothing waits", async || {
            self.store.waiting().await.expect("the store answers").is_empty().then_some(())
        })
        .await;
    }

    /// Lets every request of the bot pass a proxy.
    async fn proxied(&mut self) -> Proxy {
        let proxy = Proxy::before(&self.synapse).await;
        self.bot.matrix.homeserver = proxy.url();
        proxy
    }
}

#[tokio::test]
async fn what_waited_when_the_matrix_store_was_lost_is_asked_for_again() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    let sent = scene.anna.send_without_key(&room, "start").await;
    scene.waits(&sent).await;
    running.stop().await;

    // The documented way out of a lost Matrix store.
    for file in ["session.json", "store.key"] {
        std::fs::remove_file(scene.bot.file(file)).expect("deleted");
    }
    std::fs::remove_dir_all(scene.bot.file("matrix")).expect("deleted");
    scene.sql("UPDATE inbox SET received_at = received_at - 61000 WHERE state = 'waiting'");
    let running = scene.start().await;
    let asks = scene.anna.expect(DEADLINE, |event| event.is_notice() && event.replies_to() == Some(&sent.id)).await;
    assert!(asks.body().contains("send it again"), "{}", asks.body());
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_was_deleted_while_it_waited_is_neither_done_nor_asked_for() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    let delete = async |sent: &Sent| {
        let path = format!("/_matrix/client/v3/rooms/{room}/redact/{}/{}", sent.id, unique("txn"));
        scene.anna.call(Method::PUT, &path, json!({})).await;
    };
    let sent = scene.anna.send_without_key(&room, "start").await;
    scene.waits(&sent).await;
    delete(&sent).await;
    scene.anna.deliver_key(&sent).await;
    scene.nothing_waits().await;

    scene.anna.rotate(&room).await;
    let other = scene.anna.send_without_key(&room, "stop").await;
    scene.waits(&other).await;
    running.stop().await;
    delete(&other).await;
    scene.sql("UPDATE inbox SET received_at = received_at - 61000 WHERE state = 'waiting'");
    let running = scene.start().await;
    scene.nothing_waits().await;
    let inbox = scene.inbox().await;
    assert!(inbox.iter().all(|message| message.event != sent.id && message.event != other.id), "{inbox:?}");
    running.stop().await;
    let asked = |event: &str| scene.anna.events(&room).iter().any(|said| said.replies_to() == Some(event));
    assert!(!asked(&sent.id) && !asked(&other.id));
}

#[tokio::test]
async fn what_no_key_opens_is_not_passed_over_in_silence() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    let good = scene.anna.send(&room, "status").await;
    scene.arrives(&good.id).await;
    let broken = async |at: usize| {
        let mut content = good.content.clone();
        let mut sealed: Vec<char> = content["ciphertext"].as_str().expect("a ciphertext").chars().collect();
        sealed[at] = if sealed[at] == 'A' { 'B' } else { 'A' };
        content["ciphertext"] = json!(sealed.iter().collect::<String>());
        let sent = scene.anna.send_raw(&room, &good.kind, &content).await;
        scene.waits(&sent).await;
        sent
    };
    // The key is here: that one of them cannot be read says nothing of the other.
    let middle = good.content["ciphertext"].as_str().expect("a ciphertext").len() / 2;
    let both = [broken(middle).await, broken(middle + 1).await];
    running.stop().await;
    scene.sql("UPDATE inbox SET received_at = received_at - 61000 WHERE state = 'waiting'");
    let running = scene.start().await;
    for sent in both {
        let asks = scene.anna.expect(DEADLINE, |event| event.is_notice() && event.replies_to() == Some(&sent.id)).await;
        assert!(asks.body().contains("send it again"), "{}", asks.body());
    }
    running.stop().await;
}

#[tokio::test]
async fn a_late_message_that_always_fails_holds_up_no_other_of_its_room() {
    let mut scene = Scene::new().await;
    let proxy = scene.proxied().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    let first = scene.anna.send_without_key(&room, "status").await;
    scene.waits(&first).await;
    scene.anna.rotate(&room).await;
    let second = scene.anna.send_without_key(&room, "version").await;
    scene.waits(&second).await;

    // Whether it is still there is asked when its key has come.
    let path: &'static str = Box::leak(first.id.trim_start_matches('$').to_owned().into_boxed_str());
    proxy.fail(path, Answer::page(502));
    scene.anna.deliver_key(&first).await;
    eventually("it is asked for", async || (proxy.count(&Method::GET, path) > 0).then_some(())).await;
    scene.anna.deliver_key(&second).await;
    assert_eq!(scene.arrives(&second.id).await.text, "version");
    let waiting = scene.store.waiting().await.expect("the store answers");
    assert_eq!(waiting.iter().map(|entry| entry.event.as_str()).collect::<Vec<_>>(), [first.id.as_str()]);

    proxy.mend();
    assert_eq!(scene.arrives(&first.id).await.text, "status");
    running.stop().await;
}

#[tokio::test]
async fn an_invitation_waits_for_the_alias_that_may_name_its_room() {
    let mut scene = Scene::new().await;
    let proxy = scene.proxied().await;
    let (alias, us) = (unique("alias"), scene.account.user_id.clone());
    scene.bot.matrix.rooms = vec![format!("#{alias}:pilothouse.test")];
    proxy.fail("/directory/room/", Answer::page(502));
    let running = scene.start().await;
    let named = scene.anna.create_room_with(json!({"room_alias_name": alias, "invite": [us]})).await;
    // Answered before the invitation that counts would be, had it been declined.
    let stranger = Person::with_identity(&scene.synapse, &scene.synapse.register("stranger").await).await;
    let foreign = stranger.create_room(&[&us]).await;
    stranger.member(&foreign, &us, "leave", DEADLINE).await;
    proxy.mend();
    // What makes the rooms be looked over.
    scene.allow(&[]);
    scene.comes(&named).await;
    let declined = scene
        .anna
        .events(&named)
        .into_iter()
        .filter(|event| event.kind == "m.room.member" && event.content["membership"] == "leave");
    assert_eq!(declined.count(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_room_is_no_successor_by_its_own_word() {
    let mut scene = Scene::new().await;
    let (us, named) = (scene.account.user_id.clone(), scene.anna.create_room(&[&scene.account.user_id]).await);
    scene.bot.matrix.rooms = Vec::new();
    let running = scene.start().await;
    scene.comes(&named).await;
    running.stop().await;

    // Joined while any room would do, and spoken in when only the named one does.
    let running = scene.start().await;
    let claims = scene
        .anna
        .create_room_with(json!({
            "invite": [us], "creation_content": {"predecessor": {"room_id": named, "event_id": "$none"}},
            "initial_state": [
                {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}},
            ],
        }))
        .await;
    scene.comes(&claims).await;
    let third = Person::with_identity(&scene.synapse, &scene.synapse.register("third").await).await;
    scene.anna.invite(&claims, &third.user_id).await;
    third.join(&claims).await;
    scene.anna.member(&claims, &third.user_id, "join", DEADLINE).await;
    running.stop().await;
    scene.bot.matrix.rooms = vec![named];
    let running = scene.start().await;
    let sent = scene.anna.send(&claims, "start").await;
    assert_eq!(scene.arrives(&sent.id).await.address, Address::Overheard);
    running.stop().await;
}

#[tokio::test]
async fn a_new_device_is_judged_when_its_keys_can_be_asked_for() {
    let mut scene = Scene::new().await;
    let proxy = scene.proxied().await;
    let running = scene.start().await;
    let (room, other) = (scene.room().await, scene.room().await);
    scene.marker(&room).await;
    scene.marker(&other).await;

    proxy.fail("/keys/query", Answer::page(502));
    let again = Person::log_in(&scene.synapse, &scene.anna_account).await;
    again.member(&room, &scene.account.user_id, "join", DEADLINE).await;
    scene.anna.sign_device(&again.device_id).await;
    let sent = again.send(&room, "start").await;
    eventually("its room waits", async || {
        scene.store.gaps().await.expect("the store answers").contains_key(&room).then_some(())
    })
    .await;
    // No other room does, and none is called deaf.
    scene.marker(&other).await;
    assert_eq!(running.health.borrow().trouble, None);
    assert!(scene.inbox().await.iter().all(|message| message.event != sent.id));
    proxy.mend();
    assert_eq!(scene.arrives(&sent.id).await.standing, Standing::Proven);
    running.stop().await;
}

#[tokio::test]
async fn a_text_may_be_said_again_although_its_first_event_could_not_be_looked_at_in_time() {
    let mut scene = Scene::new().await;
    let proxy = scene.proxied().await;
    let running = scene.start().await;
    let room = scene.room().await;
    scene.marker(&room).await;
    proxy.fail("/event/", Answer::page(502));
    let looked = proxy.count(&Method::GET, "/event/");
    let first = scene.anna.send(&room, "start").await;
    scene.arrives(&first.id).await;
    eventually("it is looked at", async || (proxy.count(&Method::GET, "/event/") > looked).then_some(())).await;
    running.stop().await;

    proxy.mend();
    let running = scene.start().await;
    eventually("it is made up for", async || {
        let missing = scene.store.unindexed(100).await.expect("the store answers");
        missing.iter().all(|missing| missing.event != first.id).then_some(())
    })
    .await;
    let path = format!("/_matrix/client/v3/rooms/{room}/redact/{}/{}", first.id, unique("txn"));
    scene.anna.call(Method::PUT, &path, json!({})).await;
    let again = scene.anna.send(&room, "start").await;
    assert_eq!(again.session, first.session);
    assert_eq!(scene.arrives(&again.id).await.standing, Standing::Proven);
    running.stop().await;
}
