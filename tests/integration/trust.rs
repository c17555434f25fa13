//! Whose word counts: real devices and identities, and what a homeserver or a thief could do with them.

use matrix_sdk::Client;
use matrix_sdk::config::SyncSettings;
use matrix_sdk::ruma::UserId;
use pilothouse::config::TrustMode;
use pilothouse::message::{Standing, Why};

use crate::support::bot::{DEADLINE, eventually, now};
use crate::support::person::{Person, RoomEvent, Sent};
use crate::support::{http, unique};
use crate::sync::Scene;

impl Scene {
    async fn standing(&self, sent: &Sent) -> Standing {
        self.arrives(&sent.id).await.standing
    }

    async fn objection(&self, sent: &Sent) -> Why {
        match self.standing(sent).await {
            Standing::Unproven(why) => why,
            counts => panic!("{} is {counts:?}", sent.id),
        }
    }

    /// Lets the bot say something, and gives it as Anna and somebody else see it.
    async fn seen_by_both(&self, room: &str, other: &Person) -> (RoomEvent, RoomEvent) {
        let text = unique("words");
        self.bot.say(&self.store, room, &text, None).await;
        let read = self.anna.expect(DEADLINE, |event| event.room == room && event.body() == text).await;
        (read.clone(), other.expect(DEADLINE, |event| event.id == read.id).await)
    }

    /// Lets Anna sign a device, and waits until that is seen.
    async fn sign(&self, device: &Person) {
        self.anna.sign_device(&device.device_id).await;
        eventually("the signature is seen", async || {
            let keys = self.store.keys(&self.anna.user_id).await.expect("the store answers");
            keys.devices.iter().any(|seen| seen.device == device.device_id && seen.signed).then_some(())
        })
        .await;
    }

    /// Lets the bot's account verify Anna, in another client.
    async fn verify_anna(&self) {
        let client = Client::builder().homeserver_url(self.synapse.url()).http_client(http()).build().await;
        let client = client.expect("a client");
        let login = client.matrix_auth().login_username(&self.account.localpart, &self.account.password);
        login.send().await.expect("it logs in");
        client.sync_once(SyncSettings::default()).await.expect("it syncs");
        let key = std::fs::read_to_string(self.bot.file("recovery.key")).expect("a key");
        client.encryption().recovery().recover(key.trim()).await.expect("it recovers");
        let anna = UserId::parse(&self.anna.user_id).expect("a user id");
        let identity = client.encryption().request_user_identity(&anna).await.expect("it is answered");
        identity.expect("an identity").verify().await.expect("it is signed");
    }

    /// Anna at another client, in the room already.
    async fn anna_again(&self, room: &str) -> Person {
        let again = Person::log_in(&self.synapse, &self.anna_account).await;
        again.member(room, &self.account.user_id, "join", DEADLINE).await;
        again
    }
}

#[tokio::test]
async fn a_device_counts_from_the_moment_that_its_owner_signs_it() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    assert_eq!(scene.standing(&scene.anna.send(&room, "status").await).await, Standing::Proven);

    let thief = scene.anna_again(&room).await;
    let unsigned = || Why::UnsignedDevice { device: thief.device_id.clone() };
    assert_eq!(scene.objection(&thief.send(&room, "start").await).await, unsigned());
    assert_eq!(scene.objection(&thief.send(&room, "start").await).await, unsigned());

    scene.sign(&thief).await;
    assert_eq!(scene.standing(&thief.send(&room, "start").await).await, Standing::Proven, "the same session");
    running.stop().await;
}

