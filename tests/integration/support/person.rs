//! People: matrix-nio clients, one process each, driven by JSON lines (`tests/person/person.py`).

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{oneshot, watch};

use super::leash::Folder;
use super::synapse::{Account, Synapse, python};

/// How long one request may take; encrypting for a new device on a busy machine is the slowest.
const REQUEST: Duration = Duration::from_mins(3);

/// A person at a client with one device.
pub(crate) struct Person {
    /// Full user id.
    pub(crate) user_id: String,
    /// The device that this login has made.
    pub(crate) device_id: String,
    /// The device's Ed25519 key, unpadded base64.
    pub(crate) fingerprint: String,
    /// The login's access token.
    pub(crate) access_token: String,
    stdin: tokio::sync::Mutex<ChildStdin>,
    next: AtomicU64,
    shared: Arc<Shared>,
    // Killed when dropped.
    _child: Child,
    _store: Folder,
}

/// What the process has said.
#[derive(Default)]
struct Shared {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>,
    seen: Mutex<Vec<Seen>>,
    complaints: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
}

/// Something that came down this person's sync.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Seen {
    /// An event in a room. One that could not be read comes again when its key has come.
    Event(RoomEvent),
    /// An invitation to this person.
    Invite {
        /// The room.
        room: String,
        /// Who invites.
        sender: String,
    },
    /// Somebody has read an event.
    Receipt {
        /// The room.
        room: String,
        /// What was read.
        event: String,
        /// Who read it.
        user: String,
    },
    /// Who is typing now.
    Typing {
        /// The room.
        room: String,
        /// Everybody who types.
        users: Vec<String>,
    },
}

/// An event as the person reads it: decrypted where it was encrypted.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RoomEvent {
    /// The room.
    pub(crate) room: String,
    /// Event id.
    pub(crate) id: String,
    /// Who sent it.
    pub(crate) sender: String,
    /// Type, such as `m.room.message`; `m.room.encrypted` if it could not be read.
    pub(crate) kind: String,
    /// Key of a state event.
    pub(crate) state_key: Option<String>,
    /// The content.
    pub(crate) content: Value,
    /// The homeserver's time, in milliseconds.
    pub(crate) sent_at: f64,
    /// When this person could read it, in milliseconds.
    pub(crate) seen_at: f64,
    /// Whether it came encrypted.
    pub(crate) encrypted: bool,
    /// Its Megolm session.
    pub(crate) session: Option<String>,
}

impl RoomEvent {
    /// The text that people read; of an edit, the new one.
    pub(crate) fn body(&self) -> &str {
        self.new_content()["body"].as_str().unwrap_or_default()
    }

    /// The HTML that people read; of an edit, the new one.
    pub(crate) fn html(&self) -> &str {
        self.new_content()["formatted_body"].as_str().unwrap_or_default()
    }

    /// Whether it is an `m.notice`, as a bot's words are.
    pub(crate) fn is_notice(&self) -> bool {
        self.kind == "m.room.message" && self.new_content()["msgtype"] == "m.notice"
    }

    /// The event that it replies to.
    pub(crate) fn replies_to(&self) -> Option<&str> {
        self.content["m.relates_to"]["m.in_reply_to"]["event_id"].as_str()
    }

    /// The event that it edits.
    pub(crate) fn edits(&self) -> Option<&str> {
        let relation = &self.content["m.relates_to"];
        (relation["rel_type"] == "m.replace").then(|| relation["event_id"].as_str()).flatten()
    }

    fn new_content(&self) -> &Value {
        self.content.get("m.new_content").unwrap_or(&self.content)
    }
}

/// An event that this person has sent.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Sent {
    /// Event id.
    pub(crate) id: String,
    /// Type on the wire.
    pub(crate) kind: String,
    /// Content on the wire, the ciphertext if it was encrypted: [`Person::send_raw`] replays it.
    pub(crate) content: Value,
    /// Its Megolm session.
    pub(crate) session: Option<String>,
    /// When the client was asked to send it, in milliseconds.
    pub(crate) started_at: f64,
    /// When the homeserver had taken it, in milliseconds.
    pub(crate) acknowledged_at: f64,
}

