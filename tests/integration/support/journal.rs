//! The journal of a house's daemon: read at any time, and written while the daemon is dead, as a kill would have left it.

use jiff::Timestamp;
use pilothouse::message::{Address, Message, Standing};
use pilothouse::store::Store;
use pilothouse::store::inbox::Arrival;
use pilothouse::store::orders::Started;
use serde_json::{Value, json};

use super::bot::now;
use super::control_plane::Namespace;
use super::house::House;

/// The journal of one house.
pub(crate) struct Journal {
    /// The file itself.
    pub(crate) store: Store,
    who: String,
    room: String,
}

impl Journal {
    /// Opens it.
    pub(crate) fn of(house: &House) -> Self {
        let path = house.pilothouse.database();
        let store = Store::open(&path).expect("the journal can be opened");
        Self { store, who: house.person.user_id.clone(), room: house.room.clone() }
    }

    /// A message of the house's person, as the inbox keeps it.
    fn message(&self, event: &str, text: &str, sent_at: Timestamp) -> Message {
        Message {
            who: self.who.clone(),
            room: self.room.clone(),
            event: event.to_owned(),
            text: text.to_owned(),
            sent_at,
            thread: None,
            device: None,
            standing: Standing::Proven,
            address: Address::Bare,
        }
    }

    /// Writes what the person has said just now as an event; gives its row.
    pub(crate) async fn receive(&self, event: &str, text: &str) -> i64 {
        self.receive_of(event, text, now()).await
    }

    /// Writes what the person has said at some time as an event; gives its row.
    pub(crate) async fn receive_of(&self, event: &str, text: &str, sent_at: Timestamp) -> i64 {
        self.receive_in(None, event, text, sent_at).await
    }

    /// Writes what the person has said at some time in a thread; gives its row.
    pub(crate) async fn receive_in(&self, thread: Option<&str>, event: &str, text: &str, sent_at: Timestamp) -> i64 {
        self.put(Message { thread: thread.map(str::to_owned), ..self.message(event, text, sent_at) }).await
    }

    async fn put(&self, message: Message) -> i64 {
        let arrival = Arrival {
            event: message.event.clone(),
            room: message.room.clone(),
            sender: message.who.clone(),
            sent_at: message.sent_at,
            payload: serde_json::to_string(&message).expect("JSON"),
            waiting_for: None,
        };
        self.store.receive(vec![arrival], None, now()).await.expect("written");
        self.row(&message.event).await
    }

    /// Writes what the person has said at some time, with another standing than a proven one.
    pub(crate) async fn receive_with(&self, standing: Standing, event: &str, text: &str, sent_at: Timestamp) {
        self.put(Message { standing, ..self.message(event, text, sent_at) }).await;
    }

    /// Replaces a command by one for each of several targets; gives their rows.
    pub(crate) async fn split(&self, id: i64, event: &str, parts: &[(&str, &str)]) -> Vec<i64> {
        let texts = parts.iter().map(|(target, text)| {
            let part = Message { address: Address::Mentioned, ..self.message(event, text, now()) };
            ((*target).to_owned(), serde_json::to_string(&part).expect("JSON"))
        });
        self.store.split(id, texts.collect(), now()).await.expect("written");
        let mut rows = Vec::new();
        for (target, _) in parts {
            rows.push(self.row(&format!("{event}/{target}")).await);
        }
        rows
    }

    async fn row(&self, event: &str) -> i64 {
        let entries = self.store.received(100).await.expect("read");
        entries.into_iter().find(|entry| entry.event == event).expect("it is there").id
    }

    /// Writes that the order to scale a target was begun.
    pub(crate) async fn start(&self, namespace: &Namespace, id: i64, target: &str, from: i32, to: i32) {
        self.begin(namespace, id, target, &json!({ "scale": { "from": from, "to": to } })).await;
    }

    /// Writes that an order was begun.
    pub(crate) async fn begin(&self, namespace: &Namespace, id: i64, target: &str, change: &Value) {
        let work = json!({
            "target": {
                "name": target, "label": target, "kind": "Deployment", "namespace": namespace.name, "object": target,
            },
            "change": change,
            "owners": [],
        });
        let target = format!("Deployment/{}/{target}", namespace.name);
        let started =
            Started { id, target, work: work.to_string(), remember: None, progress: None, superseded: vec![] };
        self.store.start(started, now()).await.expect("written");
    }
}
