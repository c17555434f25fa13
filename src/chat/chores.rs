//! Small work beside the sync loop, such as receipts and joins: bounded, each once at a time, and all of it joined.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

/// Chores that may wait: a burst of commands brings one each.
const WAITING: usize = 2000;

/// Chores that run at a time: enough that slow joins do not hold up receipts, few for one homeserver.
const RUNNING: usize = 16;

struct Chore {
    key: String,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Takes chores; clones share the queue.
#[derive(Clone)]
pub(crate) struct Chores {
    queue: mpsc::Sender<Chore>,
    keys: Arc<Mutex<HashSet<String>>>,
}

/// The other end: carries the chores out.
pub(crate) struct Carrier {
    queue: mpsc::Receiver<Chore>,
    keys: Arc<Mutex<HashSet<String>>>,
}

impl Chores {
    pub(crate) fn new() -> (Self, Carrier) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let keys = Arc::<Mutex<HashSet<String>>>::default();
        (Self { queue: sender, keys: Arc::clone(&keys) }, Carrier { queue: receiver, keys })
    }

    /// Takes a chore, unless one of the same key waits or runs. Where too many wait it is left out: what must happen is
    /// found again by the next survey.
    pub(crate) fn add(&self, key: &str, work: impl Future<Output = ()> + Send + 'static) {
        if !self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned()) {
            return;
        }
        if let Err(refused) = self.queue.try_send(Chore { key: key.to_owned(), work: Box::pin(work) }) {
            drop(refused);
            warn!(key, "left out: {WAITING} small things wait already");
            self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
    }
}

impl Carrier {
    /// Carries chores out; ends only by being dropped.
    ///
    /// # Errors
    /// Where a chore panics, or nobody can add one any more.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                chore = self.queue.recv(), if running.len() < RUNNING => {
                    let Chore { key, work } = chore.context("the sync loop is gone")?;
                    running.spawn(async move {
                        work.await;
                        key
                    });
                }
                Some(done) = running.join_next(), if !running.is_empty() => {
                    let key = done.context("a task beside the sync loop")?;
                    self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                }
            }
        }
    }
}
