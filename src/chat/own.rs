//! The bot's own account: the name that people see, and whether its device can still encrypt.

use std::sync::Arc;
use std::time::Duration;

use matrix_sdk::ruma::api::error::ErrorKind;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Context, recovery};
use crate::retry::Backoff;

/// Sets the name, then watches the own device until `stop`.
pub(super) async fn run(context: Arc<Context>, sends_unsigned: bool, stop: CancellationToken) -> anyhow::Result<()> {
    let name = async {
        set_display_name(&context).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = name => Ok(()),
        end = watch_device(&context, sends_unsigned) => end,
        () = stop.cancelled() => Ok(()),
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
                error!("the own device is not signed any more: the account's identity was reset; restart with its recovery key");
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
