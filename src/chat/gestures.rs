//! Signs of life: typing and read receipts. Best effort, each tried once.

use std::sync::Arc;
use std::time::Duration;

use matrix_sdk::config::RequestConfig;
use matrix_sdk::ruma::api::client::receipt::create_receipt::v3 as receipt;
use matrix_sdk::ruma::{EventId, RoomId};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Context, Gesture};

/// A sign that comes later than this is none.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Shows what arrives, in order, until `stop`.
pub(super) async fn run(
    context: Arc<Context>,
    gestures: Arc<Mutex<mpsc::Receiver<Gesture>>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut gestures = gestures.lock().await;
    loop {
        let gesture = tokio::select! {
            gesture = gestures.recv() => gesture,
            () = stop.cancelled() => return Ok(()),
        };
        let Some(gesture) = gesture else {
            stop.cancelled().await;
            return Ok(());
        };
        match tokio::time::timeout(TIMEOUT, show(&context, &gesture)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(?gesture, error = format!("{error:#}"), "a sign of life was lost"),
            Err(_) => debug!(?gesture, "a sign of life took too long"),
        }
    }
}

async fn show(context: &Context, gesture: &Gesture) -> anyhow::Result<()> {
    match gesture {
        Gesture::Typing { room, on } => {
            if let Some(room) = context.client.get_room(<&RoomId>::try_from(room.as_str())?) {
                room.typing_notice(*on).await?;
            }
        }
        Gesture::Seen { room, event } => {
            // The SDK's own way makes a second request, for the unread flag.
            let request = receipt::Request::new(
                <&RoomId>::try_from(room.as_str())?.to_owned(),
                receipt::ReceiptType::Read,
                <&EventId>::try_from(event.as_str())?.to_owned(),
            );
            context
                .client
                .send(request)
                .with_request_config(RequestConfig::new().disable_retry().timeout(TIMEOUT))
                .await?;
        }
    }
    Ok(())
}
