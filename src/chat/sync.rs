//! The sync loop.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Context, Ended};

/// Syncs until `shutdown`.
pub(crate) async fn run(context: Arc<Context>, shutdown: CancellationToken) -> anyhow::Result<Ended> {
    loop {
        let settings = matrix_sdk::config::SyncSettings::new().timeout(std::time::Duration::from_secs(30));
        let synced = tokio::select! {
            synced = context.client.sync_once(settings) => synced,
            () = shutdown.cancelled() => return Ok(Ended::Shutdown),
        };
        if let Err(matrix_sdk::Error::Http(error)) = synced {
            if let Some(ended) = super::session::ended(&error) {
                return Ok(ended);
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}
