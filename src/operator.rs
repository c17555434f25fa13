//! The gate: takes from the inbox, asks [`policy`](crate::policy), performs, puts into the outbox, watches.
//!
//! One *lane* a target: commands for it are done one after the other, in the order of arrival, while other targets go
//! on; a command for several targets holds all of their lanes. Everything durable is in the store, so any of these tasks may
//! be killed at any instant: a command that was not started is taken again, one that was is judged by [`resume`].
//!
//! The words used here: an *entry* is a row of the inbox, a *row* one of the outbox. An *order* is what policy grants (`stop`);
//! *work* is the same made absolute (2 → 0), as the journal has it. A *turn* is a command that holds its lane, with what the
//! journal knew before it. A *watch* is a rollout that is followed, a *job* what the journal keeps of it. *Drafts* become
//! *parcels* in the outbox, and are frozen at the first try to send them.

mod drift;
mod gate;
mod guarded;
mod history;
mod judging;
mod pinning;
mod restarting;
mod resume;
#[cfg(test)]
mod samples;
mod scaling;
mod subscription;
mod telling;
mod watching;
mod work;

pub use pinning::accept;
pub use telling::{advice, people};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::chat::Gesture;
use crate::cluster::{Cluster, Target};
use crate::policy::Rules;
use crate::reply::Proof;
use crate::store::inbox::Entry;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::usage::plan::Plan;
use crate::usage::watcher::Question;

/// Commands in work at one time: enough for every target of a small cluster, few enough not to flood its API server.
const IN_WORK: usize = 16;
/// Rows looked at in one scan of the inbox.
const SCAN: u32 = 256;
/// How long a stop waits for commands in work; what is not done then is in the journal. The room needs the rest of the
/// 10 s that a stop may take.
const GRACE: Duration = Duration::from_secs(4);
/// Between two tries to read or write the journal while the store fails.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// Finished commands are kept this long for `history`.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 90);

/// What may change while Pilothouse runs: made anew when the configuration is read again.
#[derive(Debug, Clone, PartialEq)]
pub struct Book {
    /// Who may do what.
    pub rules: Rules,
    /// The workloads that people may name.
    pub targets: Vec<Target>,
    /// What a command begins with in a room of many.
    pub prefix: String,
    /// Room for what nobody asked for.
    pub home_room: Option<String>,
    /// How long a rollout may take.
    pub rollout_deadline: SignedDuration,
    /// Repeat what is no command.
    pub echo: bool,
    /// Tell what nobody asked for.
    pub drift: bool,
    /// Master keys that the configuration pins.
    pub pins: BTreeMap<String, String>,
    /// What proves that a device is its user's.
    pub proof: Proof,
    /// What is watched of the subscription.
    pub usage: Plan,
}

impl Book {
    fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name == name)
    }

    fn names(&self) -> Vec<String> {
        self.targets.iter().map(|target| target.name.clone()).collect()
    }
}

/// Everything that the operator works with.
#[derive(Debug, Clone)]
pub struct Operator {
    store: Store,
    cluster: Cluster,
    book: watch::Receiver<Arc<Book>>,
    inbox: Arc<Notify>,
    outbox: Arc<Notify>,
    gestures: mpsc::Sender<Gesture>,
    metrics: Metrics,
    watchers: mpsc::UnboundedSender<watching::Job>,
    usage: mpsc::Sender<Question>,
    shutdown: CancellationToken,
}

/// The doors of the operator to the rest of the daemon.
#[derive(Debug)]
pub struct Doors {
    /// The journal.
    pub store: Store,
    /// The cluster.
    pub cluster: Cluster,
    /// The rules, read again when they change.
    pub book: watch::Receiver<Arc<Book>>,
    /// Something is in the inbox.
    pub inbox: Arc<Notify>,
    /// Something is in the outbox.
    pub outbox: Arc<Notify>,
    /// Signs of life for the room.
    pub gestures: mpsc::Sender<Gesture>,
    /// Counters.
    pub metrics: Metrics,
    /// Beats with each turn of the loop.
    pub pulse: watch::Sender<Option<Timestamp>>,
    /// Has the subscription's provider asked.
    pub usage: mpsc::Sender<Question>,
}

