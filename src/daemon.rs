//! The daemon: builds every part, spawns every task, ends when any ends.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::admin::{self, Admin};
use crate::chat::outside::is_logged_in;
use crate::chat::{self, Chat, Health, LOCK_PATIENCE, Lock, OpenError};
use crate::cluster::{Cluster, Target};
use crate::command::Verb;
use crate::config::{self, Config, GuardMode, Loaded, Sources, TrustMode, Usage};
use crate::operator::{self, Book};
use crate::policy::{Bounds, Grant, Rules};
use crate::reply::Proof;
use crate::shutdown::Wishes;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::usage::credential::secret;
use crate::usage::guard::{self, Guarded};
use crate::usage::plan::{Hours, Plan};
use crate::usage::source::push;
use crate::usage::{sources, watcher};

/// Name of Pilothouse's own database, beside the Matrix store.
pub const DATABASE: &str = "pilothouse.sqlite3";
/// All tasks end within this time after the wish to end; under the 10 s that a stop may take.
const GRACE: Duration = Duration::from_secs(9);
/// What is left of those 10 s for folding the journal's log into its file.
const CLOSING: Duration = Duration::from_millis(400);
/// The operator's part of it: after this the chat ends too.
const OPERATOR_GRACE: Duration = Duration::from_secs(5);
/// Pushes of workstations that may wait to be taken in.
const PUSHES: usize = 32;
/// People who may wait for the provider's answer.
const QUESTIONS: usize = 16;
/// Name of the operator's task: the chat ends after it.
const OPERATOR: &str = "operator";
/// Between two looks at the configuration file: a mounted ConfigMap changes without a signal.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Runs until the wish to end, or until a part ends by itself.
///
/// # Errors
/// Where a part cannot be built, or ended although nobody wished it.
pub async fn run(sources: Sources, loaded: Loaded, wishes: Wishes) -> anyhow::Result<()> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let Config { matrix, trust, kubernetes, admin, usage, .. } = loaded.config.clone();
    // A volume that cannot be written is told before anybody is waited for.
    database(&matrix.store)?;
    // Before anything is acted on: two operators on one journal would do everything twice. And before the journal is brought
    // up: the process before may be of an older version, and must find it as it was if it goes on.
    let lock = tokio::select! {
        lock = Lock::take(&matrix.store, LOCK_PATIENCE) => lock?,
        () = wishes.end.cancelled() => return Ok(()),
    };
    let store = open_store(&matrix.store)?;
    #[expect(clippy::disallowed_methods, reason = "the daemon begins now")]
    let now = Timestamp::now();
    if chat::begin(&store, is_logged_in(&matrix.store).unwrap_or(false), now).await? {
        tracing::warn!(
            "{DATABASE} knows nothing, and this device has logged in before: pins, history and remembered replicas were lost. Everybody \
             is met anew: compare their keys with `trust`, or name them in trust.pins. Old messages that the homeserver repeats are \
             not known as such: begin the Matrix store anew, too, if it is not trusted"
        );
    }
    let cluster = Cluster::connect(&kubernetes).await.context("building the Kubernetes client")?;
    let metrics = Metrics::default();
    let (book_tx, book) = watch::channel(Arc::new(self::book(&loaded.config)));
    let (users_tx, users) = watch::channel(Arc::new(loaded.config.policy.users.clone()));
    // Kept to the end: who reads the rules must not take the end of their reader for the end of the rules.
    let (plan_tx, plan) = watch::channel(Arc::new(book.borrow().usage.clone()));
    let _rules = (book_tx.clone(), users_tx.clone(), plan_tx.clone());
    let (inbox, outbox) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let health = watch::Sender::new(Health::default());
    let (pulse_tx, pulse) = watch::channel(None);
    let (usage_tx, usage_pulse) = watch::channel(None);
    let (gestures, shown) = chat::gestures();

    // A token of its own, so that the end of one part is not taken for somebody's wish.
    let end = CancellationToken::new();
    // The room is left last: what the operator's last commands say still goes out.
    let silence = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let probes = Admin {
        chat: health.subscribe(),
        cluster: cluster.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        pulse,
        usage: usage_pulse,
    };
    spawn(&mut tasks, "admin", admin::serve(admin.listen, probes, end.clone()));
    let reading = reload(
        sources,
        loaded,
        wishes.reload.clone(),
        Readers { book: book_tx, users: users_tx, plan: plan_tx },
        end.clone(),
    );
    spawn(&mut tasks, "reload", reading);
    let (push_tx, pushed) = mpsc::channel(PUSHES);
    let (questions_tx, questions) = mpsc::channel(QUESTIONS);
    let adapters = sources::adapters(&usage, &store, Some(&|secret| secret::Place::new(cluster.client(), secret)))?;
    if let Some(settings) = sources::listener(&usage) {
        spawn(&mut tasks, "push", push::serve(settings, store.clone(), push_tx.clone(), end.clone()));
    }
    let watched = watcher::Doors {
        store: store.clone(),
        plan,
        adapters,
        pushed,
        questions,
        inbox: Arc::clone(&inbox),
        outbox: Arc::clone(&outbox),
        metrics: metrics.clone(),
        pulse: usage_tx,
    };
    spawn(&mut tasks, "usage", watcher::run(watched, end.clone()));
    spawn(&mut tasks, "preflight", preflight(cluster.clone(), book.clone(), end.clone()));
    let gate = operator::Doors {
        store: store.clone(),
        cluster,
        book,
        inbox: Arc::clone(&inbox),
        outbox: Arc::clone(&outbox),
        gestures,
        metrics,
        pulse: pulse_tx,
        usage: questions_tx,
    };
    spawn(&mut tasks, OPERATOR, operator::run(gate, end.clone()));
    let doors = chat::Doors { store: store.clone(), users, inbox, outbox, gestures: shown, health };
    spawn(&mut tasks, "chat", room(matrix, trust, lock, doors, silence.clone()));

    let result = tokio::select! {
        () = wishes.end.cancelled() => Ok(()),
        Some(ended) = tasks.join_next() => Err(unasked(ended)),
    };
    end.cancel();
    let ended = wind_down(tasks, &silence).await;
    close(store).await;
    result.and(ended)
}

