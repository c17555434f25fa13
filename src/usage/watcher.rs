//! The loop that asks, takes in what comes, and says what follows. The only place of this module that reads a clock.

mod telling;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bucket::{Snapshot, Source};
use super::cycle::ClosedWindow;
use super::decide::{BucketState, News};
use super::digest::{self, Before};
use super::gate::{Gate, Kept};
use super::guard::{Guard, Stepped, View};
use super::overview;
use super::plan::Plan;
use super::source::{Adapter, SourceError};
use crate::chat;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// Between two clearings of what is old.
const PRUNE: std::time::Duration = std::time::Duration::from_hours(6);
/// How long a question that is on its way is waited for at the end.
const LEAVE: std::time::Duration = std::time::Duration::from_secs(7);
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
                let known = watcher.take(snapshot, now()).await;
                watcher.guard(known, now()).await;
            }
            Some(question) = questions.recv() => watcher.question(question, now()),
            _ = prune.tick() => if let Err(error) = watcher.store.prune_usage(now()).await {
                tracing::warn!(%error, "old samples could not be forgotten");
            },
            () = tokio::time::sleep(nap) => watcher.guard(None, now()).await,
        }
    }
}

type Answered = (usize, Result<Snapshot, SourceError>);

/// What is decided, as the store has it: read once for each answer.
struct Known {
    states: Vec<BucketState>,
    closed: Vec<ClosedWindow>,
}

impl Known {
    async fn read(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { states: overview::states(store).await?, closed: overview::weeks(store).await? })
    }
}

