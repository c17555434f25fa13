//! The loop that asks, takes in what comes, and says what follows. The only place of this module that reads a clock.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bucket::{Snapshot, Source};
use super::credential::days_left;
use super::cycle::ClosedWindow;
use super::decide::BucketState;
use super::digest::{self, Before};
use super::gate::{Gate, Kept};
use super::guard::{Guard, Stepped, View};
use super::overview::{self, readable};
use super::plan::Plan;
use super::source::{Adapter, SourceError};
use crate::chat;
use crate::reply::Report;
use crate::store::outbox::Draft;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// Trouble that a person must end is told once in this time.
const TROUBLE_PAUSE: SignedDuration = SignedDuration::from_hours(24);
/// Something that is told once for ever is told once in this time.
const ONCE: SignedDuration = SignedDuration::from_hours(24 * 365);
/// Between two clearings of what is old.
const PRUNE: std::time::Duration = std::time::Duration::from_hours(6);
/// How long a question that is on its way is waited for at the end.
const LEAVE: std::time::Duration = std::time::Duration::from_secs(7);
/// Words that found no room for so long are not news any more.
const NEWS: SignedDuration = SignedDuration::from_hours(24);
/// Keys of answers that are told and counted; who sends more of them sends nonsense.
const MOST_UNKNOWN: usize = 256;
/// The loop looks at least this often at clocks that were set and accounts that became stale.
const LOOK: std::time::Duration = std::time::Duration::from_mins(1);

/// Somebody wants the provider asked now.
#[derive(Debug)]
pub struct Question {
    /// Answered when every account that may be asked was; the error says when the first may be.
    pub answer: oneshot::Sender<Result<(), Timestamp>>,
}

/// The doors of the watcher to the rest of the daemon.
#[derive(Debug)]
pub struct Doors {
    /// Pilothouse's memory.
    pub store: Store,
    /// What is watched, made anew when the configuration is read again.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// What is asked.
    pub adapters: Vec<Adapter>,
    /// What workstations tell.
    pub pushed: mpsc::Receiver<Snapshot>,
    /// What people ask.
    pub questions: mpsc::Receiver<Question>,
    /// Something is in the inbox.
    pub inbox: Arc<Notify>,
    /// Something is in the outbox.
    pub outbox: Arc<Notify>,
    /// Counters.
    pub metrics: Metrics,
    /// The last turn of the loop: `/livez` asks.
    pub pulse: watch::Sender<Option<Timestamp>>,
}

/// Watches until `end`.
///
/// # Errors
/// Where a task panicked.
pub async fn run(doors: Doors, end: CancellationToken) -> anyhow::Result<()> {
    let Doors { store, plan, adapters, mut pushed, mut questions, inbox, outbox, metrics, pulse } = doors;
    let mut watcher = Watcher::begin(store, plan, adapters, (inbox, outbox), metrics).await?;
    let mut prune = tokio::time::interval(PRUNE);
    loop {
        pulse.send_replace(Some(now()));
        watcher.ask_due(now());
        let nap = watcher.nap(now());
        tokio::select! {
            () = end.cancelled() => {
                // A renewal that is on its way has used the refresh token up: what comes of it is still written.
                let rest = async { while watcher.asking.join_next().await.is_some() {} };
                if tokio::time::timeout(LEAVE, rest).await.is_err() {
                    tracing::warn!("a provider did not answer before the end");
                }
                return Ok(());
            }
            Some(asked) = watcher.asking.join_next() => {
                let (index, answer) = asked?;
                watcher.answered(index, answer, now()).await;
            }
            Some(snapshot) = pushed.recv() => {
                watcher.take(snapshot, now()).await;
                watcher.guard(now()).await;
            }
            Some(question) = questions.recv() => watcher.question(question, now()),
            _ = prune.tick() => if let Err(error) = watcher.store.prune_usage(now()).await {
                tracing::warn!(%error, "old samples could not be forgotten");
            },
            () = tokio::time::sleep(nap) => watcher.guard(now()).await,
        }
    }
}

