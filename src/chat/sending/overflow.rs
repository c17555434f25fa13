//! What was given up because too much waited is said, once its room has nothing waiting any more.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use crate::chat::Context;
use crate::chat::sync::notice;
use crate::store::StoreError;
use crate::store::outbox::Draft;

/// Puts the words for every such room into the outbox.
pub(super) async fn tell(context: &Context, now: Timestamp) -> Result<(), StoreError> {
    for (room, given_up) in context.store.overflowed().await? {
        warn!(room, given_up, "too much waited for this room: it is told that words for it were given up");
        let txn = format!("overflow-{:x}", Sha256::digest(format!("{room} {}", now.as_millisecond())));
        let draft = Draft { txn, room, payload: notice::overflowed(given_up).json() };
        context.store.tell_overflow(given_up, draft, now).await?;
        context.outbox.notify_one();
    }
    Ok(())
}
