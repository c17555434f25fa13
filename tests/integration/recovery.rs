//! The own device signed, and the identity recoverable, over starts that are cut off and keys that do not fit.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pilothouse::chat::{Advice, OpenError};
use pilothouse::config::Secret;
use serde_json::{Value, json};

use crate::session::{is_signed, keys};
use crate::support::bot::{Bot, empty, eventually};
use crate::support::proxy::{Answer, Proxy};
use crate::support::synapse::{Account, Synapse, synapse};

/// A bot that has not started yet; every request of it passes a proxy.
async fn proxied() -> (Arc<Synapse>, Account, Proxy, Bot) {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let proxy = Proxy::before(&synapse).await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.homeserver = proxy.url();
    (synapse, account, proxy, bot)
}

#[tokio::test]
async fn a_first_start_that_is_cut_off_before_the_identity_is_out_is_finished_by_the_next() {
    let (synapse, account, proxy, bot) = proxied().await;

    proxy.fail("/keys/device_signing/upload", Answer::page(502));
    killed(&bot, &proxy, "/keys/device_signing/upload").await;
    assert_eq!(keys(&synapse, &account).await["master_keys"], json!({}));

    proxy.mend();
    bot.open_once().await.expect("the next start publishes it");
    assert!(is_signed(&synapse, &account, &bot).await);
    assert!(bot.file("recovery.key").exists());
}

/// More tries than a device gets that cannot be signed.
const TRIES: usize = 5;

/// A start that is killed while the homeserver goes on failing what has this in its path: until then it waits.
async fn killed(bot: &Bot, proxy: &Proxy, failing: &str) {
    let before = proxy.count(&Method::POST, failing);
    let waits = eventually("it tries again and again", async || {
        (proxy.count(&Method::POST, failing) >= before + TRIES).then_some(())
    });
    tokio::select! {
        end = bot.open_once() => panic!("it did not wait: {end:?}"),
        () = waits => {}
    }
}

#[tokio::test]
async fn a_homeserver_that_half_works_is_waited_for_and_makes_no_signed_device_unsigned() {
    let (_, _, proxy, mut bot) = proxied().await;
    bot.open_once().await.expect("it opens");

    // Where an unsigned device may start, too: it would send to devices that nobody has signed.
    bot.matrix.require_signed_device = false;
    let limited = json!({"errcode": "M_LIMIT_EXCEEDED", "error": "slowly", "retry_after_ms": 1500});
    for answer in [Answer::page(502), Answer::json(500, &json!({"errcode": "M_UNKNOWN"})), Answer::json(429, &limited)]
    {
        proxy.fail("/keys/query", answer);
        killed(&bot, &proxy, "/keys/query").await;
        proxy.mend();
    }
    proxy.fail("/keys/query", Answer::page(502));
    let before = proxy.count(&Method::POST, "/keys/query");
    let mend = async {
        eventually("it waits", async || (proxy.count(&Method::POST, "/keys/query") >= before + TRIES).then_some(()))
            .await;
        proxy.mend();
    };
    let (advice, ()) = tokio::join!(bot.open_once(), mend);
    let advice = advice.expect("it opens when it is answered");
    assert!(advice.iter().all(|advice| !advice.contains("unsigned")), "{advice:?}");
}

/// An upload of device keys without the signature of the device's owner.
fn unsigned(user: &str, mut body: Value) -> Value {
    if let Some(device) = body["device_keys"]["device_id"].as_str().map(str::to_owned)
        && let Some(signatures) = body["device_keys"]["signatures"][user].as_object_mut()
    {
        signatures.retain(|key, _| *key == format!("ed25519:{device}"));
    }
    body
}

#[tokio::test]
async fn a_signature_that_is_not_published_is_made_again_without_any_recovery_key() {
    let (synapse, account, proxy, bot) = proxied().await;

    // The device goes out without its owner's signature, and the signature by itself does not go out either.
    let user = account.user_id.clone();
    proxy.change(move |_, path, body| if path.contains("/keys/upload") { unsigned(&user, body) } else { body });
    proxy.fail("/keys/signatures/upload", Answer::page(502));
    killed(&bot, &proxy, "/keys/signatures/upload").await;
    assert!(keys(&synapse, &account).await["master_keys"][&account.user_id].is_object());
    assert!(!is_signed(&synapse, &account, &bot).await);
    assert!(!bot.file("recovery.key").exists());

    // A homeserver that takes the signature and does not serve it has answered.
    proxy.mend();
    proxy.fail("/keys/signatures/upload", Answer::json(200, &json!({"failures": {}})));
    let error = bot.open_once().await.expect_err("the device is unsigned for everybody else");
    assert!(matches!(error, OpenError::Unsigned { .. }), "{error}");

    proxy.mend();
    bot.open_once().await.expect("the private keys are in the store");
    assert!(is_signed(&synapse, &account, &bot).await);
}

#[tokio::test]
async fn a_device_that_may_be_unsigned_does_not_wait_for_ever_for_an_upload_that_a_proxy_does_not_let_through() {
    tokio::join!(
        starts_unsigned("/keys/device_signing/upload", Answer::page(403)),
        starts_unsigned("/keys/signatures/upload", Answer::page(502)),
    );
}

