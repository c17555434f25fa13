//! Logins and what outlives them, on a real homeserver: every loss has its own error, and its own way out works.

use std::time::Duration;

use http::Method;
use pilothouse::chat::{OpenError, lock_held};
use pilothouse::config::{JwtSource, Login, Secret};
use serde_json::{Value, json};

use crate::support::bot::{Bot, DEADLINE, empty, eventually};
use crate::support::synapse::{Account, Synapse, synapse};

/// The keys that the homeserver serves for an account.
pub(crate) async fn keys(synapse: &Synapse, account: &Account) -> Value {
    let login = synapse.login(account).await;
    let body = json!({"device_keys": {&account.user_id: []}});
    synapse.call(&login.access_token, Method::POST, "/_matrix/client/v3/keys/query", Some(body)).await
}

/// Whether the homeserver serves the bot's device with its owner's signature.
pub(crate) async fn is_signed(synapse: &Synapse, account: &Account, bot: &Bot) -> bool {
    let keys = keys(synapse, account).await;
    let user = &account.user_id;
    let signing = keys["self_signing_keys"][user]["keys"].as_object().and_then(|keys| keys.keys().next().cloned());
    let device = &keys["device_keys"][user][bot.device()];
    signing.is_some_and(|key| device["signatures"][user][key].is_string())
}

#[tokio::test]
async fn a_password_login_is_signed_at_once_and_outlives_a_restart() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.user.clone_from(&account.localpart);

    let advice = bot.open_once().await.expect("it opens");
    assert!(advice.iter().any(|advice| advice.contains("recovery.key")), "{advice:?}");
    assert!(is_signed(&synapse, &account, &bot).await);
    let before = bot.session();
    for name in ["session.json", "store.key", "recovery.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(bot.file(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }

    bot.open_once().await.expect("it opens again");
    assert_eq!(bot.session(), before, "the same login");

    bot.matrix.recovery_key = Some(Secret::new(std::fs::read_to_string(bot.file("recovery.key")).expect("a key")));
    std::fs::remove_file(bot.file("recovery.key")).expect("moved off");
    assert_eq!(bot.open_once().await.expect("it opens"), Vec::<String>::new());
}

#[tokio::test]
async fn a_lost_volume_is_recovered_by_the_recovery_key_alone() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    bot.open_once().await.expect("it opens");
    let key = std::fs::read_to_string(bot.file("recovery.key")).expect("a key");
    let master = keys(&synapse, &account).await["master_keys"].clone();
    let first = bot.device();

    empty(&bot.matrix.store);
    let error = bot.open_once().await.expect_err("no key");
    assert!(matches!(error, OpenError::NoRecoveryKey { .. }), "{error}");
    let second = bot.device();
    assert_ne!(second, first);

    bot.matrix.recovery_key = Some(Secret::new("not the key"));
    let error = bot.open_once().await.expect_err("a wrong key");
    assert!(matches!(error, OpenError::WrongRecoveryKey { .. }), "{error}");

    bot.matrix.require_signed_device = false;
    let advice = bot.open_once().await.expect("told otherwise, it goes on");
    assert!(advice.iter().any(|advice| advice.contains("unsigned")), "{advice:?}");
    bot.matrix.require_signed_device = true;

    bot.matrix.recovery_key = Some(Secret::new(key));
    bot.open_once().await.expect("the right key");
    assert_eq!(bot.device(), second, "no further login was made");
    assert!(is_signed(&synapse, &account, &bot).await);
    assert_eq!(keys(&synapse, &account).await["master_keys"], master, "the same identity");

    empty(&bot.matrix.store);
    bot.open_once().await.expect("a new device is signed by the key at once");
    assert!(is_signed(&synapse, &account, &bot).await);
}

