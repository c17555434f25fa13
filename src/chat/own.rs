//! The bot's own account: the name that people see, and whether its device can still encrypt.

use std::sync::Arc;
use std::time::Duration;

use matrix_sdk::ruma::api::error::ErrorKind;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Advice, Context, recovery};
use crate::retry::Backoff;

/// Sets the name and looks after the recovery key, then watches the own device until `stop`. `advice` is what the start found.
pub(super) async fn run(
    context: Arc<Context>,
    advice: Vec<Advice>,
    sends_unsigned: bool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let once = async {
        tokio::join!(set_display_name(&context), look_after_key(&context, advice));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = once => Ok(()),
        end = watch_device(&context, sends_unsigned) => end,
        () = stop.cancelled() => Ok(()),
    }
}

/// Notes what there is to see to, and tries a configured recovery key until the homeserver answers. It waits for the first
/// sync: a passphrase takes a moment to try.
async fn look_after_key(context: &Context, mut advice: Vec<Advice>) {
    note(context, &advice).await;
    let mut health = context.health.subscribe();
    if advice.iter().any(|advice| !advice.is_about_the_key())
        || health.wait_for(|health| health.synced_at.is_some()).await.is_err()
    {
        return;
    }
    let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_mins(10));
    let found = loop {
        match recovery::look_after_key(&context.client, &context.matrix).await {
            Ok(found) => break found,
            Err(error) => debug!("the recovery key was not looked after yet: {error:#}"),
        }
        tokio::time::sleep(pauses.next()).await;
    };
    match &found {
        Some(unfit @ Advice::KeyUnfit { .. }) => error!("{unfit}"),
        Some(found) if !advice.contains(found) => warn!("{found}"),
        _ => {}
    }
    advice.retain(|advice| !advice.is_about_the_key());
    advice.extend(found);
    note(context, &advice).await;
}

async fn note(context: &Context, advice: &[Advice]) {
    if let Err(error) = Advice::note(&context.store, advice).await {
        warn!("what to do about the own device was not noted, so `trust` and `check` do not say it: {error}");
    }
}

/// Tells `/readyz` when the own device loses its signature (somebody reset the account's identity) or gets it back.
async fn watch_device(context: &Context, sends_unsigned: bool) -> anyhow::Result<()> {
    let mut states = context.client.encryption().verification_state();
    loop {
        let can_encrypt = sends_unsigned || recovery::is_signed(&context.client).await?;
        context.health.send_if_modified(|health| {
            let changed = health.can_encrypt != can_encrypt;
            if changed && !can_encrypt {
                error!(
                    "the own device is not signed any more: somebody reset the account's identity. Set matrix.recovery_key to the \
                     key that the reset gave (no older one fits), and start again"
                );
            }
            health.can_encrypt = can_encrypt;
            changed
        });
        if states.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Sets the display name where it differs; tries until the homeserver answers. A refusal is not fatal.
async fn set_display_name(context: &Context) {
    let wanted = context.matrix.display_name.trim();
    if wanted.is_empty() {
        return;
    }
    let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_mins(10));
    loop {
        let account = context.client.account();
        let done = async {
            if account.get_display_name().await?.as_deref() != Some(wanted) {
                account.set_display_name(Some(wanted)).await?;
            }
            Ok::<_, matrix_sdk::Error>(())
        };
        let Err(error) = done.await else { return };
        if matches!(error.client_api_error_kind(), Some(ErrorKind::Forbidden | ErrorKind::Unrecognized)) {
            warn!(%error, wanted, "the homeserver refuses the display name");
            return;
        }
        debug!(%error, "the display name could not be set yet");
        tokio::time::sleep(pauses.next()).await;
    }
}
