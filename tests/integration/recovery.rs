//! The own device signed, and the identity recoverable, over starts that are cut off and keys that do not fit.

use pilothouse::chat::OpenError;
use serde_json::json;

use crate::session::{is_signed, keys};
use crate::support::bot::Bot;
use crate::support::proxy::{Answer, Proxy};
use crate::support::synapse::synapse;

#[tokio::test]
async fn a_first_start_that_is_cut_off_before_the_identity_is_out_is_finished_by_the_next() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let proxy = Proxy::before(&synapse).await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.homeserver = proxy.url();

    proxy.fail("/keys/device_signing/upload", Answer::page(502));
    let error = bot.open_once().await.expect_err("nobody can see the identity");
    assert!(matches!(error, OpenError::Unsigned { .. }), "{error}");
    assert_eq!(keys(&synapse, &account).await["master_keys"], json!({}));

    proxy.mend();
    bot.open_once().await.expect("the next start publishes it");
    assert!(is_signed(&synapse, &account, &bot).await);
    assert!(bot.file("recovery.key").exists());
}

#[tokio::test]
async fn a_signature_that_is_not_published_is_made_again_without_any_recovery_key() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let proxy = Proxy::before(&synapse).await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.homeserver = proxy.url();

    // The device goes out without its owner's signature, and the signature by itself does not go out either.
    let user = account.user_id.clone();
    proxy.change(move |_, path, mut body| {
        if path.contains("/keys/upload")
            && let Some(device) = body["device_keys"]["device_id"].as_str().map(str::to_owned)
            && let Some(signatures) = body["device_keys"]["signatures"][&user].as_object_mut()
        {
            signatures.retain(|key, _| *key == format!("ed25519:{device}"));
        }
        body
    });
    proxy.fail("/keys/signatures/upload", Answer::page(502));
    let error = bot.open_once().await.expect_err("the device is unsigned for everybody else");
    assert!(matches!(error, OpenError::Unsigned { .. }), "{error}");
    assert!(keys(&synapse, &account).await["master_keys"][&account.user_id].is_object());
    assert!(!is_signed(&synapse, &account, &bot).await);
    assert!(!bot.file("recovery.key").exists());

    proxy.mend();
    bot.open_once().await.expect("the private keys are in the store");
    assert!(is_signed(&synapse, &account, &bot).await);
}
