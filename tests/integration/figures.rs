//! The figures of the README, from one run on one machine: `make figures` measures the release binary with many rounds
//! and prints them; as a test a few rounds of the development binary hold generous limits.
//!
//! The person's side is bare HTTP, so that no client's own work is in the times: commands are encrypted beforehand by a
//! client that hears nothing, and an answer is known by the relation that stands outside its ciphertext.

#[path = "figures/bare.rs"]
mod bare;
#[path = "figures/predecessor.rs"]
mod predecessor;

use std::collections::HashSet;
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
use tokio::time::Instant;

use self::bare::{Asked, Bare, Pair};
use self::predecessor::Predecessor;
use crate::support::bot::eventually;
use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::environment;
use crate::support::house::{House, Plan, SOON};
use crate::support::journal::Journal;
use crate::support::process::binary;

/// Rounds of each kind in a test; `PILOTHOUSE_ROUNDS` sets another number.
const ROUNDS: usize = 10;

/// Commands of a burst.
const BURST: usize = 100;

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
        rests(self.namespace, Self::NAME, replicas).await;
        (so - asked.at, asked.came - asked.at)
    }
}

/// Waits until nothing moves any more because of a change to so many replicas.
async fn rests(namespace: &Namespace, name: &str, replicas: i32) {
    let rests = |deployment: &Deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let observed = status.observed_generation == deployment.metadata.generation;
        observed && [status.replicas, status.available_replicas].map(Option::unwrap_or_default) == [replicas; 2]
    };
    namespace.wait(name, SOON, rests).await;
}

/// The same words, written differently each time: a text that is repeated in one session is checked for replay.
fn spelled(word: &str, round: usize) -> String {
    let letters = word.chars().enumerate();
    let letters =
        letters.map(|(i, c)| if round >> i & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect::<String>();
    letters + " ".repeat(1 + (round >> word.len())).as_str()
}

/// The command of a round, and the replicas that it is to come to: `start` and `stop` in turn.
fn turn(round: usize) -> (String, i32) {
    let (word, replicas) = if round.is_multiple_of(2) { ("start", 1) } else { ("stop", 0) };
    (spelled(word, round / 2), replicas)
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
    let (words, wanted) = turn(round);
    let sealed = house.person.seal(&house.room, &words).await;
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

/// How many commands are answered of those that come while it stands still.
async fn burst(house: &House, bare: &mut Bare, commands: usize) -> usize {
    house.running.signal("STOP");
    let mut asked = HashSet::new();
    for _ in 0..commands {
        let (kind, content) = house.person.seal(&house.room, "version").await;
        asked.insert(bare.send(&house.room, &kind, &content).await.1);
    }
    house.running.signal("CONT");
    let answers = |event: &Value| {
        let to = event["content"]["m.relates_to"]["m.in_reply_to"]["event_id"].as_str();
        event["sender"] == house.bot.user_id.as_str() && to.is_some_and(|to| asked.contains(to))
    };
    bare.count(answers).await
}

/// What is said of the predecessor besides its times.
async fn beside(house: &House, bare: &mut Bare, predecessor: &Predecessor<'_>) -> String {
    let (version, resident) = (&predecessor.version, resident(predecessor.pid()));
    let (ours, theirs) = (burst(house, bare, BURST).await, predecessor.burst(house, bare, BURST).await);
    format!(
        "  beside it: {version}, resident {resident:.1} MiB\n  answered of {BURST} commands that came while it stood still: \
         {ours}; of the predecessor's: {theirs}\n"
    )
}

fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kilobytes: f64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kilobytes / 1024.0
}

/// What was measured, its times, and of what the ratio is, with its times.
type Row<'a> = (&'a str, &'a [Duration], &'a str, &'a [Duration]);

fn lines(rows: &[Row<'_>]) -> String {
    let mut lines = String::new();
    for (what, times, of, bare) in rows {
        let [half, most, bare] = [(times, 0.5), (times, 0.9), (bare, 0.5)].map(|(times, at)| quantile(times, at));
        let ratio = if of.is_empty() { String::new() } else { format!("{:5.2} × {of}", half / bare) };
        let _ = writeln!(lines, "  {what:31}{half:8.1} ms p50 {most:8.1} ms p90 {ratio}");
    }
    lines
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
        let mut predecessor = Predecessor::meet(&house, &namespace).await;
        let mut bare = Bare::log_in(&house.synapse, &house.account).await;
        // Two clients in each room: a third would be served before the one that is measured, or beside it.
        house.person.stop_following().await;
        let sealed = house.person.seal(&house.room, "version").await;
        let asked = bare.ask(&house.room, sealed.clone()).await;
        bare.read(&house.bot.user_id, &asked.id).await;
        if let Some(predecessor) = &mut predecessor {
            // The person's new device is news for everybody.
            predecessor.command(&house, &mut bare, 0).await;
            predecessor.command(&house, &mut bare, 1).await;
        }
        let mut pair = Pair::meet(&house.synapse, sealed.1, asked.reply["content"].clone()).await;
        let journal = Journal::of(&house);
        let mut watch = Changes::of(&namespace, "web");
        let mut unwatched = Unwatched::make(&namespace).await;
        let (mut bares, mut told) = (vec![], vec![]);
        let (mut moved, mut scaling, mut changed, mut answered) = (vec![], vec![], vec![], vec![]);
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
            if let Some(predecessor) = predecessor.as_mut().filter(|_| bare_first) {
                predecessor.measure(&house, &mut bare, round).await;
            }
            let (so, came) = command(&house, &mut bare, &journal.store, &mut watch, round).await;
            changed.push(so);
            answered.push(came);
            if let Some(predecessor) = predecessor.as_mut().filter(|_| !bare_first) {
                predecessor.measure(&house, &mut bare, round).await;
            }
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
        let mut rows: Vec<Row<'_>> = vec![
            ("two bare clients", &bares, "", &bares),
            ("version → answer", &told, "the two", &bares),
            ("two that scale → replicas", &moved, "", &moved),
            ("two that scale → answer", &scaling, "the two", &bares),
            ("start, stop → replicas", &changed, "two that scale", &moved),
            ("start, stop → first answer", &answered, "two that scale", &scaling),
            ("start, stop → first answer", &answered, "the two", &bares),
        ];
        if let Some(predecessor) = &predecessor {
            table += beside(&house, &mut bare, predecessor).await.as_str();
            let times: [Row<'_>; 3] = [
                ("predecessor → replicas", &predecessor.moved, "", &predecessor.moved),
                // It answers once the API server has; Pilothouse says first that it begins, and then how it ended.
                ("predecessor → answer", &predecessor.answered, "", &predecessor.answered),
                ("start, stop → replicas", &changed, "the predecessor", &predecessor.moved),
            ];
            rows.extend(times);
        }
        table += lines(&rows).as_str();
        println!("{table}");
        // Generous: a development binary beside other tests. Something that waits for a timer is slower than this.
        let most = |bare: &[Duration]| f64::max(2000.0, 5.0 * quantile(bare, 0.5));
        assert!(quantile(&answered, 0.5) < most(&scaling) && quantile(&changed, 0.5) < most(&moved), "{table}");
        assert!(quantile(&starts, 0.5) < 30_000.0, "{table}");
    })
    .await;
}