/// Folds the journal's log into its file. The journal is on the disk already: this only saves the next start a little work, and a
/// slow disk does not hold the end up.
async fn close(store: Store) {
    let closing = tokio::task::spawn_blocking(move || store.close());
    match tokio::time::timeout(CLOSING, closing).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => {
            tracing::warn!(%error, "the store's log could not be folded into its file; the next start does it");
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("the store's log could not be folded into its file in time; the next start does it");
        }
    }
}

type Ended = (&'static str, anyhow::Result<()>);

fn spawn(
    tasks: &mut JoinSet<Ended>,
    name: &'static str,
    part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    let span = tracing::info_span!("part", name);
    tasks.spawn(async move { (name, part.await) }.instrument(span));
}

/// Says why a part that nobody asked to end has ended: the process must not go on without it.
fn unasked(ended: Result<Ended, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok((name, Ok(()))) => anyhow::anyhow!("the part `{name}` ended although nobody asked it to"),
        // Why a login does not work is a sentence for people by itself.
        Ok((_, Err(error))) if error.is::<OpenError>() => error,
        Ok((name, Err(error))) => error.context(format!("the part `{name}` failed")),
        Err(error) => anyhow::Error::new(error).context("a part panicked"),
    }
}

/// Joins every part: the operator first, then the chat, which still sends what the operator has said.
async fn wind_down(mut tasks: JoinSet<Ended>, silence: &CancellationToken) -> anyhow::Result<()> {
    let mut operator_works = true;
    let join = async {
        let mut result = Ok(());
        let patience = tokio::time::sleep(OPERATOR_GRACE);
        let mut patience = std::pin::pin!(patience);
        loop {
            let ended = tokio::select! {
                ended = tasks.join_next() => ended,
                () = &mut patience, if operator_works => {
                    operator_works = false;
                    silence.cancel();
                    continue;
                }
            };
            match ended {
                None => return result,
                Some(Ok((name, Ok(())))) if name == OPERATOR => silence.cancel(),
                Some(Ok((_, Ok(())))) => {}
                Some(ended) => {
                    silence.cancel();
                    result = result.and(Err(unasked(ended)));
                }
            }
        }
    };
    tokio::time::timeout(GRACE, join).await.unwrap_or_else(|_| {
        tracing::warn!("not every part ended in time; the journal has what is not done");
        Ok(())
    })
}