impl Person {
    /// Logs in with a new device that nobody has signed.
    pub(crate) async fn log_in(synapse: &Synapse, account: &Account) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/person/person.py");
        let mut child = Command::new(python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let store = Folder::new("pilothouse-person-");
        let request = json!({
            "homeserver": synapse.url(), "user": account.user_id, "password": account.password, "folder": store.path(),
        });
        let shared = Arc::new(Shared::default());
        let out = BufReader::new(child.stdout.take().expect("piped")).lines();
        let errors = BufReader::new(child.stderr.take().expect("piped")).lines();
        tokio::spawn(Arc::clone(&shared).listen(out));
        tokio::spawn(Arc::clone(&shared).complain(errors));
        let mut person = Self {
            user_id: account.user_id.clone(),
            device_id: String::new(),
            fingerprint: String::new(),
            access_token: String::new(),
            stdin: tokio::sync::Mutex::new(child.stdin.take().expect("piped")),
            next: AtomicU64::new(0),
            shared,
            _child: child,
            _store: store,
        };
        let login: HashMap<String, String> = person.ask("login", request).await;
        let text = |key: &str| login[key].clone();
        person.device_id = text("device_id");
        person.fingerprint = text("fingerprint");
        person.access_token = text("access_token");
        person
    }

    /// Logs in for the first time: a new device, a new identity, and the device signed by it.
    pub(crate) async fn with_identity(synapse: &Synapse, account: &Account) -> Self {
        let person = Self::log_in(synapse, account).await;
        person.new_identity().await;
        person
    }

    /// Gives the user new cross-signing keys, the first or a reset, and signs this device. Returns the public master key.
    pub(crate) async fn new_identity(&self) -> String {
        self.ask("identity", json!({})).await
    }

    /// Signs another device of the same user with the identity that this login has made.
    pub(crate) async fn sign_device(&self, device_id: &str) {
        self.ask::<()>("sign_device", json!({ "device": device_id })).await;
    }

