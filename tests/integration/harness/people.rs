//! People who talk, sign, forget, and misbehave.

use std::time::Duration;

use matrix_sdk::Client;
use matrix_sdk::ruma::{OwnedDeviceId, UserId};
use serde_json::json;

use crate::support::person::{Person, Seen};
use crate::support::synapse::{Account, Synapse, synapse};

const DEADLINE: Duration = Duration::from_mins(3);

/// Two people with identities in an encrypted room.
async fn two_in_a_room(synapse: &Synapse) -> (Person, Person, String) {
    let (alice, bob) = (synapse.register("alice").await, synapse.register("bob").await);
    let (alice, bob) = tokio::join!(Person::with_identity(synapse, &alice), Person::with_identity(synapse, &bob));
    let room = alice.create_room(&[&bob.user_id]).await;
    let invited = bob.expect_seen(DEADLINE, |seen| match seen {
        Seen::Invite { room, sender } => Some((room.clone(), sender.clone())),
        _ => None,
    });
    assert_eq!(invited.await, (room.clone(), alice.user_id.clone()));
    bob.join(&room).await;
    alice.member(&room, &bob.user_id, "join", DEADLINE).await;
    (alice, bob, room)
}

#[tokio::test]
async fn two_people_talk_encrypted_in_order() {
    let (alice, bob, room) = two_in_a_room(&*synapse().await).await;
    let texts: Vec<String> = (0..20).map(|number| format!("number {number}")).collect();
    let sent = alice.send_burst(&room, &texts).await;
    assert!(sent.iter().all(|sent| sent.kind == "m.room.encrypted" && sent.started_at <= sent.acknowledged_at));
    let last = bob.expect(DEADLINE, |event| event.id == sent[19].id).await;
    assert!(last.encrypted && last.seen_at >= sent[0].started_at && last.sent_at > 0.0);
    let read = bob.events(&room).into_iter().filter(|event| event.sender == alice.user_id && event.encrypted);
    assert_eq!(read.map(|event| event.body().to_owned()).collect::<Vec<_>>(), texts);

    // The answer of a bot, and its edit.
    let answer = json!({
        "msgtype": "m.notice", "body": "starting", "format": "org.matrix.custom.html", "formatted_body": "<b>starting</b>",
        "m.relates_to": {"m.in_reply_to": {"event_id": sent[0].id}},
    });
    let answer = bob.send_content(&room, answer).await;
    let notice = alice.expect_reply(&sent[0], DEADLINE).await;
    assert_eq!((notice.body(), notice.html()), ("starting", "<b>starting</b>"));
    bob.send_edit(&room, &answer.id, "ready").await;
    let edit = alice.expect_text(&notice, "ready", DEADLINE).await;
    assert_eq!(edit.edits(), Some(answer.id.as_str()));
}

#[tokio::test]
async fn a_person_sends_what_is_no_command() {
    let (alice, bob, room) = two_in_a_room(&*synapse().await).await;
    let plain = alice.send_plain(&room, "start").await;
    assert!(!bob.expect(DEADLINE, |event| event.id == plain.id).await.encrypted);
    let notice = alice.send_notice(&room, "start").await;
    assert!(bob.expect(DEADLINE, |event| event.id == notice.id).await.is_notice());
    let mention = alice.send_mentioning(&room, "start", &[&bob.user_id]).await;
    let mention = bob.expect(DEADLINE, |event| event.id == mention.id).await;
    assert_eq!(mention.content["m.mentions"]["user_ids"], json!([bob.user_id]));
    let reaction = alice.react(&room, &plain.id, "👍").await;
    assert_eq!(bob.expect(DEADLINE, |event| event.id == reaction.id).await.kind, "m.reaction");

    bob.room_call(&room, &format!("receipt/m.read/{}", plain.id), json!({})).await;
    let read = alice.expect_seen(DEADLINE, |seen| match seen {
        Seen::Receipt { room, event, user } => Some((room.clone(), event.clone(), user.clone())),
        _ => None,
    });
    assert_eq!(read.await, (room.clone(), plain.id, bob.user_id.clone()));
    let typing = json!({"typing": true, "timeout": 10_000});
    let path = format!("/_matrix/client/v3/rooms/{room}/typing/{}", bob.user_id);
    bob.call(http::Method::PUT, &path, typing).await;
    let typing = alice.expect_seen(DEADLINE, |seen| match seen {
        Seen::Typing { room, users } => Some((room.clone(), users.clone())),
        _ => None,
    });
    assert_eq!(typing.await, (room.clone(), vec![bob.user_id.clone()]));

    bob.leave(&room).await;
    alice.member(&room, &bob.user_id, "leave", DEADLINE).await;
}

