//! The room's side of the daemon, in the test's own process: `Chat` with a store folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pilothouse::chat::{Chat, Doors, Gesture, Health, Lock, OpenError};
use pilothouse::config::{Login, Matrix, Secret, Trust, TrustMode};
use pilothouse::message::Outgoing;
use pilothouse::store::Store;
use pilothouse::store::outbox::{Draft, Speech};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::synapse::{Account, Synapse};
use super::unique;

/// How long anything here may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(3);

/// A bot's configuration and its store folder.
pub(crate) struct Bot {
    pub(crate) matrix: Matrix,
    pub(crate) trust: Trust,
    pub(crate) users: watch::Sender<Arc<Vec<String>>>,
    pub(crate) inbox: Arc<Notify>,
    pub(crate) outbox: Arc<Notify>,
    _folder: TempDir,
}

impl Bot {
    /// A bot that logs in with its password, into an empty folder.
    pub(crate) fn new(synapse: &Synapse, account: &Account) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            matrix: Matrix {
                homeserver: synapse.url().parse().expect("a URL"),
                user: account.user_id.clone(),
                login: Login::Password { password: Secret::new(&account.password) },
                store: folder.path().join("store"),
                display_name: "Pilothouse".to_owned(),
                recovery_key: None,
                home_room: None,
                rooms: Vec::new(),
                bare_words_everywhere: false,
                prefix: "!ph".to_owned(),
                require_signed_device: true,
                echo: false,
                ca_file: None,
                proxy: None,
            },
            trust: Trust { mode: TrustMode::Identity, plaintext: Vec::new(), pins: std::collections::BTreeMap::new() },
            users: watch::Sender::new(Arc::new(Vec::new())),
            inbox: Arc::default(),
            outbox: Arc::default(),
            _folder: folder,
        }
    }

    /// A file of the store folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.matrix.store.join(name)
    }

    /// The saved session.
    pub(crate) fn session(&self) -> Value {
        let text = std::fs::read_to_string(self.file("session.json")).expect("a session file");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The device that it is logged in with.
    pub(crate) fn device(&self) -> String {
        self.session()["device_id"].as_str().expect("a device").to_owned()
    }

    /// Pilothouse's own store, beside the Matrix store.
    pub(crate) fn store(&self) -> Store {
        std::fs::create_dir_all(&self.matrix.store).expect("a folder");
        Store::open(&self.file("pilothouse.sqlite3")).expect("a store")
    }

    /// Opens the room and closes it again.
    pub(crate) async fn open_once(&self) -> Result<Vec<String>, OpenError> {
        let chat = self.open(DEADLINE).await?;
        let advice = chat.advice().iter().map(ToString::to_string).collect();
        let stop = CancellationToken::new();
        stop.cancel();
        chat.run(stop).await.expect("it closes");
        Ok(advice)
    }

    /// Opens the room, with this patience for another process.
    pub(crate) async fn open(&self, patience: Duration) -> Result<Chat, OpenError> {
        Ok(self.opened(patience).await?.0)
    }

    async fn opened(
        &self,
        patience: Duration,
    ) -> Result<(Chat, watch::Receiver<Health>, mpsc::Sender<Gesture>), OpenError> {
        let store = self.store();
        let lock = Lock::take(&self.matrix.store, patience).await?;
        let (shown, gestures) = pilothouse::chat::gestures();
        let health = watch::Sender::default();
        let seen = health.subscribe();
        let (inbox, outbox) = (Arc::clone(&self.inbox), Arc::clone(&self.outbox));
        let doors = Doors { store, users: self.users.subscribe(), inbox, outbox, gestures, health };
        let chat = Chat::open(self.matrix.clone(), self.trust.clone(), lock, doors).await?;
        Ok((chat, seen, shown))
    }

    /// Opens the room and lets it run.
    pub(crate) async fn start(&self) -> Running {
        let (chat, health, gestures) = self.opened(DEADLINE).await.expect("it opens");
        let stop = CancellationToken::new();
        Running { health, gestures, stop: stop.clone(), end: tokio::spawn(chat.run(stop)) }
    }

    /// Puts a message into the outbox; gives its row.
    pub(crate) async fn say(&self, store: &Store, room: &str, text: &str, reply_to: Option<&str>) -> i64 {
        let payload = words(text, reply_to);
        let draft = Draft { txn: unique("txn"), room: room.to_owned(), payload };
        let row = store.say(None, Speech::New(draft), now()).await.expect("it is written");
        self.outbox.notify_one();
        row
    }

    /// Gives an earlier message a new text.
    pub(crate) async fn revise(&self, store: &Store, row: i64, text: &str) {
        let speech = Speech::Revise { row, room: String::new(), txn: unique("txn"), payload: words(text, None) };
        store.say(None, speech, now()).await.expect("it is written");
        self.outbox.notify_one();
    }
}

/// The room, running.
pub(crate) struct Running {
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) gestures: mpsc::Sender<Gesture>,
    stop: CancellationToken,
    end: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.ended().await.expect("it ends well");
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        tokio::time::timeout(DEADLINE, self.end).await.expect("it ends in time").expect("no panic")
    }
}

/// JSON of an outgoing message.
fn words(text: &str, reply_to: Option<&str>) -> String {
    let outgoing = Outgoing {
        plain: text.to_owned(),
        html: format!("<b>{text}</b>"),
        reply_to: reply_to.map(str::to_owned),
        thread: None,
        mentions: Vec::new(),
        anywhere: false,
        image: None,
    };
    serde_json::to_string(&outgoing).expect("JSON")
}

/// Joins a room as this account, over plain HTTP.
pub(crate) async fn join(synapse: &Synapse, account: &Account, room: &str) {
    let login = synapse.login(account).await;
    let path = format!("/_matrix/client/v3/rooms/{room}/join");
    synapse.call(&login.access_token, http::Method::POST, &path, Some(json!({}))).await;
}

/// Empties a folder, as a lost volume does.
pub(crate) fn empty(folder: &Path) {
    std::fs::remove_dir_all(folder).expect("it is removed");
    std::fs::create_dir(folder).expect("it is made");
}

/// Waits until `check` gives something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = check().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

#[expect(clippy::disallowed_methods, reason = "tests live now")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