    /// Makes an encrypted room and invites people to it; waits until it has come down the sync.
    pub(crate) async fn create_room(&self, invite: &[&str]) -> String {
        let encryption = json!({
            "type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"},
        });
        self.create_room_with(json!({"invite": invite, "initial_state": [encryption]})).await
    }

    /// Makes a room without encryption and invites people to it.
    pub(crate) async fn create_plain_room(&self, invite: &[&str]) -> String {
        self.create_room_with(json!({ "invite": invite })).await
    }

    /// Makes a room with the body of `POST /createRoom`.
    pub(crate) async fn create_room_with(&self, body: Value) -> String {
        let made = self.call(http::Method::POST, "/_matrix/client/v3/createRoom", body).await;
        let room = made["room_id"].as_str().expect("a room").to_owned();
        self.expect(REQUEST, |event| event.room == room && event.state_key.is_some()).await;
        room
    }

    /// Invites somebody.
    pub(crate) async fn invite(&self, room: &str, user: &str) {
        self.room_call(room, "invite", json!({ "user_id": user })).await;
    }

    /// Joins a room, and waits until it has come down the sync.
    pub(crate) async fn join(&self, room: &str) {
        self.room_call(room, "join", json!({})).await;
        self.member(room, &self.user_id, "join", REQUEST).await;
    }

    /// Leaves a room.
    pub(crate) async fn leave(&self, room: &str) {
        self.room_call(room, "leave", json!({})).await;
    }

    /// Upgrades a room and returns the new one.
    pub(crate) async fn upgrade(&self, room: &str, version: &str) -> String {
        let made = self.room_call(room, "upgrade", json!({ "new_version": version })).await;
        made["replacement_room"].as_str().expect("a room").to_owned()
    }

    /// Waits until somebody's membership in a room is `membership`.
    pub(crate) async fn member(&self, room: &str, user: &str, membership: &str, deadline: Duration) -> RoomEvent {
        self.expect(deadline, |event| {
            event.room == room
                && event.kind == "m.room.member"
                && event.state_key.as_deref() == Some(user)
                && event.content["membership"] == membership
        })
        .await
    }

    /// Sends a text, encrypted.
    pub(crate) async fn send(&self, room: &str, text: &str) -> Sent {
        self.send_content(room, json!({"msgtype": "m.text", "body": text})).await
    }

    /// Sends texts one after the other, as fast as the homeserver takes them, encrypted.
    pub(crate) async fn send_burst(&self, room: &str, texts: &[String]) -> Vec<Sent> {
        // Each has its own deadline, and waits for those before it.
        let mut sent = Vec::new();
        for some in texts.chunks(25) {
            sent.extend(futures_util::future::join_all(some.iter().map(|text| self.send(room, text))).await);
        }
        sent
    }

    /// Sends a notice, encrypted.
    pub(crate) async fn send_notice(&self, room: &str, text: &str) -> Sent {
        self.send_content(room, json!({"msgtype": "m.notice", "body": text})).await
    }

    /// Sends a text that mentions people (`m.mentions`), encrypted.
    pub(crate) async fn send_mentioning(&self, room: &str, text: &str, users: &[&str]) -> Sent {
        let content = json!({"msgtype": "m.text", "body": text, "m.mentions": {"user_ids": users}});
        self.send_content(room, content).await
    }

    /// Edits what this person has sent, encrypted.
    pub(crate) async fn send_edit(&self, room: &str, event: &str, text: &str) -> Sent {
        let content = json!({
            "msgtype": "m.text", "body": format!("* {text}"), "m.new_content": {"msgtype": "m.text", "body": text},
            "m.relates_to": {"rel_type": "m.replace", "event_id": event},
        });
        self.send_content(room, content).await
    }

    /// Sends a message with this content, encrypted.
    pub(crate) async fn send_content(&self, room: &str, content: Value) -> Sent {
        self.ask("say", json!({"room": room, "kind": "m.room.message", "content": content})).await
    }

    /// Sends a text in the clear, whatever the room is.
    pub(crate) async fn send_plain(&self, room: &str, text: &str) -> Sent {
        self.send_raw(room, "m.room.message", &json!({"msgtype": "m.text", "body": text})).await
    }

    /// Sends an event as it is: the way to replay the `kind` and `content` of a [`Sent`].
    pub(crate) async fn send_raw(&self, room: &str, kind: &str, content: &Value) -> Sent {
        self.ask("say", json!({"room": room, "kind": kind, "content": content, "plain": true})).await
    }

    /// Encrypts a text and sends nothing: its type and content, for somebody else to send.
    pub(crate) async fn seal(&self, room: &str, text: &str) -> (String, Value) {
        let content = json!({"msgtype": "m.text", "body": text});
        self.ask("seal", json!({"room": room, "kind": "m.room.message", "content": content})).await
    }

    /// Ends this person's sync: another client of the account is the one that listens.
    pub(crate) async fn stop_following(&self) {
        self.ask::<()>("stop_following", json!({})).await;
    }

    /// Sends an encrypted text in a new session whose key nobody gets before [`Self::deliver_key`].
    pub(crate) async fn send_without_key(&self, room: &str, text: &str) -> Sent {
        let content = json!({"msgtype": "m.text", "body": text});
        let request = json!({"room": room, "kind": "m.room.message", "content": content, "withhold": true});
        self.ask("say", request).await
    }

    /// The same in a relation, which stands beside the ciphertext too, as clients put it.
    pub(crate) async fn send_without_key_in(&self, room: &str, text: &str, relation: &Value) -> Sent {
        let content = json!({"msgtype": "m.text", "body": text, "m.relates_to": relation});
        let request = json!({
            "room": room, "kind": "m.room.message", "content": content, "withhold": true, "relates_to": relation,
        });
        self.ask("say", request).await
    }

    /// Gives everybody in the room the key that [`Self::send_without_key`] has withheld.
    pub(crate) async fn deliver_key(&self, sent: &Sent) {
        self.ask::<()>("deliver_key", json!({ "session": sent.session })).await;
    }

    /// Lets the next message begin a new Megolm session.
    pub(crate) async fn rotate(&self, room: &str) {
        self.ask::<()>("rotate", json!({ "room": room })).await;
    }

    /// Reacts to an event.
    pub(crate) async fn react(&self, room: &str, event: &str, key: &str) -> Sent {
        let relation = json!({"rel_type": "m.annotation", "event_id": event, "key": key});
        self.send_raw(room, "m.reaction", &json!({ "m.relates_to": relation })).await
    }

    /// Calls the client-server API as this person.
    pub(crate) async fn call(&self, method: http::Method, path: &str, body: Value) -> Value {
        self.ask("call", json!({"method": method.as_str(), "path": path, "body": body})).await
    }

    /// Calls `POST /rooms/{room}/{action}`.
    pub(crate) async fn room_call(&self, room: &str, action: &str, body: Value) -> Value {
        self.call(http::Method::POST, &format!("/_matrix/client/v3/rooms/{room}/{action}"), body).await
    }

    /// Everything that came down the sync so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen().clone()
    }

    /// Every room event so far, as far as this person can read it.
    pub(crate) fn events(&self, room: &str) -> Vec<RoomEvent> {
        let events = self.seen().into_iter().filter_map(|seen| match seen {
            Seen::Event(event) if event.room == room => Some(event),
            _ => None,
        });
        events.collect()
    }

    /// Waits for a room event that satisfies `wanted`, those that have come already included.
    ///
    /// # Panics
    /// With what was seen instead, when the deadline passes first.
    pub(crate) async fn expect(&self, deadline: Duration, wanted: impl Fn(&RoomEvent) -> bool) -> RoomEvent {
        self.expect_seen(deadline, |seen| match seen {
            Seen::Event(event) if wanted(event) => Some(event.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for the first notice that replies to `sent`.
    pub(crate) async fn expect_reply(&self, sent: &Sent, deadline: Duration) -> RoomEvent {
        self.expect(deadline, |event| event.is_notice() && event.replies_to() == Some(&sent.id)).await
    }

    /// Waits until `notice`, or an edit of it, contains `text`, and returns the event that says so.
    pub(crate) async fn expect_text(&self, notice: &RoomEvent, text: &str, deadline: Duration) -> RoomEvent {
        let about = |event: &RoomEvent| event.id == notice.id || event.edits() == Some(&notice.id);
        self.expect(deadline, |event| about(event) && event.body().contains(text)).await
    }

    /// Waits until `find` finds something in what came down the sync, those that have come already included.
    ///
    /// # Panics
    /// With what was seen instead, when the deadline passes first.
    pub(crate) async fn expect_seen<T>(&self, deadline: Duration, find: impl Fn(&Seen) -> Option<T>) -> T {
        let mut count = self.shared.count.subscribe();
        let found = async {
            loop {
                if let Some(found) = self.shared.seen().iter().find_map(&find) {
                    return found;
                }
                count.changed().await.expect("the sender lives as long as self");
            }
        };
        let Ok(found) = tokio::time::timeout(deadline, found).await else {
            panic!("{} has not seen it within {deadline:?}{}", self.user_id, self.shared.account())
        };
        found
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, mut request: Value) -> T {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        request["id"] = json!(id);
        request["do"] = json!(what);
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting().insert(id, sender);
        let line = format!("{request}\n");
        self.stdin.lock().await.write_all(line.as_bytes()).await.expect("the person listens");
        let Ok(answer) = tokio::time::timeout(REQUEST, receiver).await else {
            panic!("{}: no {what} within {REQUEST:?}{}", self.user_id, self.shared.account())
        };
        let Ok(answer) = answer else { panic!("{} is gone{}", self.user_id, self.shared.account()) };
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error}{}", self.user_id, self.shared.account()));
        serde_json::from_value(answer).expect("the answer has its form")
    }
}

impl Shared {
    async fn listen(self: Arc<Self>, mut out: Lines<BufReader<impl AsyncRead + Unpin>>) {
        while let Ok(Some(line)) = out.next_line().await {
            let mut said: Value = serde_json::from_str(&line).expect("the person speaks JSON");
            if let Some(id) = said["id"].as_u64() {
                let answer = match said["error"].as_str() {
                    Some(error) => Err(error.to_owned()),
                    None => Ok(said["ok"].take()),
                };
                if let Some(waiting) = self.waiting().remove(&id) {
                    let _ = waiting.send(answer);
                }
            } else {
                let seen = serde_json::from_value(said).expect("what is seen has its form");
                self.seen().push(seen);
                self.count.send_modify(|count| *count += 1);
            }
        }
        self.waiting().clear();
    }

    async fn complain(self: Arc<Self>, mut errors: Lines<BufReader<impl AsyncRead + Unpin>>) {
        while let Ok(Some(line)) = errors.next_line().await {
            self.complaints.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Value, String>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen last and what the process complained of, ready to be appended to a message.
    fn account(&self) -> String {
        let seen = self.seen();
        let last = seen.iter().rev().take(20).rev().map(|seen| format!("  {seen:?}"));
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let complaints = complaints.iter().rev().take(20).rev().map(|line| format!("  {line}"));
        let lines: Vec<String> = last.chain(complaints).collect();
        format!("; the last that was seen:\n{}", lines.join("\n"))
    }
}