#[tokio::test]
async fn a_reset_identity_counts_when_somebody_accepts_it() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    assert_eq!(scene.standing(&scene.anna.send(&room, "status").await).await, Standing::Proven);
    let pinned = scene.store.keys(&scene.anna.user_id).await.expect("the store answers").pin.expect("a pin");

    let fingerprint = scene.anna.new_identity().await;
    assert_ne!(pinned.key, fingerprint);
    let store = &scene.store;
    eventually("the new identity is seen", async || {
        let keys = store.keys(&scene.anna.user_id).await.expect("the store answers");
        (keys.master.as_ref() == Some(&fingerprint)).then_some(())
    })
    .await;
    let changed = Why::IdentityChanged { fingerprint: fingerprint.clone() };
    assert_eq!(scene.objection(&scene.anna.send(&room, "start").await).await, changed, "the old session");
    scene.anna.rotate(&room).await;
    assert_eq!(scene.objection(&scene.anna.send(&room, "start").await).await, changed, "a new session");
    running.stop().await;

    // Over a restart the pin stays.
    let running = scene.start().await;
    assert_eq!(scene.objection(&scene.anna.send(&room, "start").await).await, changed);
    scene.store.repin(&scene.anna.user_id, None, &fingerprint, "@owner:test", now()).await.expect("the store answers");
    assert_eq!(scene.standing(&scene.anna.send(&room, "start").await).await, Standing::Proven);
    running.stop().await;
}

#[tokio::test]
async fn a_verified_person_who_resets_their_identity_makes_it_mute_for_nobody() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    assert_eq!(scene.standing(&scene.anna.send(&room, "status").await).await, Standing::Proven);
    scene.verify_anna().await;
    running.stop().await;
    // The keys of whoever speaks first after a start are asked for.
    let running = scene.start().await;
    assert_eq!(scene.standing(&scene.anna.send(&room, "status").await).await, Standing::Proven);

    let fingerprint = scene.anna.new_identity().await;
    scene.anna.rotate(&room).await;
    let changed = || Why::IdentityChanged { fingerprint: fingerprint.clone() };
    eventually("the new identity is seen", async || {
        let keys = scene.store.keys(&scene.anna.user_id).await.expect("the store answers");
        (keys.master.as_ref() == Some(&fingerprint)).then_some(())
    })
    .await;
    assert_eq!(scene.objection(&scene.anna.send(&room, "start").await).await, changed());
    assert!(scene.store.keys(&scene.anna.user_id).await.expect("the store answers").violated, "what `trust` shows");
    let reads = async |text: &str| {
        scene.bot.say(&scene.store, &room, text, None).await;
        scene.anna.expect(DEADLINE, |event| event.room == room && event.body() == text).await;
    };
    reads("refused").await;
    running.stop().await;

    // Met anew, by a database that has lost its pins: what was verified was another identity all the same.
    scene.sql("DELETE FROM pin; DELETE FROM identity_seen; DELETE FROM device_seen; DELETE FROM violation");
    let running = scene.start().await;
    assert_eq!(scene.objection(&scene.anna.send(&room, "start").await).await, changed());
    reads("refused again").await;
    assert!(scene.store.keys(&scene.anna.user_id).await.expect("the store answers").violated, "it is shown again");
    scene.store.repin(&scene.anna.user_id, None, &fingerprint, "@owner:test", now()).await.expect("the store answers");
    assert_eq!(scene.standing(&scene.anna.send(&room, "start").await).await, Standing::Proven);
    reads("done").await;
    running.stop().await;

    // Met anew once more, and verified by the bot's account: that is its word on the identity of now.
    scene.sql("DELETE FROM pin; DELETE FROM identity_seen; DELETE FROM device_seen");
    scene.verify_anna().await;
    let running = scene.start().await;
    assert_eq!(scene.standing(&scene.anna.send(&room, "start").await).await, Standing::Proven);
    assert!(!scene.store.keys(&scene.anna.user_id).await.expect("the store answers").violated);
    running.stop().await;
}