struct Watcher {
    store: Store,
    plan: watch::Receiver<Arc<Plan>>,
    adapters: Vec<Arc<Adapter>>,
    gates: Vec<Gate>,
    /// When each has last answered, earlier processes included; `None`: never, as far as is known.
    good: Vec<Option<Timestamp>>,
    /// Why each fails now, so that the log reads it once.
    failing: HashMap<usize, String>,
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
        let (mut gates, mut good) = (Vec::new(), Vec::new());
        for (index, adapter) in (0..).zip(&adapters) {
            let row = store.account(&adapter.row()).await?;
            gates.push(Gate::begin(interval, (index, count), Kept::from(&row), now));
            good.push(row.good_at);
        }
        let watcher = Self {
            store,
            plan,
            adapters: adapters.into_iter().map(Arc::new).collect(),
            gates,
            good,
            failing: HashMap::new(),
            busy: HashSet::new(),
            asking: JoinSet::new(),
            waiting: Vec::new(),
            unknown: HashSet::new(),
            looked: HashSet::new(),
            since: now,
            inbox,
            outbox,
            metrics,
        };
        watcher.show_kept(now).await?;
        Ok(watcher)
    }

    /// Shows what an earlier process has left, so that a restart neither hides how old the numbers are nor that nobody may
    /// ask. Where there was no answer yet, the age counts from the start.
    async fn show_kept(&self, now: Timestamp) -> Result<(), StoreError> {
        let plan = Arc::clone(&self.plan.borrow());
        for ((adapter, gate), good) in self.adapters.iter().zip(&self.gates).zip(&self.good) {
            let (account, source) = (adapter.account(), adapter.kind().word());
            self.metrics.usage_seen(account, source, good.unwrap_or(self.since).as_second());
            self.metrics.usage_blocked(account, source, gate.blocked_until(now).map(Timestamp::as_second));
        }
        for account in &plan.accounts {
            if let Some(at) = self.store.account(account).await?.pushed_at {
                self.metrics.usage_seen(account, Source::Push.word(), at.as_second());
            }
        }
        self.show(&Known::read(&self.store).await?, &plan);
        Ok(())
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
        let until = asked.blocked_until.map(Timestamp::as_second);
        self.metrics.usage_blocked(account, adapter.kind().word(), until);
        if let Err(error) = self.store.note_asked(&adapter.row(), asked, now).await {
            tracing::error!(%error, account, "how asking went could not be written");
        }
        self.log(index, answer.as_ref().err());
        let known = match answer {
            Ok(snapshot) => {
                self.good[index] = Some(now);
                self.take(snapshot, now).await
            }
            Err(error) => {
                if error.needs_a_person() {
                    self.tell_trouble(account, &error, now).await;
                } else {
                    self.tell_outage(account, &error, now).await;
                }
                None
            }
        };
        self.tell_dying(&adapter, now).await;
        self.looked.insert(index);
        self.guard(known, now).await;
        // Only now: who waits for it may ask again with its answer.
        self.busy.remove(&index);
        if self.busy.is_empty() {
            for waiting in self.waiting.drain(..) {
                let _ = waiting.send(Ok(()));
            }
        }
    }

    /// Takes an answer in: everything that follows from it is written in one transaction. Gives what is decided then.
    async fn take(&mut self, snapshot: Snapshot, now: Timestamp) -> Option<Known> {
        self.note_unknown(&snapshot, now).await;
        self.metrics.usage_seen(&snapshot.account, snapshot.source.word(), snapshot.at.as_second());
        // Where it fails, nothing counts as told: the next answer says it again.
        let failed = |error: &StoreError| {
            tracing::error!(%error, account = snapshot.account, "what usage says could not be written");
        };
        self.learn(&snapshot, now).await.inspect_err(failed).ok()
    }

    async fn learn(&self, snapshot: &Snapshot, now: Timestamp) -> Result<Known, StoreError> {
        let plan = Arc::clone(&self.plan.borrow());
        if snapshot.source != Source::AnthropicOauth {
            overview::keep(&self.store, &plan, snapshot).await?;
        }
        let Known { states, mut closed } = Known::read(&self.store).await?;
        let known = states.iter().map(|state| &state.bucket).filter(|bucket| bucket.account == snapshot.account);
        let mut told = Vec::new();
        for bucket in known {
            told.push((bucket.clone(), self.store.open_alerts(&bucket.to_string()).await?));
        }
        let room = chat::home_room(&self.store, plan.home_room.as_deref()).await?;
        if let Some(room) = &room
            && chat::bring_home(&self.store, room, now).await?
        {
            self.outbox.notify_one();
        }
        let muted = self.store.muted_until(now).await?.is_some();
        let before =
            Before { states: &states, closed: &closed, told: &told, room: room.as_deref().unwrap_or_default(), muted };
        let after = digest::digest(snapshot, before, &plan, now);
        for (bucket, event) in &after.events {
            let name = event.name();
            if matches!(event.news, News::Predicted { .. }) {
                // For `usage accuracy` alone.
                tracing::debug!(%bucket, event = name, "usage is foretold");
            } else {
                tracing::info!(%bucket, event = name, "usage has news");
            }
        }
        if room.is_none() && !after.learned.alerts.is_empty() {
            tracing::warn!("an alert waits for a room: set matrix.home_room, or say something to Pilothouse in one");
        }
        closed.extend(after.learned.closed.iter().filter_map(digest::window));
        let known = Known { states: after.states, closed };
        let speaks = !after.learned.alerts.is_empty() || !after.learned.over.is_empty();
        self.store.learn(after.learned, now).await?;
        if speaks {
            self.outbox.notify_one();
        }
        self.show(&known, &plan);
        Ok(known)
    }

    /// Lets the guard look at everything that is known; without it, at what the store has.
    async fn guard(&self, known: Option<Known>, now: Timestamp) {
        let plan = Arc::clone(&self.plan.borrow());
        let asked = |index| self.looked.contains(&index) || self.gates[index].blocked_until(now).is_some();
        let early = now.duration_since(self.since) < plan.interval;
        if early && !(0..self.gates.len()).all(asked) {
            return;
        }
        let step = async {
            let Known { states, closed } = match known {
                Some(known) => known,
                None => Known::read(&self.store).await?,
            };
            let states = states.iter().filter(|state| plan.watches(&state.bucket));
            let view = |state: &BucketState| {
                let outlook = state.outlook(plan.settings.estimator, &overview::of(&state.bucket, &closed));
                View::of(state, &outlook)
            };
            Guard::new(plan.guard.clone()).step(&self.store, states.filter_map(view).collect(), now).await
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
    fn show(&self, Known { states, closed }: &Known, plan: &Plan) {
        for state in states.iter().filter(|state| plan.watches(&state.bucket)) {
            let outlook = state.outlook(plan.settings.estimator, &overview::of(&state.bucket, closed));
            let name = state.bucket.to_string();
            match View::of(state, &outlook) {
                Some(View { percent, resets_at, probability, .. }) => {
                    self.metrics.usage(&name, percent, resets_at.map(Timestamp::as_second), probability);
                }
                None => self.metrics.usage_forgotten(&name),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the loop reads the clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests;