type Answered = (usize, Result<Snapshot, SourceError>);

struct Watcher {
    store: Store,
    plan: watch::Receiver<Arc<Plan>>,
    adapters: Vec<Arc<Adapter>>,
    gates: Vec<Gate>,
    busy: HashSet<usize>,
    asking: JoinSet<Answered>,
    /// Who waits for the answers that are on their way.
    waiting: Vec<oneshot::Sender<Result<(), Timestamp>>>,
    /// Keys that this version does not know, each told once.
    unknown: HashSet<String>,
    /// Who has answered, or failed to, since the start: before that the guard would take old numbers for silence.
    looked: HashSet<usize>,
    since: Timestamp,
    inbox: Arc<Notify>,
    outbox: Arc<Notify>,
    metrics: Metrics,
}

impl Watcher {
    async fn begin(
        store: Store,
        plan: watch::Receiver<Arc<Plan>>,
        adapters: Vec<Adapter>,
        (inbox, outbox): (Arc<Notify>, Arc<Notify>),
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let (now, interval) = (now(), plan.borrow().interval);
        let count = u32::try_from(adapters.len()).unwrap_or(u32::MAX);
        let mut gates = Vec::new();
        for (index, adapter) in (0..).zip(&adapters) {
            let row = store.account(&adapter.row()).await?;
            gates.push(Gate::begin(interval, (index, count), Kept::from(&row), now));
        }
        Ok(Self {
            store,
            plan,
            adapters: adapters.into_iter().map(Arc::new).collect(),
            gates,
            busy: HashSet::new(),
            asking: JoinSet::new(),
            waiting: Vec::new(),
            unknown: HashSet::new(),
            looked: HashSet::new(),
            since: now,
            inbox,
            outbox,
            metrics,
        })
    }

    /// Asks whoever is due and not being asked.
    fn ask_due(&mut self, now: Timestamp) {
        for index in 0..self.adapters.len() {
            if self.gates[index].is_due(now) {
                self.ask(index, now);
            }
        }
    }

    fn ask(&mut self, index: usize, now: Timestamp) {
        if self.busy.insert(index) {
            let adapter = Arc::clone(&self.adapters[index]);
            self.asking.spawn(async move { (index, adapter.ask(now).await) });
        }
    }

    fn nap(&self, now: Timestamp) -> std::time::Duration {
        let due =
            (0..self.gates.len()).filter(|index| !self.busy.contains(index)).map(|index| self.gates[index].next());
        let until = due.min().map_or(LOOK, |at| at.duration_since(now).try_into().unwrap_or_default());
        until.min(LOOK)
    }

    fn question(&mut self, question: Question, now: Timestamp) {
        let mut first: Option<Timestamp> = None;
        for index in 0..self.adapters.len() {
            match self.gates[index].may_poll(now) {
                Ok(()) => self.ask(index, now),
                Err(at) => first = Some(first.map_or(at, |first| first.min(at))),
            }
        }
        match first {
            Some(at) if self.busy.is_empty() => {
                let _ = question.answer.send(Err(at));
            }
            // Nobody to ask: what is pushed is all there is.
            None if self.busy.is_empty() => {
                let _ = question.answer.send(Ok(()));
            }
            _ => self.waiting.push(question.answer),
        }
    }