#[tokio::test]
async fn a_device_that_was_refused_does_not_count_because_the_mode_is_another() {
    let mut scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    assert_eq!(scene.standing(&scene.anna.send(&room, "status").await).await, Standing::Proven);
    let thief = scene.anna_again(&room).await;
    let refused = Why::UnsignedDevice { device: thief.device_id.clone() };
    assert_eq!(scene.objection(&thief.send(&room, "start").await).await, refused);
    running.stop().await;

    scene.bot.trust.mode = TrustMode::Devices;
    let running = scene.start().await;
    let new = Why::NewDevice { device: thief.device_id.clone(), fingerprint: thief.fingerprint.clone() };
    assert_eq!(scene.objection(&thief.send(&room, "start").await).await, new);
    assert_eq!(
        scene.standing(&scene.anna.send(&room, "start").await).await,
        Standing::Proven,
        "signed when it was met"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_configured_pin_comes_before_first_contact() {
    let mut scene = Scene::new().await;
    scene.bot.trust.pins.insert(scene.anna.user_id.clone(), "somebody else's key".to_owned());
    let running = scene.start().await;
    let room = scene.room().await;
    let Why::IdentityChanged { fingerprint } = scene.objection(&scene.anna.send(&room, "start").await).await else {
        panic!("another objection");
    };
    running.stop().await;

    scene.bot.trust.pins.insert(scene.anna.user_id.clone(), fingerprint);
    let running = scene.start().await;
    assert_eq!(scene.standing(&scene.anna.send(&room, "start").await).await, Standing::Proven);
    running.stop().await;
}

#[tokio::test]
async fn a_ciphertext_counts_once_and_a_text_as_often_as_it_is_said() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    let first = scene.anna.send(&room, "start").await;
    assert_eq!(scene.standing(&first).await, Standing::Proven);
    let again = scene.anna.send(&room, "start").await;
    assert_eq!(again.session, first.session);
    assert_eq!(scene.standing(&again).await, Standing::Proven, "said twice");
    let replay = scene.anna.send_raw(&room, &first.kind, &first.content).await;
    assert_eq!(scene.objection(&replay).await, Why::Replayed);

    // With a relation outside the ciphertext, which anybody can add.
    let mut related = first.content.clone();
    related["m.relates_to"] = serde_json::json!({"m.in_reply_to": {"event_id": again.id}});
    let related = scene.anna.send_raw(&room, &first.kind, &related).await;
    assert_eq!(scene.objection(&related).await, Why::Replayed);
    running.stop().await;

    // While it is away, and of a session that is over.
    scene.anna.rotate(&room).await;
    let fresh = scene.anna.send(&room, "stop").await;
    let replays = [
        scene.anna.send_raw(&room, &again.kind, &again.content).await,
        scene.anna.send_raw(&room, &fresh.kind, &fresh.content).await,
    ];
    let running = scene.start().await;
    assert_eq!(scene.standing(&fresh).await, Standing::Proven);
    for replay in &replays {
        assert_eq!(scene.objection(replay).await, Why::Replayed);
    }
    running.stop().await;

    // In a batch that is read from `/messages`.
    let texts: Vec<String> = (0..150).map(|number| format!("number {number}")).collect();
    let mut batch = vec![scene.anna.send(&room, "restart").await];
    let early = scene.anna.send_raw(&room, &batch[0].kind, &batch[0].content).await;
    batch.extend(scene.burst(&room, &texts).await);
    let late = scene.anna.send_raw(&room, &batch[0].kind, &batch[0].content).await;
    let running = scene.start().await;
    assert_eq!(scene.objection(&late).await, Why::Replayed);
    assert_eq!(scene.objection(&early).await, Why::Replayed);
    for sent in &batch {
        assert_eq!(scene.standing(sent).await, Standing::Proven);
    }
    running.stop().await;
}

#[tokio::test]
async fn nobody_speaks_for_somebody_else_or_in_the_clear() {
    let scene = Scene::new().await;
    let bert = Person::with_identity(&scene.synapse, &scene.synapse.register("bert").await).await;
    scene.allow(&[&bert.user_id]);
    let running = scene.start().await;
    let room = scene.room().await;
    scene.anna.invite(&room, &bert.user_id).await;
    bert.join(&room).await;
    scene.anna.member(&room, &bert.user_id, "join", DEADLINE).await;

    assert_eq!(scene.objection(&scene.anna.send_plain(&room, "start").await).await, Why::PlaintextEvent);
    let sent = scene.anna.send(&room, "start").await;
    assert_eq!(scene.standing(&sent).await, Standing::Proven);
    let stolen = bert.send_raw(&room, &sent.kind, &sent.content).await;
    assert_eq!(scene.objection(&stolen).await, Why::MismatchedSender);

    let plain = scene.anna.create_plain_room(&[&scene.account.user_id]).await;
    scene.comes(&plain).await;
    assert_eq!(scene.objection(&scene.anna.send_plain(&plain, "start").await).await, Why::PlaintextRoom);
    running.stop().await;
}

#[tokio::test]
async fn a_device_that_is_gone_says_nothing_any_more() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    let lost = scene.anna_again(&room).await;
    scene.anna.sign_device(&lost.device_id).await;
    running.stop().await;

    let sent = lost.send(&room, "start").await;
    lost.call(http::Method::POST, "/_matrix/client/v3/logout", serde_json::json!({})).await;
    let running = scene.start().await;
    assert_eq!(scene.objection(&sent).await, Why::UnknownDevice);
    running.stop().await;
}

