//! Signals: SIGTERM and SIGINT ask for the end, a second one ends at once, SIGHUP asks to read the rules again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What signals ask for.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The end: cancelled by the first SIGTERM or SIGINT.
    pub end: CancellationToken,
    /// The rules shall be read again.
    pub reload: Arc<Notify>,
}

/// Exit code of a process that a second signal ended: 128 + SIGTERM, as shells count.
const ABORTED: i32 = 143;

/// Starts to listen. From now on a signal no longer ends the process by itself.
///
/// # Errors
/// Where the operating system refuses the registration.
pub fn listen() -> anyhow::Result<Wishes> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("registering for SIGTERM, SIGINT and SIGHUP")?;
    let wishes = Wishes::default();
    let heard = wishes.clone();
    tokio::spawn(async move {
        while let Some(signal) = signals.next().await {
            match signal {
                SIGHUP => heard.reload.notify_one(),
                _ if heard.end.is_cancelled() => abort(),
                _ => {
                    tracing::info!(signal, "ending; a second signal ends at once");
                    heard.end.cancel();
                }
            }
        }
    });
    Ok(wishes)
}

#[expect(clippy::exit, reason = "a second signal means at once: what was not written is in the journal")]
fn abort() {
    tracing::warn!("second signal: aborted");
    std::process::exit(ABORTED);
}

/// While this lives, SIGINT does not end the process: whoever reads a hidden answer has to give the terminal back first.
/// For a process that does not [`listen`].
#[derive(Debug)]
pub struct InterruptHeld(());

/// Whether SIGINT ends the process, from the first time on that it was held.
static ENDS: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| {
    let ends = Arc::new(AtomicBool::new(true));
    if let Err(error) = signal_hook::flag::register_conditional_default(SIGINT, Arc::clone(&ends)) {
        tracing::warn!(%error, "SIGINT cannot be held");
    }
    ends
});

impl InterruptHeld {
    /// Begins to hold. Where the operating system refuses, SIGINT ends the process as ever.
    #[must_use]
    pub fn begin() -> Self {
        ENDS.store(false, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for InterruptHeld {
    fn drop(&mut self) {
        ENDS.store(true, Ordering::SeqCst);
    }
}