/// Opens Pilothouse's own database in the folder of the Matrix store.
///
/// # Errors
/// Where the folder cannot be made or the file cannot be opened.
pub fn open_store(folder: &Path) -> anyhow::Result<Store> {
    let path = database(folder)?;
    Store::open(&path).with_context(|| format!("opening {}", path.display()))
}

/// Opens it for a subcommand: where there is one already its schema is left as it is, because the daemon that works on it
/// may be of an older version.
///
/// # Errors
/// Where the folder cannot be made, or the file cannot be opened or is of another version.
pub fn open_store_beside(folder: &Path) -> anyhow::Result<Store> {
    if !has_store(folder) {
        return open_store(folder);
    }
    let path = database(folder)?;
    Store::open_beside(&path).with_context(|| format!("opening {}", path.display()))
}

/// Says whether a start has made the store: one that ended before it could make the schema leaves an empty file.
#[must_use]
pub fn has_store(folder: &Path) -> bool {
    std::fs::metadata(folder.join(DATABASE)).is_ok_and(|file| file.len() > 0)
}

/// Makes the folder and the file where they are missing, and tries to write the file.
fn database(folder: &Path) -> anyhow::Result<PathBuf> {
    let unusable =
        || format!("matrix.store = {}: it cannot be made or written; mount a writable volume there", folder.display());
    // What people said and whose keys count is nobody else's business on the machine.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(unusable)?;
    let path = folder.join(DATABASE);
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    drop(file.with_context(unusable)?);
    Ok(path)
}

/// Opens the room, however long the homeserver stays away, and lives in it until `silence`.
async fn room(
    matrix: config::Matrix,
    trust: config::Trust,
    lock: Lock,
    doors: chat::Doors,
    silence: CancellationToken,
) -> anyhow::Result<()> {
    let chat = tokio::select! {
        chat = Chat::open(matrix, trust, lock, doors) => chat?,
        () = silence.cancelled() => return Ok(()),
    };
    tracing::info!(user = chat.user_id(), version = env!("CARGO_PKG_VERSION"), "Pilothouse runs");
    for advice in chat.advice() {
        tracing::warn!("{advice}");
    }
    chat.run(silence).await
}

