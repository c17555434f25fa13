//! The room: what people said, how far it is proven, and what they are told, in the words of [`crate::message`]. No SDK type
//! crosses this door.

mod advice;
mod answer;
mod chores;
mod event;
mod gap;
mod gestures;
mod hearing;
mod late;
mod notice;
pub mod outside;
mod own;
mod receipts;
mod recovery;
mod rooms;
mod sending;
mod session;
mod sync;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use jiff::{SignedDuration, Timestamp};
use matrix_sdk::Client;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::advice::Advice;
use self::session::Session;
pub use self::session::{Lock, OpenError, lock_held};
pub(crate) use self::trust::contact;
use crate::config;
use crate::store::outbox::Speech;
use crate::store::{Store, StoreError};

/// How long a start waits for the process before to let go of the Matrix store.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// Signs of life that may wait; more are not worth keeping.
const GESTURES: usize = 64;
/// What the loops get to come to their end, before they are ended.
const DRAIN: Duration = Duration::from_secs(5);

/// Cursor of the store with the room of the last accepted command, where news goes without a home room: it follows upgrades,
/// and is empty once the bot has left the room.
pub const LAST_ROOM: &str = "last_command_room";

/// How old words are news that found no room at once.
const NEWS: SignedDuration = SignedDuration::from_hours(24);

/// Finds the room for what nobody asked for: the home room, else that of the last accepted command. `None`: nobody is
/// known who would want to read it.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub async fn home_room(store: &Store, configured: Option<&str>) -> Result<Option<String>, StoreError> {
    let Some(room) = configured else {
        return Ok(store.cursor(LAST_ROOM).await?.filter(|room| !room.is_empty()));
    };
    // An alias is looked up by the receiving loop, which knows rooms and follows their upgrades.
    let known = store.cursor(&home_cursor(room)).await?;
    Ok(known.or_else(|| room.starts_with('!').then(|| room.to_owned())))
}

/// Cursor of the store with the id of the home room of this name, once it is known; it follows upgrades. Another name in the
/// configuration is another cursor: news is not for the room of before.
fn home_cursor(configured: &str) -> String {
    format!("home_room/{configured}")
}

/// Gives words that had no room yet to the [`home_room`]; what is older than a day is no news any more. Says whether there
/// was any.
///
/// # Errors
/// [`StoreError`] where the store cannot be written.
pub async fn bring_home(store: &Store, home: &str, now: Timestamp) -> Result<bool, StoreError> {
    Ok(store.adopt(home, now - NEWS).await? > 0)
}

/// Begins to work with a database. Where this device has logged in before and the database knows nothing of that time, it was
/// lost: says so, and so does the first room that is known.
///
/// # Errors
/// [`StoreError`] where the store cannot be written.
pub async fn begin(store: &Store, has_logged_in: bool, now: Timestamp) -> Result<bool, StoreError> {
    let txn = format!("ph-forgotten-{}", now.as_millisecond());
    store.begin(has_logged_in, Speech::New(notice::draft(txn, "", &notice::forgotten())), now).await
}

/// What `/readyz` asks about the room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// The last turn of the receiving loop, good or not; `None` while a login is waited for, which may take long.
    pub turned_at: Option<Timestamp>,
    /// When the last sync came back.
    pub synced_at: Option<Timestamp>,
    /// Whether the own device may encrypt to the people of a room: it is signed, or the configuration does without.
    pub can_encrypt: bool,
    /// What is wrong now, in one sentence.
    pub trouble: Option<String>,
}

/// Best-effort signs of life; losing one loses nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gesture {
    /// Shows or takes back that an answer is being written.
    Typing {
        /// Room id.
        room: String,
        /// Shows it (`true`) or takes it back.
        on: bool,
    },
}

/// What every part of chat shares.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) store: Store,
    pub(crate) matrix: config::Matrix,
    pub(crate) trust: config::Trust,
    /// Allowed people; changes when the rules are read again.
    pub(crate) users: watch::Receiver<Arc<Vec<String>>>,
    /// Wakes the operator: something is in the inbox.
    pub(crate) inbox: Arc<Notify>,
    /// Wakes the sending loop: something is in the outbox.
    pub(crate) outbox: Arc<Notify>,
    /// Whether the last sync went well: then it is known who is in a room, and with which devices.
    pub(crate) heard: watch::Sender<bool>,
    /// Tells whoever waits that something has reached a room.
    pub(crate) sent: Notify,
    /// Held by who compares what is served of a person with what was noted.
    pub(crate) observing: Mutex<()>,
    /// What `/readyz` asks.
    pub(crate) health: watch::Sender<Health>,
}

/// How a sync loop came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to.
    Shutdown,
    /// The homeserver wants a new login of the same device.
    SoftLogout,
    /// The homeserver has ended the device.
    HardLogout,
}

/// The doors of the room to the rest of the daemon.
#[derive(Debug)]
pub struct Doors {
    /// Pilothouse's own memory.
    pub store: Store,
    /// Allowed people; changes when the rules are read again.
    pub users: watch::Receiver<Arc<Vec<String>>>,
    /// Notified when there is something for the operator.
    pub inbox: Arc<Notify>,
    /// Waited on for something to send.
    pub outbox: Arc<Notify>,
    /// Signs of life to show; see [`gestures`](gestures()).
    pub gestures: mpsc::Receiver<Gesture>,
    /// What `/readyz` asks.
    pub health: watch::Sender<Health>,
}