    async fn answered(&mut self, index: usize, answer: Result<Snapshot, SourceError>, now: Timestamp) {
        let adapter = Arc::clone(&self.adapters[index]);
        let account = adapter.account();
        let word = answer.as_ref().map_or_else(SourceError::word, |_| "good");
        let asked = self.gates[index].hear(&answer, now, rand::random());
        self.metrics.usage_polled(account, adapter.kind().word(), word);
        self.metrics.usage_blocked(account, asked.blocked_until.map(Timestamp::as_second));
        if let Err(error) = self.store.note_asked(&adapter.row(), asked, now).await {
            tracing::error!(%error, account, "how asking went could not be written");
        }
        match answer {
            Ok(snapshot) => self.take(snapshot, now).await,
            Err(error) => {
                tracing::warn!(account, source = adapter.kind().word(), %error, "usage was not read");
                if error.needs_a_person() {
                    self.tell_trouble(account, &error, now).await;
                }
            }
        }
        self.tell_dying(&adapter, now).await;
        self.looked.insert(index);
        self.guard(now).await;
        // Only now: who waits for it may ask again with its answer.
        self.busy.remove(&index);
        if self.busy.is_empty() {
            for waiting in self.waiting.drain(..) {
                let _ = waiting.send(Ok(()));
            }
        }
    }

    /// Takes an answer in: everything that follows from it is written in one transaction.
    async fn take(&mut self, snapshot: Snapshot, now: Timestamp) {
        self.note_unknown(&snapshot, now).await;
        if let Err(error) = self.learn(&snapshot, now).await {
            // Nothing counts as told: the next answer says it again.
            tracing::error!(%error, account = snapshot.account, "what usage says could not be written");
        }
        self.metrics.usage_seen(&snapshot.account, snapshot.at.as_second());
    }

    async fn learn(&self, snapshot: &Snapshot, now: Timestamp) -> Result<(), StoreError> {
        let plan = Arc::clone(&self.plan.borrow());
        if snapshot.source != Source::AnthropicOauth {
            self.note_told(snapshot, &plan, now).await?;
        }
        let states = overview::states(&self.store).await?;
        let closed = overview::weeks(&self.store).await?;
        let mut told = Vec::new();
        for reading in &snapshot.readings {
            told.push((reading.bucket.clone(), self.store.open_alerts(&reading.bucket.to_string()).await?));
        }
        let room = chat::home_room(&self.store, plan.home_room.as_deref()).await?;
        if let Some(room) = &room
            && self.store.adopt(room, now - NEWS).await? > 0
        {
            self.outbox.notify_one();
        }
        let muted = self.store.muted_until(now).await?.is_some();
        let before =
            Before { states: &states, closed: &closed, told: &told, room: room.as_deref().unwrap_or_default(), muted };
        let after = digest::digest(snapshot, before, &plan, now);
        for (bucket, event) in &after.events {
            tracing::info!(%bucket, event = event.name(), "the subscription");
        }
        if room.is_none() && !after.learned.alerts.is_empty() {
            tracing::warn!("an alert waits for a room: set matrix.home_room, or say something to Pilothouse in one");
        }
        let speaks = !after.learned.alerts.is_empty() || !after.learned.over.is_empty();
        self.store.learn(after.learned, now).await?;
        if speaks {
            self.outbox.notify_one();
        }
        self.foretell(&after.states, &closed, &plan);
        Ok(())
    }

    /// Keeps the answer of another source as the account's, unless the endpoint's own is there and not stale: it says the
    /// most, and what is decided stands on the fresher value anyway.
    async fn note_told(&self, snapshot: &Snapshot, plan: &Plan, now: Timestamp) -> Result<(), StoreError> {
        let known: Option<Snapshot> =
            self.store.account(&snapshot.account).await?.snapshot.as_deref().and_then(readable);
        if known.is_none_or(|known| known.source >= snapshot.source || plan.is_stale(&known, now))
            && let Ok(json) = serde_json::to_string(snapshot)
        {
            self.store.note_told(&snapshot.account, json, snapshot.at).await?;
        }
        Ok(())
    }