/// Says in the log what cannot be done or seen for want of a permission, once the API server answers and whenever the
/// targets change.
async fn preflight(
    cluster: Cluster,
    mut book: watch::Receiver<Arc<Book>>,
    end: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let targets = book.borrow_and_update().targets.clone();
        let look = async {
            loop {
                let found = cluster.access(&targets).await;
                if found.iter().all(|access| access.allowed.is_ok()) {
                    return found;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let found = tokio::select! {
            found = look => found,
            () = end.cancelled() => return Ok(()),
        };
        for access in found.iter().filter(|access| access.allowed == Ok(false)) {
            let (permission, target) = (access.permission, &access.target);
            let missing = format!("{} {} in {}", permission.verb, permission.resource, target.namespace);
            if permission.required {
                tracing::error!(missing, "a permission is missing: {}", permission.lost_without);
            } else {
                tracing::info!(missing, "a permission is not given: {}", permission.lost_without);
            }
        }
        tokio::select! {
            changed = book.changed() => if changed.is_err() {
                end.cancelled().await;
                return Ok(());
            },
            () = end.cancelled() => return Ok(()),
        }
    }
}

struct Readers {
    book: watch::Sender<Arc<Book>>,
    users: watch::Sender<Arc<Vec<String>>>,
    plan: watch::Sender<Arc<Plan>>,
}

/// Reads rules and targets again when the file changes and on SIGHUP, or says why not.
async fn reload(
    sources: Sources,
    first: Loaded,
    asked: Arc<Notify>,
    readers: Readers,
    end: CancellationToken,
) -> anyhow::Result<()> {
    let mut current = first;
    let mut seen = contents(&current);
    loop {
        let by_signal = tokio::select! {
            () = asked.notified() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
            () = end.cancelled() => return Ok(()),
        };
        let now_there = contents(&current);
        if !by_signal && now_there == seen {
            continue;
        }
        seen = now_there;
        match Config::load(&sources) {
            Err(findings) => tracing::error!("the configuration was not read again: {findings}"),
            Ok(new) => {
                if let Err(keys) = config::reloadable_difference(&current.config, &new.config) {
                    tracing::warn!("these keys need a restart and stay as they were: {}", keys.join(", "));
                }
                // What needs a restart stays: rules, targets, drift and what is told of the subscription are taken over.
                let Config { policy, targets, drift, usage, .. } = new.config;
                let Usage { probability, quiet_hours, mention, thresholds, rules, .. } = usage;
                let usage = Usage { probability, quiet_hours, mention, thresholds, rules, ..current.config.usage };
                current.config = Config { policy, targets, drift, usage, ..current.config };
                current.file = new.file;
                readers.users.send_replace(Arc::new(current.config.policy.users.clone()));
                let book = book(&current.config);
                readers.plan.send_replace(Arc::new(book.usage.clone()));
                readers.book.send_replace(Arc::new(book));
                tracing::info!(targets = current.config.targets.len(), "rules and targets were read again");
            }
        }
    }
}

fn contents(loaded: &Loaded) -> Option<Vec<u8>> {
    loaded.file.as_ref().and_then(|file| std::fs::read(file).ok())
}

/// Makes the operator's book from the configuration.
#[must_use]
pub fn book(config: &Config) -> Book {
    let targets = config.targets.iter().map(target).collect();
    Book {
        rules: rules(config),
        targets,
        prefix: config.matrix.prefix.clone(),
        home_room: config.matrix.home_room.clone(),
        rollout_deadline: config.kubernetes.rollout_deadline,
        echo: config.matrix.echo,
        drift: config.drift.enabled,
        pins: config.trust.pins.clone(),
        proof: proof(config.trust.mode),
        usage: plan(config),
    }
}

/// Makes the cluster's target from the configuration's.
#[must_use]
pub fn target(target: &config::Target) -> Target {
    Target {
        name: target.name.clone(),
        label: target.label.clone(),
        kind: target.kind,
        namespace: target.namespace.clone(),
        object: target.object.clone(),
    }
}

/// Says for people what makes a device count.
#[must_use]
pub fn proof(mode: TrustMode) -> Proof {
    match mode {
        TrustMode::Identity => Proof::Identity,
        TrustMode::Devices => Proof::Devices,
        TrustMode::Any => Proof::Any,
    }
}

/// Makes what is watched of the subscription from the configuration.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    Plan::new(&config.usage, config.matrix.home_room.clone(), guard(config))
}

/// Makes the usage guard's settings from the configuration's.
#[must_use]
pub fn guard(config: &Config) -> guard::Settings {
    let targets = config.targets.iter().map(|configured| {
        let guarded = Guarded { label: configured.label.clone(), key: target(configured).key() };
        (configured.name.clone(), guarded)
    });
    let usage = &config.usage;
    let zone = usage.timezone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or_else(TimeZone::system);
    guard::Settings {
        rules: usage.rules.iter().map(guard::Rule::from).collect(),
        accounts: usage.accounts.iter().map(|account| account.name.clone()).collect(),
        pushed: usage.only_pushed().into_iter().map(str::to_owned).collect(),
        quiet: usage.quiet_hours.as_deref().and_then(Hours::of),
        targets: targets.collect(),
        interval: usage.interval,
        home_room: config.matrix.home_room.clone(),
        mentions: usage.mention.get("critical").cloned().into_iter().collect(),
        zone,
    }
}

/// Makes the policy's rules from the configuration's.
#[must_use]
pub fn rules(config: &Config) -> Rules {
    let some = |list: &[String]| list.iter().filter(|item| *item != "*").cloned().collect();
    let grants = config.policy.rules.iter().map(|rule| Grant {
        users: some(&rule.users),
        verbs: rule.verbs.iter().filter_map(|verb| Verb::parse(verb)).collect(),
        targets: some(&rule.targets),
    });
    let bounds = config.targets.iter().map(|target| Bounds {
        name: target.name.clone(),
        replicas: target.replicas,
        max_replicas: target.max_replicas,
    });
    let acting = config.usage.rules.iter().filter(|rule| rule.mode == GuardMode::Act);
    Rules {
        users: config.policy.users.iter().cloned().collect(),
        grants: grants.collect(),
        bounds: bounds.collect(),
        staleness: config.policy.staleness,
        pins_devices: config.trust.mode == TrustMode::Devices,
        guarded: acting.flat_map(|rule| rule.stop.iter().cloned()).collect(),
    }
}
