//! People and bots at the client-server API with nothing between: the least that a question and its answer can cost.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::bot::join;
use crate::support::house::SOON;
use crate::support::http;
use crate::support::synapse::{Account, Synapse};

/// Whoever says nothing for so long has said all.
const SILENCE: Duration = Duration::from_secs(10);

/// Somebody at the client-server API with nothing between: what is in a room comes with the time of its coming.
pub(super) struct Bare {
    http: reqwest::Client,
    url: String,
    token: String,
    events: mpsc::UnboundedReceiver<(Instant, Value)>,
    /// What has come and was not waited for yet: on a busy machine a receipt may come before its answer.
    came: Vec<(Instant, Value)>,
    sync: JoinHandle<()>,
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.sync.abort();
    }
}

impl Bare {
    pub(super) async fn log_in(synapse: &Synapse, account: &Account) -> Self {
        let token = synapse.login(account).await.access_token;
        let (http, url) = (http(), synapse.url().to_owned());
        let (coming, events) = mpsc::unbounded_channel();
        let first = Self::poll(&http, &url, &token, None).await;
        let (client, base, bearer) = (http.clone(), url.clone(), token.clone());
        let sync = tokio::spawn(async move {
            let mut since = first["next_batch"].as_str().map(str::to_owned);
            loop {
                let answer = Self::poll(&client, &base, &bearer, since.as_deref()).await;
                let at = Instant::now();
                since = answer["next_batch"].as_str().map(str::to_owned);
                for room in answer["rooms"]["join"].as_object().into_iter().flat_map(serde_json::Map::values) {
                    for part in ["timeline", "ephemeral"] {
                        for event in room[part]["events"].as_array().into_iter().flatten() {
                            drop(coming.send((at, event.clone())));
                        }
                    }
                }
            }
        });
        Self { http, url, token, events, came: Vec::new(), sync }
    }

    async fn poll(http: &reqwest::Client, url: &str, token: &str, since: Option<&str>) -> Value {
        let timeout = if since.is_some() { "30000" } else { "0" };
        // Typing would end the poll: what is measured is messages. Receipts come after them.
        let none = json!({ "types": [] });
        let room = json!({ "ephemeral": { "types": ["m.receipt"] }, "account_data": none });
        let filter = json!({ "presence": none, "account_data": none, "room": room }).to_string();
        let mut query = vec![("timeout", timeout), ("filter", filter.as_str())];
        query.extend(since.map(|since| ("since", since)));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let request = http.get(format!("{url}/_matrix/client/v3/sync?{query}")).bearer_auth(token);
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    pub(super) async fn send(&self, room: &str, kind: &str, content: &Value) -> (Instant, String) {
        let txn = format!("bare{}", fastrand());
        let url = format!("{}/_matrix/client/v3/rooms/{room}/send/{kind}/{txn}", self.url);
        let at = Instant::now();
        let answer = self.http.put(url).bearer_auth(&self.token).json(content).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        (at, answer["event_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
    }

    /// Waits for an event, and gives when it came.
    pub(super) async fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> (Instant, Value) {
        if let Some(known) = self.came.iter().position(|(_, event)| wanted(event)) {
            return self.came.remove(known);
        }
        let found = async {
            loop {
                let (at, event) = self.events.recv().await.expect("the sync goes on");
                if wanted(&event) {
                    return (at, event);
                }
                self.came.push((at, event));
            }
        };
        tokio::time::timeout(SOON, found).await.expect("it comes in time")
    }
}

/// A sealed event and the first reply to it.
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) at: Instant,
    pub(super) came: Instant,
    pub(super) reply: Value,
}

impl Bare {
    /// Sends a sealed event, and waits for the first reply to it.
    pub(super) async fn ask(&mut self, room: &str, (kind, content): (String, Value)) -> Asked {
        let (at, id) = self.send(room, &kind, &content).await;
        let replies = |event: &Value| event["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == id.as_str();
        let (came, reply) = self.wait(replies).await;
        Asked { id, at, came, reply }
    }

    /// Counts events until none has come for a while.
    pub(super) async fn count(&mut self, wanted: impl Fn(&Value) -> bool) -> usize {
        let mut count = 0;
        while tokio::time::timeout(SILENCE, self.wait(&wanted)).await.is_ok() {
            count += 1;
        }
        count
    }

    /// Waits until somebody has read an event: with that, a round is over.
    pub(super) async fn read(&mut self, by: &str, id: &str) {
        self.wait(|event| event["type"] == "m.receipt" && event["content"][id]["m.read"][by].is_object()).await;
    }
}

/// A number that no other call gives.
fn fastrand() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Two bare clients in an encrypted room: one asks, the other answers as soon as it reads that, and the first reads the
/// answer. What they send are events as those of a question and its answer, in all that a homeserver sees of them.
pub(super) struct Pair {
    one: Bare,
    two: Bare,
    asks: String,
    room: String,
    question: Value,
    answer: Value,
}

impl Pair {
    pub(super) async fn meet(synapse: &Synapse, question: Value, answer: Value) -> Self {
        let (one, two) = (synapse.register("one").await, synapse.register("two").await);
        let token = synapse.login(&one).await.access_token;
        let encryption = json!({
            "type": "m.room.encryption",
            "state_key": "",
            "content": { "algorithm": "m.megolm.v1.aes-sha2" },
        });
        let body = json!({ "invite": [two.user_id], "initial_state": [encryption] });
        let room = synapse.call(&token, http::Method::POST, "/_matrix/client/v3/createRoom", Some(body)).await;
        let room = room["room_id"].as_str().expect("a room").to_owned();
        join(synapse, &two, &room).await;
        let asks = one.user_id.clone();
        let (one, two) = (Bare::log_in(synapse, &one).await, Bare::log_in(synapse, &two).await);
        Self { one, two, asks, room, question, answer }
    }

    /// One question and its answer. `beside` is what the second does while it answers.
    pub(super) async fn round_trip(&mut self, beside: impl Future<Output = ()>) -> Asked {
        let Self { one, two, asks, room, question, answer } = self;
        let asking = one.ask(room, ("m.room.encrypted".to_owned(), question.clone()));
        let answering = async {
            let asked = |event: &Value| event["sender"] == asks.as_str() && event["type"] == "m.room.encrypted";
            let (_, event) = two.wait(asked).await;
            let mut content = answer.clone();
            content["m.relates_to"]["m.in_reply_to"]["event_id"] = event["event_id"].clone();
            tokio::join!(two.send(room, "m.room.encrypted", &content), beside);
        };
        tokio::join!(asking, answering).0
    }
}
