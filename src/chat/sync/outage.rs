//! How long nothing was received, and what the room reads when it is over.

use jiff::{SignedDuration, Timestamp};
use tracing::info;

use crate::chat::notice;
use crate::chat::rooms::Rooms;
use crate::chat::{Context, LAST_ROOM};
use crate::store::{Store, StoreError};

/// Shorter ones are nobody's business.
const TOLD: SignedDuration = SignedDuration::from_mins(5);

/// The time without a sync.
pub(crate) struct Outage {
    /// The last good sync, by this process or the one before.
    last: Option<Timestamp>,
    failing: bool,
}

impl Outage {
    /// Goes on from the last sync of the process before.
    pub(crate) async fn resume(store: &Store, now: Timestamp) -> Result<Self, StoreError> {
        let last =
            store.cursor("synced_at").await?.and_then(|millis| Timestamp::from_millisecond(millis.parse().ok()?).ok());
        Ok(Self { last: last.filter(|last| *last <= now), failing: false })
    }

    /// Notes a failure; says whether it is the first since the last good sync.
    pub(crate) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.failing, true)
    }

    /// Notes a good sync that brought `new` messages; `more`: some rooms could not be read yet. After a long outage the home
    /// room reads of it.
    pub(crate) async fn end(
        &mut self,
        context: &Context,
        rooms: &Rooms,
        new: usize,
        more: bool,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let away = self.last.map(|last| now.duration_since(last));
        self.last = Some(now);
        if std::mem::take(&mut self.failing) {
            info!("received again");
        }
        let Some(away) = away.filter(|away| *away >= TOLD) else { return Ok(()) };
        let words = notice::back(away, new, more);
        info!("{}", words.plain);
        let room = match &context.matrix.home_room {
            Some(name) => {
                rooms.resolve().await;
                rooms.aliased(name)
            }
            None => context.store.cursor(LAST_ROOM).await?.and_then(|room| rooms.aliased(&room)),
        };
        let Some(room) = room.map(|room| rooms.latest(room)) else { return Ok(()) };
        context.say(format!("back-{}", now.as_millisecond()), room.as_str(), words, now).await?;
        Ok(())
    }
}
