//! Signs of life: typing. Best effort, each tried once.

use std::sync::Arc;
use std::time::Duration;

use matrix_sdk::ruma::RoomId;
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
    }
    Ok(())
}