async fn starts_unsigned(failing: &'static str, answer: Answer) {
    let (synapse, account, proxy, mut bot) = proxied().await;
    let user = account.user_id.clone();
    proxy.change(move |_, path, body| if path.contains("/keys/upload") { unsigned(&user, body) } else { body });
    proxy.fail(failing, answer);

    // Where it must be signed, it goes on waiting.
    killed(&bot, &proxy, failing).await;
    bot.matrix.require_signed_device = false;
    let advice = tokio::time::timeout(Duration::from_mins(3), bot.open_once()).await.expect("it gives up signing");
    let advice = advice.expect("it opens");
    assert!(advice.iter().any(|advice| advice.contains("not signed")), "{failing}: {advice:?}");
    assert!(!is_signed(&synapse, &account, &bot).await);

    proxy.mend();
    bot.open_once().await.expect("the next start signs it");
    assert!(is_signed(&synapse, &account, &bot).await, "{failing}");
}

/// What the daemon has noted for `trust` and `check`, once it is what is waited for.
async fn advice(bot: &Bot, wanted: fn(&[Advice]) -> bool) -> Vec<Advice> {
    let store = bot.store();
    eventually("the advice", async || {
        Advice::noted(&store).await.expect("the store answers").filter(|noted| wanted(noted))
    })
    .await
}

fn on_volume(advice: &[Advice]) -> bool {
    matches!(advice, [Advice::KeyOnVolume { .. }])
}

fn key(bot: &Bot) -> String {
    std::fs::read_to_string(bot.file("recovery.key")).expect("a key").trim().to_owned()
}

#[tokio::test]
async fn a_configured_key_is_tried_while_the_volume_is_still_there() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    bot.open_once().await.expect("it opens");
    let good = key(&bot);

    bot.matrix.recovery_key = Some(Secret::new("another's key"));
    assert_eq!(bot.open_once().await.expect("it opens"), Vec::<String>::new(), "nothing is said before it is tried");
    let running = bot.start().await;
    let unfit = advice(&bot, |advice| matches!(advice, [Advice::KeyUnfit { .. }])).await;
    assert!(unfit[0].to_string().contains("recovery.key"), "it says what to keep: {}", unfit[0]);
    running.stop().await;

    bot.matrix.recovery_key = Some(Secret::new(good));
    let running = bot.start().await;
    let twice = advice(&bot, |advice| matches!(advice, [Advice::KeyTwice { .. }])).await;
    assert!(twice[0].to_string().contains("delete"), "only now: {}", twice[0]);
    std::fs::remove_file(bot.file("recovery.key")).expect("deleted");
    advice(&bot, <[Advice]>::is_empty).await;
    running.stop().await;
}

#[tokio::test]
async fn a_passphrase_that_was_configured_first_recovers_a_lost_volume() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.recovery_key = Some(Secret::new("correct horse battery staple"));
    bot.open_once().await.expect("it opens");
    assert!(!bot.file("recovery.key").exists(), "no key of its own");
    let master = keys(&synapse, &account).await["master_keys"].clone();

    empty(&bot.matrix.store);
    bot.open_once().await.expect("the passphrase opens it");
    assert!(is_signed(&synapse, &account, &bot).await);
    assert_eq!(keys(&synapse, &account).await["master_keys"], master, "the same identity");
}

#[tokio::test]
async fn a_new_key_is_made_where_one_is_asked_for_and_never_for_a_file_that_was_emptied() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    bot.open_once().await.expect("it opens");
    let first = key(&bot);

    // Somebody has moved the key and emptied the file: the moved one must go on opening the identity.
    std::fs::write(bot.file("recovery.key"), "").expect("emptied");
    let said = bot.open_once().await.expect("it opens");
    assert!(said.iter().any(|said| said.contains("recovery.key.new")), "{said:?}");
    assert_eq!(key(&bot), "");

    // As a start leaves it that was cut off between a new storage and its key, or as the advice says.
    std::fs::write(bot.file("recovery.key.new"), "").expect("written");
    bot.open_once().await.expect("it makes another");
    let second = key(&bot);
    assert!(second.len() > 40 && second != first);
    assert!(!bot.file("recovery.key.new").exists());

    empty(&bot.matrix.store);
    bot.matrix.recovery_key = Some(Secret::new(second));
    bot.open_once().await.expect("the new key opens it");
    assert!(is_signed(&synapse, &account, &bot).await);
}

#[tokio::test]
async fn a_signed_device_starts_although_its_key_cannot_be_kept_yet() {
    let (synapse, account, proxy, bot) = proxied().await;
    proxy.fail("m.secret_storage", Answer::page(502));
    let running = bot.start().await;
    advice(&bot, |advice| matches!(advice, [Advice::NotKept { .. }])).await;
    assert!(is_signed(&synapse, &account, &bot).await);
    proxy.mend();
    advice(&bot, on_volume).await;
    assert!(key(&bot).len() > 40, "made up for while it runs");
    running.stop().await;
}