    /// Lets the guard look at everything that is known.
    async fn guard(&self, now: Timestamp) {
        let plan = Arc::clone(&self.plan.borrow());
        let asked = |index| self.looked.contains(&index) || self.gates[index].blocked_until(now).is_some();
        let early = now.duration_since(self.since) < plan.interval;
        if early && !(0..self.gates.len()).all(asked) {
            return;
        }
        let step = async {
            let states = overview::states(&self.store).await?;
            let states: Vec<BucketState> = states.into_iter().filter(|state| plan.watches(&state.bucket)).collect();
            let closed = overview::weeks(&self.store).await?;
            let view = |state: &BucketState| {
                let outlook = state.outlook(plan.settings.estimator, &overview::of(&state.bucket, &closed));
                View::of(state, &outlook)
            };
            Guard::new(plan.guard.clone()).step(&self.store, states.iter().filter_map(view).collect(), now).await
        };
        match step.await {
            Ok(Stepped { requests, notices }) => {
                if requests > 0 {
                    self.inbox.notify_one();
                }
                if notices > 0 {
                    self.outbox.notify_one();
                }
            }
            Err(error) => tracing::error!(%error, "the usage guard could not look"),
        }
    }

    /// Shows what is decided as metrics: the freshest value of each bucket, whoever said it.
    fn foretell(&self, states: &[BucketState], closed: &[ClosedWindow], plan: &Plan) {
        for state in states.iter().filter(|state| plan.watches(&state.bucket)) {
            let name = state.bucket.to_string();
            if let Some(window) = state.window() {
                self.metrics.usage(&name, window.latest().percent, window.ends_at.map(Timestamp::as_second));
            }
            let outlook = state.outlook(plan.settings.estimator, &overview::of(&state.bucket, closed));
            self.metrics.usage_forecast(&name, outlook.forecast().map(|forecast| forecast.probability));
        }
    }

    /// Says once which keys this version does not know, and tells the room where a window cannot be read.
    async fn note_unknown(&mut self, snapshot: &Snapshot, now: Timestamp) {
        for key in &snapshot.unknown {
            if self.unknown.len() < MOST_UNKNOWN && self.unknown.insert(key.clone()) {
                tracing::info!(
                    key,
                    account = snapshot.account,
                    "the provider says something that this version does not know"
                );
                self.metrics.usage_unknown(key);
            }
        }
        if !snapshot.unreadable.is_empty() {
            let (account, windows) = (snapshot.account.clone(), snapshot.unreadable.clone());
            let key = format!("usage/unreadable/{account}/{}", windows.join(","));
            self.tell_once(&key, ONCE, &Report::UsageUnreadable { account, windows }, now).await;
        }
    }

    async fn tell_trouble(&self, account: &str, error: &SourceError, now: Timestamp) {
        let report = Report::UsageTrouble { account: account.to_owned(), why: error.to_string() };
        self.tell_once(&format!("usage/trouble/{account}/{}", error.word()), TROUBLE_PAUSE, &report, now).await;
    }

    async fn tell_dying(&self, adapter: &Adapter, now: Timestamp) {
        let Adapter::Anthropic(anthropic) = adapter else { return };
        let ends_at = anthropic.login().ends_at();
        let (Some(days), Some(at)) = (days_left(ends_at, now), ends_at) else { return };
        let account = adapter.account().to_owned();
        // To half a day: each renewal may say it a second later.
        let key = format!("usage/login/{account}/{}/{days}", (at.as_second() + 43_200) / 86_400);
        self.tell_once(&key, ONCE, &Report::LoginDies { account, days }, now).await;
    }

    /// Says something in the room for alerts, at most once in `every`.
    async fn tell_once(&self, key: &str, every: SignedDuration, report: &Report, now: Timestamp) {
        let tell = async {
            let plan = Arc::clone(&self.plan.borrow());
            let Some(room) = chat::home_room(&self.store, plan.home_room.as_deref()).await? else { return Ok(()) };
            let txn = digest::hashed(&[key, &now.as_millisecond().to_string()]);
            let draft = Draft { txn, room, payload: digest::payload(report, vec![]) };
            if self.store.say_once(key, every, draft, now).await? {
                self.outbox.notify_one();
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = tell.await {
            tracing::warn!(%error, key, "a notice could not be written");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the loop reads the clock")]
fn now() -> Timestamp {
    Timestamp::now()
}
