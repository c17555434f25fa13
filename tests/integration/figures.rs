//! The figures of the README, from one run on one machine: `make figures` measures the release binary with many rounds
//! and prints them; as a test a few rounds of the development binary hold generous limits.
//!
//! The person's side is bare HTTP, so that no client's own work is in the times: commands are encrypted beforehand by a
//! client that hears nothing, and an answer is known by the relation that stands outside its ciphertext.

use std::fmt::Write as _;
use std::future::ready;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use pilothouse::store::Store;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::bot::eventually;
use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::environment;
use crate::support::house::{House, Plan, SOON};
use crate::support::http;
use crate::support::journal::Journal;
use crate::support::process::binary;
use crate::support::synapse::{Account, Synapse};

/// Rounds of each kind in a test; `PILOTHOUSE_ROUNDS` sets another number.
const ROUNDS: usize = 10;

/// Somebody at the client-server API with nothing between: what is in a room comes with the time of its coming.
struct Bare {
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
    async fn log_in(synapse: &Synapse, account: &Account) -> Self {
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

    async fn send(&self, room: &str, kind: &str, content: &Value) -> (Instant, String) {
        let txn = format!("bare{}", fastrand());
        let url = format!("{}/_matrix/client/v3/rooms/{room}/send/{kind}/{txn}", self.url);
        let at = Instant::now();
        let answer = self.http.put(url).bearer_auth(&self.token).json(content).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        (at, answer["event_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
    }

    /// Waits for an event, and gives when it came.
    async fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> (Instant, Value) {
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

/// A number that no other call gives.
fn fastrand() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Milliseconds at a quantile.
fn quantile(times: &[Duration], quantile: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((times.len() - 1) as f64 * quantile).round() as usize;
    times[index].as_secs_f64() * 1000.0
}

/// Two bare clients in an encrypted room: one asks, the other answers as soon as it reads that, and the first reads the
/// answer. What they send are events as those of a question and its answer, in all that a homeserver sees of them.
struct Pair {
    one: Bare,
    two: Bare,
    asks: String,
    room: String,
    question: Value,
    answer: Value,
}

impl Pair {
    async fn meet(synapse: &Synapse, question: Value, answer: Value) -> Self {
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
        crate::support::bot::join(synapse, &two, &room).await;
        let asks = one.user_id.clone();
        let (one, two) = (Bare::log_in(synapse, &one).await, Bare::log_in(synapse, &two).await);
        Self { one, two, asks, room, question, answer }
    }

    /// One question and its answer. `beside` is what the second does while it answers.
    async fn round_trip(&mut self, beside: impl Future<Output = ()>) -> Asked {
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

/// What somebody sees of a Deployment who watches it.
struct Changes {
    watch: Pin<Box<dyn Stream<Item = watcher::Result<Option<Deployment>>> + Send>>,
}

impl Changes {
    fn of(namespace: &Namespace, name: &str) -> Self {
        Self { watch: Box::pin(watcher::watch_object(namespace.api::<Deployment>(), name)) }
    }

    /// Waits until so many replicas are wanted, and gives when that was seen.
    async fn until(&mut self, replicas: i32) -> Instant {
        let so = async {
            loop {
                let object = self.watch.next().await.expect("the watch goes on").ok().flatten();
                if object.and_then(|object| object.spec).and_then(|spec| spec.replicas) == Some(replicas) {
                    return Instant::now();
                }
            }
        };
        tokio::time::timeout(SOON, so).await.expect("it changes")
    }
}

/// A Deployment that no Pilothouse knows, for what the cluster costs whoever changes it.
struct Unwatched<'a> {
    namespace: &'a Namespace,
    watch: Changes,
}

impl<'a> Unwatched<'a> {
    const NAME: &'static str = "unwatched";

    async fn make(namespace: &'a Namespace) -> Self {
        namespace.deployment(Self::NAME, "fine", 0).await;
        Self { namespace, watch: Changes::of(namespace, Self::NAME) }
    }

    /// Two bare clients, of which the second changes the replicas while it answers: the same work for the homeserver and
    /// for the cluster as a command is. Gives when the replicas have changed and when the answer is there; ends when the
    /// cluster is at rest again.
    async fn round_trip(&mut self, pair: &mut Pair, round: usize) -> (Duration, Duration) {
        let replicas = i32::from(round.is_multiple_of(2));
        let scale = async {
            let scale = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
            let deployments = self.namespace.api::<Deployment>();
            deployments.patch_scale(Self::NAME, &PatchParams::default(), &scale).await.expect("it scales");
        };
        let (so, asked) = tokio::join!(self.watch.until(replicas), pair.round_trip(scale));
        let rests = |deployment: &Deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            let observed = status.observed_generation == deployment.metadata.generation;
            observed && [status.replicas, status.available_replicas].map(Option::unwrap_or_default) == [replicas; 2]
        };
        self.namespace.wait(Self::NAME, SOON, rests).await;
        (so - asked.at, asked.came - asked.at)
    }
}

/// The same words, written differently each time: a text that is repeated in one session is checked for replay.
fn spelled(word: &str, round: usize) -> String {
    let letters = word.chars().enumerate();
    let letters =
        letters.map(|(i, c)| if round >> i & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect::<String>();
    letters + " ".repeat(1 + (round >> word.len())).as_str()
}

/// A sealed event and the first reply to it.
struct Asked {
    id: String,
    at: Instant,
    came: Instant,
    reply: Value,
}

impl Bare {
    /// Sends a sealed event, and waits for the first reply to it.
    async fn ask(&mut self, room: &str, (kind, content): (String, Value)) -> Asked {
        let (at, id) = self.send(room, &kind, &content).await;
        let replies = |event: &Value| event["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == id.as_str();
        let (came, reply) = self.wait(replies).await;
        Asked { id, at, came, reply }
    }

    /// Waits until somebody has read an event: with that, a round is over.
    async fn read(&mut self, by: &str, id: &str) {
        self.wait(|event| event["type"] == "m.receipt" && event["content"][id]["m.read"][by].is_object()).await;
    }
}

/// A question that needs nothing but the room.
async fn question(house: &House, bare: &mut Bare, round: usize) -> Asked {
    let sealed = house.person.seal(&house.room, &spelled("version", round)).await;
    let asked = bare.ask(&house.room, sealed).await;
    bare.read(&house.bot.user_id, &asked.id).await;
    asked
}

/// A command: when the replicas have changed, and when the first answer is there.
async fn command(
    house: &House,
    bare: &mut Bare,
    store: &Store,
    watch: &mut Changes,
    round: usize,
) -> (Duration, Duration) {
    let (word, wanted) = if round.is_multiple_of(2) { ("start", 1) } else { ("stop", 0) };
    let sealed = house.person.seal(&house.room, &spelled(word, round / 2)).await;
    let (so, asked) = tokio::join!(watch.until(wanted), bare.ask(&house.room, sealed));
    // The end of the rollout and the receipt are more events: they must not fall into the next round.
    bare.read(&house.bot.user_id, &asked.id).await;
    eventually("nothing is left to do or to say", async || {
        let (open, waiting) = (store.watches().await.ok()?, store.outbox_depth().await.ok()?);
        (open.is_empty() && waiting == 0).then_some(())
    })
    .await;
    (so - asked.at, asked.came - asked.at)
}

fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kilobytes: f64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kilobytes / 1024.0
}

#[tokio::test(flavor = "multi_thread")]
async fn figures() {
    let rounds = environment("PILOTHOUSE_ROUNDS").and_then(|n| n.to_str()?.parse().ok()).unwrap_or(ROUNDS);
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask_until("start 1", "ready: 1/1").await;
        house.ask_until("stop", "is stopped").await;
        let mut starts = Vec::new();
        for _ in 0..3 {
            assert!(house.running.stop(SOON).await.success());
            let began = Instant::now();
            house.start_again().await;
            starts.push(began.elapsed());
        }
        house.ask("version").await;
        let idle = resident(house.running.pid());
        let mut bare = Bare::log_in(&house.synapse, &house.account).await;
        // Two clients in each room: a third would be served before the one that is measured, or beside it.
        house.person.stop_following().await;
        let sealed = house.person.seal(&house.room, "version").await;
        let asked = bare.ask(&house.room, sealed.clone()).await;
        bare.read(&house.bot.user_id, &asked.id).await;
        let mut pair = Pair::meet(&house.synapse, sealed.1, asked.reply["content"].clone()).await;
        let journal = Journal::of(&house);
        let mut watch = Changes::of(&namespace, "web");
        let mut unwatched = Unwatched::make(&namespace).await;
        let (mut bares, mut moved, mut scaling, mut changed, mut answered, mut told) =
            (vec![], vec![], vec![], vec![], vec![], vec![]);
        // Each kind in turn, so that whatever else the machine does falls on all of them alike; and those that are held
        // against each other in both orders, because a command leaves the machine busy for a moment.
        for round in 0..rounds {
            let bare_first = (round / 2).is_multiple_of(2);
            if bare_first {
                let asked = pair.round_trip(ready(())).await;
                bares.push(asked.came - asked.at);
                let (so, came) = unwatched.round_trip(&mut pair, round).await;
                moved.push(so);
                scaling.push(came);
            }
            let asked = question(&house, &mut bare, round).await;
            told.push(asked.came - asked.at);
            if !bare_first {
                let asked = pair.round_trip(ready(())).await;
                bares.push(asked.came - asked.at);
            }
            let (so, came) = command(&house, &mut bare, &journal.store, &mut watch, round).await;
            changed.push(so);
            answered.push(came);
            if !bare_first {
                let (so, came) = unwatched.round_trip(&mut pair, round).await;
                moved.push(so);
                scaling.push(came);
            }
        }
        let busy = resident(house.running.pid());
        #[expect(clippy::cast_precision_loss, reason = "a size in megabytes")]
        let size = std::fs::metadata(binary()).expect("the binary").len() as f64 / 1e6;

        let mut table = format!("\nfigures of {} ({rounds} rounds)\n", binary().display());
        let _ = writeln!(table, "  binary                      {size:8.1} MB");
        let _ = writeln!(table, "  resident after the start    {idle:8.1} MiB");
        let _ = writeln!(table, "  resident after {rounds:4} rounds  {busy:8.1} MiB");
        let _ = writeln!(table, "  restart to ready (p50 of 3) {:8.0} ms", quantile(&starts, 0.5));
        for (what, times, of, bare) in [
            ("two bare clients", &bares, "", &bares),
            ("version → answer", &told, "the two", &bares),
            ("two that scale → replicas", &moved, "", &moved),
            ("two that scale → answer", &scaling, "the two", &bares),
            ("start, stop → replicas", &changed, "two that scale", &moved),
            ("start, stop → first answer", &answered, "two that scale", &scaling),
            ("start, stop → first answer", &answered, "the two", &bares),
        ] {
            let [half, most, bare] = [(times, 0.5), (times, 0.9), (bare, 0.5)].map(|(times, at)| quantile(times, at));
            let ratio = if of.is_empty() { String::new() } else { format!("{:5.2} × {of}", half / bare) };
            let _ = writeln!(table, "  {what:31}{half:8.1} ms p50 {most:8.1} ms p90 {ratio}");
        }
        println!("{table}");
        // Generous: a development binary beside other tests. Something that waits for a timer is slower than this.
        let most = |bare: &[Duration]| f64::max(2000.0, 5.0 * quantile(bare, 0.5));
        assert!(quantile(&answered, 0.5) < most(&scaling) && quantile(&changed, 0.5) < most(&moved), "{table}");
        assert!(quantile(&starts, 0.5) < 30_000.0, "{table}");
    })
    .await;
}
