//! How long nothing was received, and what the room reads when it is over.

use jiff::{SignedDuration, Timestamp};
use tracing::info;

use crate::chat::rooms::Rooms;
use crate::chat::{Context, Outgoing};
use crate::store::outbox::{Draft, Speech};
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

    /// Notes a good sync that brought `new` messages. After a long outage the home room reads of it.
    pub(crate) async fn end(
        &mut self,
        context: &Context,
        rooms: &Rooms,
        new: usize,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let away = self.last.map(|last| now.duration_since(last));
        self.last = Some(now);
        if std::mem::take(&mut self.failing) {
            info!("received again");
        }
        let Some(away) = away.filter(|away| *away >= TOLD) else { return Ok(()) };
        let words = words(away, new);
        info!("{words}");
        let room = match &context.matrix.home_room {
            Some(name) => {
                rooms.resolve().await;
                rooms.aliased(name)
            }
            None => context.store.cursor("last_command_room").await?.and_then(|room| rooms.aliased(&room)),
        };
        let Some(room) = room.map(|room| rooms.latest(room)) else { return Ok(()) };
        let draft = Draft {
            txn: format!("back-{}", now.as_millisecond()),
            room: room.to_string(),
            payload: serde_json::to_string(&Outgoing {
                html: words.clone(),
                plain: words,
                reply_to: None,
                mentions: Vec::new(),
                anywhere: false,
            })?,
        };
        context.store.say(None, Speech::New(draft), now).await?;
        context.outbox.notify_one();
        Ok(())
    }
}

fn words(away: SignedDuration, new: usize) -> String {
    let minutes = away.as_mins();
    let long = match (minutes / 60 / 24, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    };
    match new {
        0 => format!("Back after {long}; nothing waited."),
        1 => format!("Back after {long}; one message waited."),
        new => format!("Back after {long}; {new} messages waited."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_reads_for_how_long_and_what_waited() {
        assert_eq!(words(SignedDuration::from_mins(12), 3), "Back after 12 min; 3 messages waited.");
        assert_eq!(words(SignedDuration::from_mins(61), 1), "Back after 1 h 1 min; one message waited.");
        assert_eq!(words(SignedDuration::from_hours(50), 0), "Back after 2 d 2 h; nothing waited.");
    }
}