/// Runs until `shutdown`, then finishes what is in work for a few seconds.
///
/// # Errors
/// Where a task panicked: that is a defect, and the process must end.
pub async fn run(doors: Doors, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (watchers, jobs) = mpsc::unbounded_channel();
    let Doors { store, cluster, book, inbox, outbox, gestures, metrics, pulse, usage } = doors;
    let operator = Operator {
        store,
        cluster,
        book,
        inbox,
        outbox,
        gestures,
        metrics,
        watchers,
        usage,
        shutdown: shutdown.clone(),
    };
    let operator = Arc::new(operator);
    let interrupted = operator.resume().await.context("reading the journal at the start")?;
    let mut floor = Floor::new(operator, jobs, pulse);
    floor.take_up(interrupted);
    floor.run(shutdown).await
}

/// One command in work: its row, its lanes, and how it went.
type Worked = (i64, Vec<String>, Result<(), StoreError>);

/// The loop's own state: who works where.
struct Floor {
    operator: Arc<Operator>,
    jobs: mpsc::UnboundedReceiver<watching::Job>,
    works: JoinSet<Worked>,
    busy: HashSet<String>,
    taken: HashSet<i64>,
    /// Those of `taken` that a kill interrupted. They may wait for the API server, and take nobody's place meanwhile.
    interrupted: HashSet<i64>,
    watches: JoinSet<i64>,
    records: JoinSet<()>,
    watched: HashMap<i64, (String, AbortHandle)>,
    /// Nothing is begun before this, after the store failed.
    paused_until: Option<Instant>,
    pulse: watch::Sender<Option<Timestamp>>,
}

impl Floor {
    fn new(
        operator: Arc<Operator>,
        jobs: mpsc::UnboundedReceiver<watching::Job>,
        pulse: watch::Sender<Option<Timestamp>>,
    ) -> Self {
        Self {
            operator,
            jobs,
            works: JoinSet::new(),
            busy: HashSet::new(),
            taken: HashSet::new(),
            interrupted: HashSet::new(),
            watches: JoinSet::new(),
            records: JoinSet::new(),
            watched: HashMap::new(),
            paused_until: None,
            pulse,
        }
    }

    /// Begins with what the last process left started: each holds its lane before anything new is looked at.
    fn take_up(&mut self, interrupted: Vec<(Entry, String)>) {
        for (entry, lane) in interrupted {
            let operator = Arc::clone(&self.operator);
            let (id, lanes) = (entry.id, vec![lane]);
            self.busy.extend(lanes.iter().cloned());
            self.taken.insert(id);
            self.interrupted.insert(id);
            self.works.spawn(async move { (id, lanes, operator.finish_interrupted(entry).await) });
        }
    }

