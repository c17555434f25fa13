//! A real homeserver: Synapse from PyPI on loopback with SQLite, two seconds to start.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::leash::{Folder, Leashed};
use super::places::synapse_venv;
use super::{free_port, http, unique};

/// Two seconds on an idle machine; a busy one takes its time.
const START: Duration = Duration::from_mins(2);

const REGISTRATION_SECRET: &str = "registration";
const SERVER_NAME: &str = "pilothouse.test";

/// Gives the homeserver that all tests of this binary share; it limits nobody.
pub(crate) async fn synapse() -> Arc<Synapse> {
    static SHARED: OnceCell<Arc<Synapse>> = OnceCell::const_new();
    Arc::clone(SHARED.get_or_init(async || Arc::new(Synapse::start(json!({})).await)).await)
}

/// A running homeserver.
pub(crate) struct Synapse {
    url: String,
    jwt_secret: String,
    server: Mutex<Option<Leashed>>,
    // Last: the server in it ends first.
    folder: Folder,
}

/// An account with its password.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// Full user id.
    pub(crate) user_id: String,
    /// The part that people type.
    pub(crate) localpart: String,
    /// The password.
    pub(crate) password: String,
}

/// A login made over plain HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// The access token.
    pub(crate) access_token: String,
    /// Its device.
    pub(crate) device_id: String,
}

impl Synapse {
    /// Starts a homeserver of its own, for a test that stops it or limits people. `settings` go over those of
    /// `homeserver.yaml`, for instance `{"rc_message": {"per_second": 0.2, "burst_count": 10}}`.
    ///
    /// # Panics
    /// When it is not installed (with the remedy) or does not come up.
    pub(crate) async fn start(settings: Value) -> Self {
        let folder = Folder::new("pilothouse-synapse-");
        let port = free_port();
        let jwt_secret = unique("a secret of at least as many bits as the hash has");
        fs::write(folder.join("homeserver.yaml"), homeserver(&folder, port, &jwt_secret, settings).to_string())
            .expect("settings");
        let seed = STANDARD_NO_PAD.encode(rand::random::<[u8; 32]>());
        fs::write(folder.join("signing.key"), format!("ed25519 a_test {seed}\n")).expect("a signing key");

        let synapse = Self { url: format!("http://127.0.0.1:{port}"), jwt_secret, server: Mutex::new(None), folder };
        synapse.restart().await;
        synapse
    }

    /// The base URL of the client-server API.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Kills it; its port refuses connections until [`Self::restart`].
    pub(crate) fn stop(&self) {
        drop(self.server().take());
    }

    /// Starts it again, on the same port and the same data.
    pub(crate) async fn restart(&self) {
        self.stop();
        let mut command = Command::new(python());
        command.args(["-m", "synapse.app.homeserver", "-c"]).arg(self.folder.join("homeserver.yaml"));
        command.current_dir(&*self.folder);
        let mut server = Leashed::start("synapse", &command);
        let http = http();
        let health = format!("{}/health", self.url);
        let start = tokio::time::Instant::now();
        while !http.get(&health).send().await.is_ok_and(|answer| answer.status().is_success()) {
            if let Some(status) = server.ended() {
                panic!("synapse has ended with {status}{}", server.tail(40));
            }
            assert!(start.elapsed() < START, "synapse is not up within {START:?}{}", server.tail(40));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        *self.server() = Some(server);
    }

    /// Freezes it: connections are accepted by the kernel and never answered.
    pub(crate) fn pause(&self) {
        self.server().as_ref().expect("synapse runs").freeze();
    }

    /// Lets a frozen homeserver go on.
    pub(crate) fn resume(&self) {
        self.server().as_ref().expect("synapse runs").thaw();
    }

    /// Makes an account whose localpart begins with `name`.
    pub(crate) async fn register(&self, name: &str) -> Account {
        self.register_as(&unique(name), false).await
    }

    /// Makes an account with exactly this localpart, on a homeserver of one's own.
    pub(crate) async fn register_as(&self, localpart: &str, admin: bool) -> Account {
        let url = format!("{}/_synapse/admin/v1/register", self.url);
        let http = http();
        let nonce: Value = json_of(http.get(&url)).await;
        let nonce = nonce["nonce"].as_str().expect("a nonce");
        let password = unique("password");
        let role = if admin { "admin" } else { "notadmin" };
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, REGISTRATION_SECRET.as_bytes());
        let mac = hmac::sign(&key, [nonce, localpart, &password, role].join("\0").as_bytes());
        let mac = mac.as_ref().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let body = json!({
            "nonce": nonce, "username": localpart, "password": password, "admin": admin, "mac": mac,
            "inhibit_login": true,
        });
        let made = json_of(http.post(&url).json(&body)).await;
        let user_id = made["user_id"].as_str().expect("a user id").to_owned();
        Account { user_id, localpart: localpart.to_owned(), password }
    }

