//! What was given up is said, once its room has nothing waiting any more.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use crate::chat::Context;
use crate::chat::notice;
use crate::store::StoreError;
use crate::store::losses::TXN;
use crate::store::outbox::Draft;

/// Puts the words for every such room into the outbox.
pub(super) async fn tell(context: &Context, now: Timestamp) -> Result<(), StoreError> {
    for (room, loss) in context.store.losses().await? {
        warn!(room, words = loss.words, since = %loss.since, "words for this room were given up: it is told");
        let txn = format!("{TXN}{:x}", Sha256::digest(format!("{room} {}", now.as_millisecond())));
        let draft = Draft { txn, room, payload: notice::lost(loss).json() };
        context.store.tell_loss(loss, draft, now).await?;
        context.outbox.notify_one();
    }
    Ok(())
}
