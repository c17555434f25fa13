//! The subscription's sources against a provider that plays every answer and error that the real one is known for.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use pilothouse::store::Store;
use pilothouse::usage::credential::{self, Layout, Login, Place, directory};
use pilothouse::usage::source::anthropic::{self, Anthropic};
use pilothouse::usage::wire;
use serde_json::{Value, json};
use url::Url;

use crate::support::provider::Provider;

#[path = "subscription/asking.rs"]
mod asking;
#[path = "subscription/killed.rs"]
mod killed;
#[path = "subscription/killed_folder.rs"]
mod killed_folder;
#[path = "subscription/kills.rs"]
mod kills;
#[path = "subscription/locks.rs"]
mod locks;
#[path = "subscription/push.rs"]
mod push;
#[path = "subscription/renewal.rs"]
mod renewal;
#[path = "subscription/secret.rs"]
mod secret;

const DEADLINE: Duration = Duration::from_mins(3);
const DOCUMENT: &str = ".credentials.json";

/// A time that stands still: what passes is passed in. It is that of the machine once, because the kernel writes its own
/// into new locks.
#[expect(clippy::disallowed_methods, reason = "the kernel does not take the time as a parameter")]
fn at(second: i64) -> Timestamp {
    static BEGINNING: LazyLock<i64> = LazyLock::new(|| Timestamp::now().as_second());
    Timestamp::from_second(*BEGINNING + second).unwrap()
}

/// The CLI's document with a login that ends `expires` seconds after the beginning of the test.
fn document(access: &str, refresh: &str, expires: i64) -> Value {
    json!({
        "claudeAiOauth": {
            "accessToken": access,
            "refreshToken": refresh,
            "expiresAt": at(expires).as_millisecond(),
            "refreshTokenExpiresAt": at(2_000_000).as_millisecond(),
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
            "rateLimitTier": "default_max",
        },
        "mcpOAuth": {"server": {"token": "theirs"}},
    })
}

/// A machine with a store and a directory for the login.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("config")).unwrap();
        Self { folder }
    }

    /// One whose directory has a login that ends `expires` seconds after the beginning of the test.
    fn with_login(expires: i64) -> Self {
        let machine = Self::new();
        machine.log_in("access-0", "refresh-0", expires);
        machine
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    fn store(&self) -> Store {
        Store::open(&self.folder.path().join("store.sqlite3")).unwrap()
    }

    fn log_in(&self, access: &str, refresh: &str, expires: i64) {
        std::fs::write(self.config().join(DOCUMENT), document(access, refresh, expires).to_string()).unwrap();
    }

    fn stored(&self) -> Value {
        read(&self.config().join(DOCUMENT))
    }

    fn place(&self) -> Place {
        directory::Place::new(directory::Settings { path: self.config(), layout: Layout::default() }).into()
    }

    /// Begins with what is there, as after a restart.
    fn source(&self, provider: &Provider) -> Anthropic {
        source(provider, self.place(), self.store())
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn tokens(document: &Value) -> (&str, &str) {
    let login = &document["claudeAiOauth"];
    (login["accessToken"].as_str().unwrap(), login["refreshToken"].as_str().unwrap())
}

fn http() -> reqwest::Client {
    wire::client(Duration::from_secs(20), None).unwrap()
}

fn login(provider: &Provider, place: Place, store: Store) -> Login {
    login_at(provider.token_url(), place, store)
}

fn login_at(token_url: Url, place: Place, store: Store) -> Login {
    let settings = credential::Settings {
        account: "work".to_owned(),
        token_url,
        client_id: credential::refresh::CLIENT_ID.to_owned(),
        user_agent: wire::USER_AGENT.to_owned(),
    };
    Login::new(settings, http(), place, store)
}

fn source(provider: &Provider, place: Place, store: Store) -> Anthropic {
    source_with(provider, place, store, http())
}

fn source_with(provider: &Provider, place: Place, store: Store, http: reqwest::Client) -> Anthropic {
    let settings = anthropic::Settings {
        account: "work".to_owned(),
        url: provider.usage_url(),
        user_agent: wire::USER_AGENT.to_owned(),
    };
    Anthropic::new(settings, http, login(provider, place, store))
}