    /// Logs in over plain HTTP: an access token and a device without any keys.
    pub(crate) async fn login(&self, account: &Account) -> Login {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": account.localpart},
            "password": account.password,
        });
        let url = format!("{}/_matrix/client/v3/login", self.url);
        let answer = json_of(http().post(url).json(&body)).await;
        let text = |key: &str| answer[key].as_str().expect("a login").to_owned();
        Login { access_token: text("access_token"), device_id: text("device_id") }
    }

    /// Calls the client-server (or admin) API with a token, and returns the answer.
    pub(crate) async fn call(&self, token: &str, method: http::Method, path: &str, body: Option<Value>) -> Value {
        let request = http().request(method, format!("{}{path}", self.url)).bearer_auth(token);
        json_of(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    /// Makes a JSON Web Token with which `org.matrix.login.jwt` logs this account in.
    pub(crate) fn jwt(&self, account: &Account) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(&json!({"alg": "HS256", "typ": "JWT"}));
        let signed = format!("{header}.{}", part(&json!({"sub": account.localpart})));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.jwt_secret.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// Lets every access token of the account expire, by a restart: the homeserver then answers with a soft logout, and
    /// takes a refresh token where one was given out.
    pub(crate) async fn expire_access_tokens(&self, account: &Account) {
        self.stop();
        {
            let database = rusqlite::Connection::open(self.folder.join("homeserver.db")).expect("the database");
            let expire = "UPDATE access_tokens SET valid_until_ms = 1 WHERE user_id = ?1";
            let expired = database.execute(expire, [&account.user_id]).expect("tokens expire");
            assert!(expired > 0, "{} has no access token", account.user_id);
        }
        self.restart().await;
    }

    /// Lets every access token of the account expire beyond refreshing, by a restart: only a new login helps.
    pub(crate) async fn end_sessions(&self, account: &Account) {
        self.stop();
        let database = rusqlite::Connection::open(self.folder.join("homeserver.db")).expect("the database");
        let expire = "UPDATE refresh_tokens SET expiry_ts = 1, ultimate_session_expiry_ts = 1 WHERE user_id = ?1";
        assert!(database.execute(expire, [&account.user_id]).expect("it is written") > 0, "no refresh token");
        drop(database);
        self.expire_access_tokens(account).await;
    }

    /// Logs every device of the account out: the devices are gone (a hard logout).
    pub(crate) async fn log_out_everywhere(&self, account: &Account) {
        let login = self.login(account).await;
        self.call(&login.access_token, http::Method::POST, "/_matrix/client/v3/logout/all", Some(json!({}))).await;
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Leashed>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The interpreter of the venv that holds Synapse and matrix-nio.
pub(crate) fn python() -> PathBuf {
    let python = synapse_venv().join("bin/python");
    assert!(python.is_file(), "no {}: make the venv once with `make synapse` (a minute)", python.display());
    python
}

fn homeserver(folder: &std::path::Path, port: u16, jwt_secret: &str, settings: Value) -> Value {
    let unlimited = json!({"per_second": 10_000, "burst_count": 10_000});
    let mut homeserver = json!({
        "server_name": SERVER_NAME,
        "public_baseurl": format!("http://127.0.0.1:{port}/"),
        "listeners": [{
            "port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": false,
            "resources": [{"names": ["client"]}],
        }],
        "database": {"name": "sqlite3", "args": {"database": folder.join("homeserver.db")}},
        "media_store_path": folder.join("media"),
        "signing_key_path": folder.join("signing.key"),
        "log_config": folder.join("log.yaml"),
        "registration_shared_secret": REGISTRATION_SECRET,
        "macaroon_secret_key": "macaroons",
        "form_secret": "forms",
        "report_stats": false,
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "federation_domain_whitelist": [],
        // Passwords here are no secret, and hashing them is dear.
        "bcrypt_rounds": 4,
        "presence": {"enabled": false},
        "jwt_config": {"enabled": true, "secret": jwt_secret, "algorithm": "HS256"},
        "rc_message": unlimited,
        "rc_registration": unlimited,
        "rc_login": {"address": unlimited, "account": unlimited, "failed_attempts": unlimited},
        "rc_joins": {"local": unlimited, "remote": unlimited},
        "rc_joins_per_room": unlimited,
        "rc_invites": {"per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited},
        "rc_key_requests": unlimited,
        "rc_room_creation": unlimited,
        "rc_admin_redaction": unlimited,
    });
    let log = json!({
        "version": 1,
        "disable_existing_loggers": false,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"level": "WARNING", "handlers": ["console"]},
    });
    fs::write(folder.join("log.yaml"), log.to_string()).expect("log settings");
    let Value::Object(settings) = settings else { panic!("settings are an object") };
    homeserver.as_object_mut().expect("an object").extend(settings);
    homeserver
}

async fn json_of(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.expect("the homeserver answers");
    let (status, url) = (answer.status(), answer.url().clone());
    let text = answer.text().await.expect("the homeserver answers");
    assert!(status.is_success(), "{url}: {status} {text}");
    serde_json::from_str(&text).expect("the homeserver answers with JSON")
}