#[tokio::test]
async fn an_access_token_works_with_its_device_and_never_after_its_store_is_lost() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let login = synapse.login(&account).await;
    let mut bot = Bot::new(&synapse, &account);
    let token =
        |device: &str| Login::Token { access_token: Secret::new(&login.access_token), device_id: device.to_owned() };

    bot.matrix.login = token("OTHER");
    let error = bot.open_once().await.expect_err("another device");
    assert!(matches!(error, OpenError::OtherDevice { .. }), "{error}");

    bot.matrix.login = token(&login.device_id);
    bot.open_once().await.expect("it opens");
    bot.open_once().await.expect("it opens again");

    empty(&bot.matrix.store);
    for _ in 0..2 {
        let error = bot.open_once().await.expect_err("a lost store");
        assert!(matches!(error, OpenError::TokenStoreLost { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_json_web_token_logs_in_from_a_file_and_from_keycloak() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    let file = bot.matrix.store.with_extension("jwt");
    let jwt = |source| Login::Jwt { login_type: "org.matrix.login.jwt".to_owned(), source };
    bot.matrix.login = jwt(JwtSource::File { path: file.clone() });
    let error = bot.open_once().await.expect_err("no file");
    assert!(matches!(error, OpenError::TokenSource { .. }), "{error}");
    std::fs::write(&file, format!("{}\n", synapse.jwt(&account))).expect("written");
    bot.open_once().await.expect("it opens");

    let account = synapse.register("bot").await;
    let token = synapse.jwt(&account);
    let granted = axum::Router::new().route(
        "/realms/home/protocol/openid-connect/token",
        axum::routing::post(move |axum::extract::RawForm(form): axum::extract::RawForm| async move {
            let form: Vec<(String, String)> = url::form_urlencoded::parse(&form).into_owned().collect();
            let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            let good = field("grant_type") == Some("password") && field("password") == Some("keycloak's");
            if good && field("client_secret") == Some("client's") {
                (http::StatusCode::OK, axum::Json(json!({ "access_token": token })))
            } else {
                (http::StatusCode::UNAUTHORIZED, axum::Json(json!({ "error": "invalid_grant" })))
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url: url::Url = format!("http://{}/", listener.local_addr().expect("bound")).parse().expect("a URL");
    tokio::spawn(async move { axum::serve(listener, granted).await });
    let mut bot = Bot::new(&synapse, &account);
    let keycloak = |secret: &str| {
        jwt(JwtSource::Keycloak {
            url: url.clone(),
            realm: "home".to_owned(),
            client_id: "pilothouse".to_owned(),
            client_secret: Some(Secret::new(secret)),
            password: Secret::new("keycloak's"),
        })
    };
    bot.matrix.login = keycloak("another's");
    let error = bot.open_once().await.expect_err("a wrong secret");
    assert!(error.to_string().contains("invalid_grant") && !error.to_string().contains("another's"), "{error}");
    bot.matrix.login = keycloak("client's");
    bot.open_once().await.expect("it opens");
}

#[tokio::test]
async fn a_wrong_password_is_refused_once_and_another_account_is_noticed() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.login = Login::Password { password: Secret::new("wrong") };
    let error = bot.open_once().await.expect_err("refused");
    assert!(matches!(error, OpenError::LoginRefused { .. }), "{error}");
    assert!(!bot.file("session.json").exists());

    let login = synapse.login(&account).await;
    bot.matrix.user = format!("@{}:elsewhere.test", account.localpart);
    bot.matrix.login = Login::Token { access_token: Secret::new(login.access_token), device_id: login.device_id };
    let error = bot.open_once().await.expect_err("another server");
    assert!(matches!(error, OpenError::OtherAccount { .. }), "{error}");
}

#[tokio::test]
async fn a_second_process_waits_and_is_then_refused() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let bot = Bot::new(&synapse, &account);
    assert!(!lock_held(&bot.matrix.store));
    let running = bot.start().await;
    assert!(lock_held(&bot.matrix.store));
    let error = bot.open(Duration::from_millis(300)).await.err().expect("refused");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let (second, ()) = tokio::join!(bot.open(DEADLINE), running.stop());
    drop(second.expect("it goes on when the first is gone"));
}

/// What is lost, how it gets lost, and whether the error is its own.
type Loss<'a> = (&'static str, Box<dyn Fn() + 'a>, fn(&OpenError) -> bool);

#[tokio::test]
async fn every_loss_of_the_store_has_its_own_error() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let bot = Bot::new(&synapse, &account);
    bot.open_once().await.expect("it opens");
    let kept = bot.matrix.store.with_extension("kept");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(status.is_ok_and(|status| status.success()));
    };
    copy(&bot.matrix.store, &kept);
    let crypto = bot.file("matrix/matrix-sdk-crypto.sqlite3");

    // Another account's Matrix store beside this session.
    let other_account = synapse.register("other").await;
    let other = Bot::new(&synapse, &other_account);
    other.open_once().await.expect("it opens");

    let cases: Vec<Loss<'_>> = vec![
        (
            "the Matrix store is gone",
            Box::new(|| std::fs::remove_dir_all(bot.file("matrix")).expect("removed")),
            |error| matches!(error, OpenError::StoreLost { .. }),
        ),
        (
            "the session file is gone",
            Box::new(|| std::fs::remove_file(bot.file("session.json")).expect("removed")),
            |error| matches!(error, OpenError::SessionLost { .. }),
        ),
        (
            "the session file is damaged",
            Box::new(|| std::fs::write(bot.file("session.json"), "{").expect("written")),
            |error| matches!(error, OpenError::SessionUnreadable { .. }),
        ),
        (
            "the store key is gone",
            Box::new(|| std::fs::remove_file(bot.file("store.key")).expect("removed")),
            |error| matches!(error, OpenError::WrongStoreKey { .. }),
        ),
        (
            "the store key is another's",
            Box::new(|| {
                std::fs::copy(other.file("store.key"), bot.file("store.key")).expect("copied");
            }),
            |error| matches!(error, OpenError::WrongStoreKey { .. }),
        ),
        (
            "the database is garbage",
            Box::new(|| {
                std::fs::write(&crypto, "no database, and long enough to be read as its header".repeat(99))
                    .expect("written");
            }),
            |error| matches!(error, OpenError::StoreCorrupted { .. }),
        ),
        (
            "the encryption keys were lost in part",
            Box::new(|| std::fs::write(&crypto, "").expect("written")),
            |error| matches!(error, OpenError::DeviceKeyChanged { .. }),
        ),
        (
            "the Matrix store is another account's",
            Box::new(|| {
                std::fs::remove_dir_all(bot.file("matrix")).expect("removed");
                copy(&other.file("matrix"), &bot.file("matrix"));
                std::fs::copy(other.file("store.key"), bot.file("store.key")).expect("copied");
            }),
            |error| matches!(error, OpenError::StoreForeign { .. }),
        ),
    ];
    for (what, harm, expected) in cases {
        std::fs::remove_dir_all(&bot.matrix.store).expect("removed");
        copy(&kept, &bot.matrix.store);
        harm();
        let error = bot.open_once().await.err().unwrap_or_else(|| panic!("{what}: it opened"));
        assert!(expected(&error), "{what}: {error}");
    }

    std::fs::remove_dir_all(&bot.matrix.store).expect("removed");
    copy(&kept, &bot.matrix.store);
    bot.open_once().await.expect("whole, it opens");
    let mut foreign = Bot::new(&synapse, &other_account);
    foreign.matrix.store.clone_from(&bot.matrix.store);
    let error = foreign.open_once().await.expect_err("another account's folder");
    assert!(matches!(error, OpenError::StoreForeign { .. }), "{error}");
}

#[tokio::test]
async fn an_expired_token_is_refreshed_and_without_a_refresh_token_the_same_device_logs_in_again() {
    let synapse = Synapse::start(json!({})).await;
    let account = synapse.register("bot").await;
    let bot = Bot::new(&synapse, &account);
    bot.open_once().await.expect("it opens");
    let first = bot.session();
    assert!(first["refresh_token"].is_string());

    synapse.expire_access_tokens(&account).await;
    bot.open_once().await.expect("it opens");
    let refreshed = bot.session();
    assert_ne!(refreshed["access_token"], first["access_token"]);
    assert_eq!(refreshed["device_id"], first["device_id"]);

    let mut without = refreshed.clone();
    without.as_object_mut().expect("an object").remove("refresh_token");
    std::fs::write(bot.file("session.json"), without.to_string()).expect("written");
    synapse.expire_access_tokens(&account).await;
    bot.open_once().await.expect("it opens");
    let again = bot.session();
    assert_ne!(again["access_token"], refreshed["access_token"]);
    assert_eq!((&again["device_id"], &again["ed25519"]), (&first["device_id"], &first["ed25519"]));
}

#[tokio::test]
async fn a_soft_logout_while_it_runs_is_answered_by_a_login_of_the_same_device() {
    let synapse = Synapse::start(json!({})).await;
    let account = synapse.register("bot").await;
    let bot = Bot::new(&synapse, &account);
    let running = bot.start().await;
    let first = bot.session();
    synapse.end_sessions(&account).await;
    let again = eventually("a new token", async || {
        let session = bot.session();
        (session["access_token"] != first["access_token"]).then_some(session)
    })
    .await;
    assert_eq!(again["device_id"], first["device_id"]);
    running.stop().await;
}

#[tokio::test]
async fn a_hard_logout_ends_it_with_what_to_do() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let bot = Bot::new(&synapse, &account);
    let running = bot.start().await;
    synapse.log_out_everywhere(&account).await;
    let error = running.ended().await.expect_err("the device is gone");
    assert!(matches!(error.downcast_ref(), Some(OpenError::HardLogout { .. })), "{error:#}");
    let error = bot.open_once().await.expect_err("still gone");
    assert!(matches!(error, OpenError::HardLogout { .. }), "{error}");

    let key = std::fs::read_to_string(bot.file("recovery.key")).expect("a key");
    empty(&bot.matrix.store);
    let mut bot = bot;
    bot.matrix.recovery_key = Some(Secret::new(key));
    bot.open_once().await.expect("the way out that the error names");
}

#[tokio::test]
async fn a_homeserver_that_is_away_is_waited_for_and_the_name_is_set() {
    let synapse = Synapse::start(json!({})).await;
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    synapse.stop();
    let (opened, ()) = tokio::join!(bot.open_once(), synapse.restart());
    opened.expect("it opens when the homeserver is back");
    synapse.stop();
    let (opened, ()) = tokio::join!(bot.open_once(), synapse.restart());
    opened.expect("also with a saved session");

    bot.matrix.display_name = "Harbour".to_owned();
    let running = bot.start().await;
    let login = synapse.login(&account).await;
    let path = format!("/_matrix/client/v3/profile/{}/displayname", account.user_id);
    eventually("the name", async || {
        let profile = synapse.call(&login.access_token, Method::GET, &path, None).await;
        (profile["displayname"] == "Harbour").then_some(())
    })
    .await;
    running.stop().await;
}