/// A queue for signs of life: use `try_send`, a full queue loses nothing.
#[must_use]
pub fn gestures() -> (mpsc::Sender<Gesture>, mpsc::Receiver<Gesture>) {
    mpsc::channel(GESTURES)
}

/// The room, opened: logged in, its own device signed, its store locked.
pub struct Chat {
    session: Session,
    client: Client,
    advice: Vec<Advice>,
    user_id: String,
    store: Store,
    users: watch::Receiver<Arc<Vec<String>>>,
    inbox: Arc<Notify>,
    outbox: Arc<Notify>,
    health: watch::Sender<Health>,
    shown: Arc<Mutex<mpsc::Receiver<Gesture>>>,
}

impl Chat {
    /// Logs in, or goes on with the saved login, and has the own device signed. Waits for as long as the homeserver is
    /// away or limits logins; drop the future to give up.
    ///
    /// # Errors
    /// [`OpenError`], each variant with its own way out.
    pub async fn open(
        matrix: config::Matrix,
        trust: config::Trust,
        lock: Lock,
        doors: Doors,
    ) -> Result<Self, OpenError> {
        let opened = Session::open(matrix, trust, lock).await?;
        let Doors { store, users, inbox, outbox, gestures, health } = doors;
        health.send_modify(|health| health.can_encrypt = true);
        Ok(Self {
            user_id: opened.session.user_id(),
            session: opened.session,
            client: opened.client,
            advice: opened.advice,
            store,
            users,
            inbox,
            outbox,
            health,
            shown: Arc::new(Mutex::new(gestures)),
        })
    }

    /// Full user id of the bot.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// What the operator of the machine should do about the recovery key and the own device.
    #[must_use]
    pub fn advice(&self) -> &[Advice] {
        &self.advice
    }

    /// Listens and speaks until `shutdown`, then flushes and closes the stores.
    ///
    /// # Errors
    /// A loop ended by itself or panicked, the homeserver has ended the device, or the store cannot be written.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            let ended = self.turn(&shutdown).await;
            session::close(&self.client).await;
            match ended? {
                Ended::Shutdown => return Ok(()),
                Ended::HardLogout => return Err(self.session.hard_logout().into()),
                Ended::SoftLogout => {
                    info!("the homeserver wants a new login of this device");
                    // Waiting for it may take long and is no standstill of a loop.
                    self.health.send_modify(|health| {
                        health.turned_at = None;
                        health.trouble = Some("waiting for a new login of this device".to_owned());
                    });
                    self.client = tokio::select! {
                        client = self.session.login_again() => client?,
                        () = shutdown.cancelled() => return Ok(()),
                    };
                }
            }
        }
    }

    /// Runs every loop on the present client until one of them ends.
    async fn turn(&mut self, shutdown: &CancellationToken) -> anyhow::Result<Ended> {
        let context = Arc::new(Context {
            client: self.client.clone(),
            store: self.store.clone(),
            matrix: self.session.matrix().clone(),
            trust: self.session.trust().clone(),
            users: self.users.clone(),
            inbox: Arc::clone(&self.inbox),
            outbox: Arc::clone(&self.outbox),
            heard: watch::Sender::new(false),
            sent: Notify::new(),
            observing: Mutex::default(),
            health: self.health.clone(),
        });
        let stop = shutdown.child_token();
        let mut loops = JoinSet::new();
        loops.spawn(named("sync", sync::run(Arc::clone(&context), stop.clone())));
        loops.spawn(named("sending", until_shutdown(sending::run(Arc::clone(&context), stop.clone()))));
        loops.spawn(named(
            "gestures",
            until_shutdown(gestures::run(Arc::clone(&context), Arc::clone(&self.shown), stop.clone())),
        ));
        loops.spawn(named(
            "own device",
            until_shutdown(own::run(
                Arc::clone(&context),
                self.advice.clone(),
                self.session.sends_unsigned(),
                stop.clone(),
            )),
        ));

        let first = loops.join_next().await.unwrap_or_else(|| Ok(("chat", Ok(Ended::Shutdown))));
        let asked = shutdown.is_cancelled();
        stop.cancel();
        let drained = tokio::time::timeout(DRAIN, async {
            while let Some(end) = loops.join_next().await {
                if let Ok((name, Err(error))) = end {
                    warn!(error = format!("{error:#}"), "the {name} loop ended with an error");
                }
            }
        });
        if drained.await.is_err() {
            warn!("a loop of the room did not come to its end in {} s and is ended", DRAIN.as_secs());
            loops.shutdown().await;
        }
        let (name, end) = first.context("a loop of the room panicked")?;
        match end.with_context(|| format!("the {name} loop failed"))? {
            Ended::Shutdown if !asked => anyhow::bail!("the {name} loop ended by itself"),
            ended => Ok(ended),
        }
    }
}

async fn named<T>(name: &'static str, work: impl Future<Output = T>) -> (&'static str, T) {
    let end = work.await;
    tracing::debug!("the {name} loop has ended");
    (name, end)
}

async fn until_shutdown(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Ended> {
    work.await.map(|()| Ended::Shutdown)
}
