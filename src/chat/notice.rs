//! What the receiving half says by itself, in the words of [`reply`].

use jiff::{SignedDuration, Timestamp};

use crate::chat::Context;
use crate::message::Outgoing;
use crate::reply::{self, Report};
use crate::store::StoreError;
use crate::store::losses::Loss;
use crate::store::outbox::{Draft, Speech};

impl Context {
    /// Puts words into the outbox, once for each `txn`.
    pub(crate) async fn say(&self, txn: String, room: &str, words: Outgoing, now: Timestamp) -> Result<(), StoreError> {
        self.store.say(None, Speech::New(draft(txn, room, &words)), now).await?;
        self.outbox.notify_one();
        Ok(())
    }
}

/// Words for a room; for the first that is known where it is empty.
pub(crate) fn draft(txn: String, room: &str, words: &Outgoing) -> Draft {
    Draft { txn, room: room.to_owned(), payload: serde_json::json!(words).to_string() }
}

/// To the home room: how long nothing was received, and how many messages waited; `more`: some rooms could not be read.
pub(crate) fn back(after: SignedDuration, waited: usize, more: bool) -> Outgoing {
    spoken(&Report::Back { after, waited, more })
}

/// To the home room: the database was lost.
pub(crate) fn forgotten() -> Outgoing {
    spoken(&Report::Forgotten)
}

/// To a room of which not everything was read.
pub(crate) fn cut(events: usize, reach: SignedDuration) -> Outgoing {
    spoken(&Report::Cut { events, reach })
}

/// To a room of which something cannot be read; `passed_over`: it is not tried any more.
pub(crate) fn unheard(passed_over: bool) -> Outgoing {
    spoken(&Report::Unheard { passed_over })
}

/// To a room for which words were given up.
pub(crate) fn lost(loss: Loss) -> Outgoing {
    spoken(&Report::Lost(loss))
}

/// To the sender of a message whose key has not come, in the thread that it stands in.
pub(crate) fn unreadable(event: &str, sender: &str, thread: Option<&str>) -> Outgoing {
    let words = spoken(&Report::Unreadable);
    let (reply_to, thread) = (Some(event.to_owned()), thread.map(str::to_owned));
    Outgoing { reply_to, thread, mentions: vec![sender.to_owned()], ..words }
}

fn spoken(report: &Report) -> Outgoing {
    let reply::Words { plain, html } = reply::words(report);
    Outgoing::new(plain, html)
}