#[tokio::test]
async fn without_cross_signing_the_mode_decides() {
    for mode in [TrustMode::Identity, TrustMode::Devices, TrustMode::Any] {
        let mut scene = Scene::new().await;
        scene.bot.trust.mode = mode;
        let account = scene.synapse.register("carl").await;
        let carl = Person::log_in(&scene.synapse, &account).await;
        scene.allow(&[&carl.user_id]);
        let running = scene.start().await;
        let room = carl.create_room(&[&scene.account.user_id]).await;
        carl.member(&room, &scene.account.user_id, "join", DEADLINE).await;
        let first = scene.standing(&carl.send(&room, "start").await).await;

        let second = Person::log_in(&scene.synapse, &account).await;
        second.member(&room, &scene.account.user_id, "join", DEADLINE).await;
        let later = scene.standing(&second.send(&room, "start").await).await;
        let new = Why::NewDevice { device: second.device_id.clone(), fingerprint: second.fingerprint.clone() };
        let expected = match mode {
            TrustMode::Identity => (Standing::Unproven(Why::NoIdentity), Standing::Unproven(Why::NoIdentity)),
            TrustMode::Devices => (Standing::Proven, Standing::Unproven(new)),
            TrustMode::Any => (Standing::Believed, Standing::Believed),
        };
        assert_eq!((first, later), expected, "mode {mode:?}");
        if mode == TrustMode::Devices {
            let (device, key) = (second.device_id.as_str(), second.fingerprint.as_str());
            scene.store.repin(&carl.user_id, Some(device), key, "@owner:test", now()).await.expect("the store answers");
            assert_eq!(scene.standing(&second.send(&room, "start").await).await, Standing::Proven);
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn where_identities_count_no_device_gets_a_key_that_its_owner_has_not_signed() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let room = scene.room().await;
    let thief = scene.anna_again(&room).await;
    let (_, stolen) = scene.seen_by_both(&room, &thief).await;
    assert_eq!((stolen.kind.as_str(), stolen.body()), ("m.room.encrypted", ""), "no key for an unsigned device");

    // Once it is signed it reads what is said from then on, in a session that it was given.
    scene.sign(&thief).await;
    let text = unique("words");
    scene.bot.say(&scene.store, &room, &text, None).await;
    thief.expect(DEADLINE, |event| event.body() == text).await;
    running.stop().await;
}

#[tokio::test]
async fn where_nothing_is_proven_everybody_in_the_room_can_read() {
    let mut scene = Scene::new().await;
    scene.bot.trust.mode = TrustMode::Any;
    let carl = Person::log_in(&scene.synapse, &scene.synapse.register("carl").await).await;
    scene.allow(&[&carl.user_id]);
    let running = scene.start().await;
    let room = scene.room().await;
    scene.anna.invite(&room, &carl.user_id).await;
    carl.join(&room).await;
    scene.anna.member(&room, &carl.user_id, "join", DEADLINE).await;
    let again = scene.anna_again(&room).await;
    // Who has no identity at all, and a device that nobody has signed.
    for reader in [&carl, &again] {
        let text = unique("words");
        scene.bot.say(&scene.store, &room, &text, None).await;
        let read = reader.expect(DEADLINE, |event| event.body() == text).await;
        assert!(read.encrypted);
    }
    running.stop().await;
}
