//! Logins that end: each end told from an outage, and never one login after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use pilothouse::chat::OpenError;
use pilothouse::config::{JwtSource, Login, Secret};
use serde_json::json;

use crate::support::bot::{Bot, DEADLINE, eventually};
use crate::support::front::{Front, Way};
use crate::support::proxy::{Answer, Proxy};
use crate::support::synapse::{Synapse, synapse};

/// Logs in, over a proxy.
async fn proxied(synapse: &Synapse) -> (crate::support::synapse::Account, Bot, Proxy) {
    let account = synapse.register("bot").await;
    let proxy = Proxy::before(synapse).await;
    let mut bot = Bot::new(synapse, &account);
    bot.matrix.homeserver = proxy.url();
    (account, bot, proxy)
}

#[tokio::test]
async fn a_deleted_device_costs_no_login_however_often_it_is_started() {
    let synapse = synapse().await;
    let (account, bot, proxy) = proxied(&synapse).await;
    bot.open_once().await.expect("it opens");
    assert!(bot.session()["refresh_token"].is_string());
    synapse.log_out_everywhere(&account).await;
    for _ in 0..3 {
        let error = bot.open_once().await.expect_err("the device is gone");
        assert!(matches!(error, OpenError::HardLogout { .. }), "{error}");
    }
    assert_eq!(proxy.count(&Method::POST, "/login"), 1);
}

#[tokio::test]
async fn a_first_login_whose_answer_is_lost_makes_no_second_device() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let lost = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lost);
    let front = Front::deciding(&synapse, move |asked| {
        let is_lost = asked.path.ends_with("/login") && count.fetch_add(1, Ordering::SeqCst) < 2;
        if is_lost { Way::Lost } else { Way::On }
    })
    .await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.homeserver = front.url().parse().expect("a URL");
    bot.open_once().await.expect("the third answer comes");
    let login = synapse.login(&account).await;
    let devices = synapse.call(&login.access_token, Method::GET, "/_matrix/client/v3/devices", None).await;
    let devices = devices["devices"].as_array().expect("devices").iter();
    let mut devices: Vec<_> = devices.map(|device| device["device_id"].as_str().expect("an id").to_owned()).collect();
    devices.retain(|device| *device != login.device_id);
    assert_eq!(devices, [bot.device()]);
}

#[tokio::test]
async fn a_refused_refresh_and_a_closed_account_are_ends_and_a_failing_one_is_not() {
    let synapse = Synapse::start(json!({})).await;
    let (account, bot, proxy) = proxied(&synapse).await;
    let mut running = bot.start().await;
    let first = bot.session();

    // The homeserver cannot refresh now: the login stands, and is refreshed when it can.
    proxy.fail("/refresh", Answer::page(502));
    synapse.expire_access_tokens(&account).await;
    let trouble = running.health.wait_for(|health| health.trouble.is_some());
    tokio::time::timeout(DEADLINE, trouble).await.expect("it is noticed").expect("it runs");
    proxy.mend();
    let refreshed = eventually("a new token", async || {
        let session = bot.session();
        (session["access_token"] != first["access_token"]).then_some(session)
    })
    .await;
    assert_eq!(proxy.count(&Method::POST, "/login"), 1, "no login");

    // It will not refresh, and says so in its own words.
    proxy.fail("/refresh", Answer::json(400, &json!({"errcode": "M_INVALID_PARAM", "error": "no such token"})));
    synapse.expire_access_tokens(&account).await;
    eventually("another token", async || (bot.session()["access_token"] != refreshed["access_token"]).then_some(()))
        .await;
    assert_eq!(proxy.count(&Method::POST, "/login"), 2);

    proxy.fail("/sync", Answer::json(403, &json!({"errcode": "M_USER_DEACTIVATED", "error": "closed"})));
    let error = running.ended().await.expect_err("the account is closed");
    assert!(matches!(error.downcast_ref(), Some(OpenError::HardLogout { .. })), "{error:#}");
}