    async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut drift = std::pin::pin!(Arc::clone(&self.operator).tell_drift());
        let mut pruning = tokio::time::interval(Duration::from_hours(1));
        let mut beat = tokio::time::interval(Duration::from_secs(5));
        let inbox = Arc::clone(&self.operator.inbox);
        loop {
            // Asked for before the scan, so that nothing that comes in meanwhile is overslept.
            let woken = inbox.notified();
            let pause = self.scan().await;
            self.pulse.send_replace(Some(now()));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = woken => {}
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => {}
                Some(done) = self.works.join_next() => self.finished(done)?,
                Some(job) = self.jobs.recv() => self.watch(job),
                Some(ended) = self.watches.join_next() => self.unwatched(ended)?,
                Some(ended) = self.records.join_next() => ended.context("the record of an order panicked")?,
                ended = &mut drift => anyhow::bail!("the watch over unasked changes ended: {ended:?}"),
                _ = pruning.tick() => self.prune().await,
                _ = beat.tick() => {}
            }
        }
        self.wind_down().await
    }

    /// Gives every command whose lane is free to a task. Gives how long to wait where the store could not be read.
    async fn scan(&mut self) -> Option<Duration> {
        if let Some(until) = self.paused_until {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Some(left);
            }
            self.paused_until = None;
        }
        let entries = match self.operator.store.received(SCAN).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "the inbox cannot be read: nothing is acted on");
                return Some(STORE_PAUSE);
            }
        };
        let mut blocked = HashSet::new();
        let fresh: Vec<_> = entries.into_iter().filter(|entry| !self.taken.contains(&entry.id)).collect();
        let fresh = match self.operator.tell_stale(fresh, now()).await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::error!(%error, "the journal cannot be written: nothing is acted on");
                return Some(STORE_PAUSE);
            }
        };
        for entry in fresh {
            if self.works.len().saturating_sub(self.interrupted.len()) >= IN_WORK {
                break;
            }
            let lanes = self.operator.lanes(&entry);
            let free = lanes.iter().all(|lane| !self.busy.contains(lane) && !blocked.contains(lane));
            // Whoever comes later for one of these lanes waits too: the order of arrival holds.
            blocked.extend(lanes.iter().cloned());
            if !free {
                continue;
            }
            self.busy.extend(lanes.iter().cloned());
            self.taken.insert(entry.id);
            let operator = Arc::clone(&self.operator);
            let span = tracing::info_span!("command", id = entry.id, who = %entry.sender);
            self.works.spawn(
                async move {
                    let id = entry.id;
                    let result = operator.handle(entry).await;
                    (id, lanes, result)
                }
                .instrument(span),
            );
        }
        None
    }

    fn finished(&mut self, done: Result<Worked, tokio::task::JoinError>) -> anyhow::Result<()> {
        let (id, lanes, result) = done.context("a command's task panicked")?;
        for lane in &lanes {
            self.busy.remove(lane);
        }
        self.taken.remove(&id);
        self.interrupted.remove(&id);
        if let Err(error) = result {
            // Nothing was done yet: it is looked at again, once the store has had a moment.
            tracing::error!(id, %error, "the journal cannot be written: nothing is acted on");
            self.paused_until = Some(Instant::now() + STORE_PAUSE);
        }
        self.operator.outbox.notify_one();
        Ok(())
    }

    fn watch(&mut self, job: watching::Job) {
        let key = job.target.key();
        // `Store::start` has ended the older watches of this target in the journal; here their tasks are stopped.
        self.watched.retain(|_, (target, handle)| {
            let older = *target == key;
            if older {
                handle.abort();
            }
            !older
        });
        let inbox = job.inbox;
        let span = tracing::info_span!("rollout", id = inbox, target = %key);
        let (operator, order) = (Arc::clone(&self.operator), job.clone());
        // Beside the watch, which a newer order ends: what was done comes on record all the same.
        self.records.spawn(async move { operator.record(order).await }.instrument(span.clone()));
        let operator = Arc::clone(&self.operator);
        let handle = self.watches.spawn(
            async move {
                operator.follow(&job).await;
                inbox
            }
            .instrument(span),
        );
        self.watched.insert(inbox, (key, handle));
    }

    fn unwatched(&mut self, ended: Result<i64, tokio::task::JoinError>) -> anyhow::Result<()> {
        match ended {
            Ok(inbox) => {
                // One that was given back goes on under the same number.
                if self.watched.get(&inbox).is_some_and(|(_, handle)| handle.is_finished()) {
                    self.watched.remove(&inbox);
                }
                Ok(())
            }
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => Err(error).context("a rollout's task panicked"),
        }
    }

    async fn prune(&self) {
        if let Err(error) = self.operator.store.prune(now() - KEPT).await {
            tracing::warn!(%error, "old entries of the journal could not be removed");
        }
    }

    /// Finishes what is in work; watches go on after the next start, and write their records then.
    async fn wind_down(mut self) -> anyhow::Result<()> {
        self.watches.abort_all();
        self.records.abort_all();
        let finish = async {
            while let Some(done) = self.works.join_next().await {
                self.finished(done)?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(GRACE, finish).await.unwrap_or_else(|_| {
            tracing::warn!("commands in work did not end in time; the journal has them");
            Ok(())
        })
    }
}

/// The operator's clock. What decides takes the time as a parameter.
#[expect(clippy::disallowed_methods, reason = "the operator reads the clock here alone")]
fn now() -> Timestamp {
    Timestamp::now()
}