#[tokio::test]
async fn a_late_key_makes_a_message_readable_and_a_replay_reaches_the_room() {
    let (alice, bob, room) = two_in_a_room(&*synapse().await).await;
    let late = alice.send_without_key(&room, "late").await;
    let unreadable = bob.expect(DEADLINE, |event| event.id == late.id).await;
    assert_eq!((unreadable.kind.as_str(), &unreadable.session), ("m.room.encrypted", &late.session));
    alice.deliver_key(&late).await;
    bob.expect(DEADLINE, |event| event.id == late.id && event.body() == "late").await;

    let again = alice.send(&room, "again").await;
    bob.expect(DEADLINE, |event| event.id == again.id && event.body() == "again").await;
    let replay = alice.send_raw(&room, &again.kind, &again.content).await;
    let replayed = bob.expect(DEADLINE, |event| event.id == replay.id).await;
    assert_eq!(replayed.content["ciphertext"], again.content["ciphertext"]);

    alice.rotate(&room).await;
    let fresh = alice.send(&room, "fresh").await;
    assert_ne!(fresh.session, again.session);
    bob.expect(DEADLINE, |event| event.id == fresh.id && event.body() == "fresh").await;
}

#[tokio::test]
async fn a_room_is_upgraded() {
    let (alice, bob, room) = two_in_a_room(&*synapse().await).await;
    let next = alice.upgrade(&room, "11").await;
    assert_eq!(bob.expect(DEADLINE, |event| event.kind == "m.room.tombstone").await.content["replacement_room"], next);
    alice.invite(&next, &bob.user_id).await;
    bob.join(&next).await;
    let sent = alice.send(&next, "here").await;
    bob.expect(DEADLINE, |event| event.id == sent.id && event.body() == "here").await;
    let plain = alice.create_plain_room(&[&bob.user_id]).await;
    bob.join(&plain).await;
}

/// What the daemon's own library makes of somebody: the master key, and whether the device is signed by it.
async fn judged(client: &Client, person: &Person) -> (Option<String>, bool) {
    let user = <&UserId>::try_from(person.user_id.as_str()).expect("a user id");
    let identity = client.encryption().request_user_identity(user).await.expect("the homeserver answers");
    let device = OwnedDeviceId::from(person.device_id.as_str());
    let device = client.encryption().get_device(user, &device).await.expect("the store answers").expect("a device");
    assert_eq!(device.ed25519_key().map(|key| key.to_base64()).as_ref(), Some(&person.fingerprint));
    let master = identity.and_then(|identity| Some(identity.master_key().get_first_key()?.to_base64()));
    (master, device.is_cross_signed_by_owner())
}

async fn observer(synapse: &Synapse, account: &Account) -> Client {
    let client = Client::builder().homeserver_url(synapse.url()).build().await.expect("a client");
    client.matrix_auth().login_username(&account.localpart, &account.password).send().await.expect("a login");
    client
}

#[tokio::test]
async fn an_identity_signs_devices_and_is_reset() {
    let synapse = synapse().await;
    let observer = observer(&synapse, &synapse.register("observer").await).await;
    let account = synapse.register("alice").await;
    let first = Person::log_in(&synapse, &account).await;
    assert_eq!(judged(&observer, &first).await, (None, false));

    let master = first.new_identity().await;
    assert_eq!(judged(&observer, &first).await, (Some(master.clone()), true));

    let second = Person::log_in(&synapse, &account).await;
    assert_eq!(judged(&observer, &second).await, (Some(master.clone()), false));
    first.sign_device(&second.device_id).await;
    assert_eq!(judged(&observer, &second).await, (Some(master.clone()), true));

    let reset = first.new_identity().await;
    assert_ne!(reset, master);
    assert_eq!(judged(&observer, &first).await, (Some(reset.clone()), true));
    assert_eq!(judged(&observer, &second).await, (Some(reset), false));
    assert!(!second.access_token.is_empty());
}