#[tokio::test]
async fn logins_that_do_not_last_are_waited_between_over_restarts_and_without_a_standstill() {
    let synapse = Synapse::start(json!({})).await;
    let (account, bot, proxy) = proxied(&synapse).await;
    let mut running = bot.start().await;
    let first = bot.session();
    synapse.end_sessions(&account).await;
    eventually("the first is renewed at once", async || {
        (bot.session()["access_token"] != first["access_token"]).then_some(())
    })
    .await;
    let well = running.health.wait_for(|health| health.turned_at.is_some() && health.trouble.is_none());
    tokio::time::timeout(DEADLINE, well).await.expect("it runs again").expect("it runs");
    assert_eq!(proxy.count(&Method::POST, "/login"), 2);

    synapse.end_sessions(&account).await;
    let waits = running.health.wait_for(|health| health.turned_at.is_none());
    tokio::time::timeout(DEADLINE, waits).await.expect("it waits, and does not stand still").expect("it runs");
    running.stop().await;

    let asked = proxy.count(&Method::GET, "/whoami");
    let opening = bot.open_once();
    let mut opening = std::pin::pin!(opening);
    let refused = eventually("the token is refused", async || {
        (proxy.count(&Method::POST, "/refresh") > 0 && proxy.count(&Method::GET, "/whoami") > asked).then_some(())
    });
    tokio::select! {
        _ = &mut opening => panic!("it has logged in again at once"),
        () = refused => {}
    }
    let at_once = tokio::time::timeout(std::time::Duration::from_secs(3), opening).await;
    assert!(at_once.is_err(), "the process before has used up what is made at once");
    assert_eq!(proxy.count(&Method::POST, "/login"), 2);
}

#[tokio::test]
async fn a_configured_token_says_what_is_wrong_with_it() {
    let synapse = Synapse::start(json!({})).await;
    let account = synapse.register("bot").await;
    let login = synapse.login(&account).await;
    let mut bot = Bot::new(&synapse, &account);
    let token = Secret::new(&login.access_token);
    bot.matrix.login = Login::Token { access_token: token, device_id: login.device_id.clone() };
    let running = bot.start().await;
    synapse.expire_access_tokens(&account).await;
    let error = running.ended().await.expect_err("nobody can make a new one");
    assert!(matches!(error.downcast_ref(), Some(OpenError::TokenExpired { .. })), "{error:#}");
    let error = bot.open_once().await.expect_err("still expired");
    assert!(matches!(error, OpenError::TokenExpired { .. }), "{error}");

    synapse.log_out_everywhere(&account).await;
    let error = bot.open_once().await.expect_err("the device is gone");
    assert!(matches!(error, OpenError::TokenEnded { .. }), "{error}");
}

#[tokio::test]
async fn a_proxy_without_its_homeserver_is_waited_for() {
    let synapse = synapse().await;
    let (_, bot, proxy) = proxied(&synapse).await;
    for (status, asked) in [(404, "/login"), (403, "/whoami")] {
        proxy.fail("/_matrix", Answer::page(status));
        let waited = async {
            eventually("it tries again", async || {
                let tries = proxy.count(&Method::POST, asked) + proxy.count(&Method::GET, asked);
                (tries >= 2).then_some(())
            })
            .await;
            proxy.mend();
        };
        let (opened, ()) = tokio::join!(bot.open_once(), waited);
        opened.expect("it opens when the homeserver is there again");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_used_now_is_not_called_damaged() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let bot = Bot::new(&synapse, &account);
    bot.open_once().await.expect("it opens");
    let crypto = bot.file("matrix/matrix-sdk-crypto.sqlite3");

    let kept = bot.file("matrix/kept");
    std::fs::rename(&crypto, &kept).expect("moved");
    std::fs::create_dir(&crypto).expect("made");
    let error = bot.open_once().await.expect_err("it cannot be opened");
    assert!(matches!(error, OpenError::StoreUnavailable { .. }), "{error}");
    std::fs::remove_dir(&crypto).expect("removed");
    std::fs::rename(&kept, &crypto).expect("moved back");

    let holder = rusqlite::Connection::open(&crypto).expect("the database");
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").expect("held, as by a backup tool");
    let error = bot.open_once().await.expect_err("it is locked");
    assert!(matches!(error, OpenError::StoreUnavailable { .. }), "{error}");
    drop(holder);
    bot.open_once().await.expect("it opens again");
}

#[tokio::test]
async fn a_limit_of_keycloak_is_waited_out() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let token = synapse.jwt(&account);
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&tries);
    let granted = axum::Router::new().fallback(move || async move {
        match counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => (http::StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "{}".to_owned()),
            1 => (http::StatusCode::NOT_FOUND, [("retry-after", "1")], "<html></html>".to_owned()),
            _ => (http::StatusCode::OK, [("retry-after", "1")], json!({ "access_token": token }).to_string()),
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url: url::Url = format!("http://{}/", listener.local_addr().expect("bound")).parse().expect("a URL");
    tokio::spawn(async move { axum::serve(listener, granted).await });
    let mut bot = Bot::new(&synapse, &account);
    let source = JwtSource::Keycloak {
        url,
        realm: "home".to_owned(),
        client_id: "pilothouse".to_owned(),
        client_secret: None,
        password: Secret::new("keycloak's"),
    };
    bot.matrix.login = Login::Jwt { login_type: "org.matrix.login.jwt".to_owned(), source };
    bot.open_once().await.expect("it opens");
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 3);
}
