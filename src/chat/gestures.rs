//! Signs of life: typing. Best effort, each tried once.

use std::sync::Arc;
use std::time::Duration;

use matrix_sdk::config::RequestConfig;
use matrix_sdk::ruma::RoomId;
use matrix_sdk::ruma::api::client::typing::create_typing_event::v3::{Request, Typing, TypingInfo};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Context, Gesture};

/// A sign that comes later than this is none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long typing shows unless it is given again, which whoever works does every 3 s: one may be late, and after a kill
/// it is soon over. The SDK's own way shows it for 4 s and lets nothing through for 3.
const SHOWN: Duration = Duration::from_secs(6);

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
            let typing = if *on { Typing::Yes(TypingInfo::new(SHOWN)) } else { Typing::No };
            if let Some(own) = context.client.user_id() {
                let request = Request::new(own.to_owned(), RoomId::parse(room)?, typing);
                let once = RequestConfig::new().disable_retry();
                context.client.send(request).with_request_config(once).await?;
            }
        }
    }
    Ok(())
}
