//! What the receiving half says by itself; pure but for the outbox.

use jiff::{SignedDuration, Timestamp};

use crate::chat::{Context, Outgoing};
use crate::store::StoreError;
use crate::store::outbox::{Draft, Speech};

impl Context {
    /// Puts words into the outbox, once for each `txn`.
    pub(crate) async fn say(&self, txn: String, room: &str, words: Outgoing, now: Timestamp) -> Result<(), StoreError> {
        let payload = serde_json::json!(words).to_string();
        let draft = Draft { txn, room: room.to_owned(), payload };
        self.store.say(None, Speech::New(draft), now).await?;
        self.outbox.notify_one();
        Ok(())
    }
}

/// To the home room: how long nothing was received, and how many messages waited.
pub(crate) fn back(away: SignedDuration, waited: usize) -> Outgoing {
    let minutes = away.as_mins();
    let long = match (minutes / 60 / 24, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    };
    plain(match waited {
        0 => format!("Back after {long}; nothing waited."),
        1 => format!("Back after {long}; one message waited."),
        waited => format!("Back after {long}; {waited} messages waited."),
    })
}

/// To a room of which not everything was read.
pub(crate) fn cut(events: usize, reach: SignedDuration) -> Outgoing {
    plain(format!(
        "While I was away more was said here than I read again: the last {events} events, or {} hours. Older commands were \
         not seen.",
        reach.as_hours()
    ))
}

/// To the sender of a message whose key has not come.
pub(crate) fn unreadable(event: &str, sender: &str) -> Outgoing {
    let words = plain("I could not read this: its key has not reached me. Please send it again.".to_owned());
    Outgoing { reply_to: Some(event.to_owned()), mentions: vec![sender.to_owned()], ..words }
}

/// Words without anything foreign in them, so that they are HTML as they are.
fn plain(words: String) -> Outgoing {
    Outgoing { html: words.clone(), plain: words, reply_to: None, mentions: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_reads_for_how_long_and_what_waited() {
        let words = |away, waited| back(away, waited).plain;
        assert_eq!(words(SignedDuration::from_mins(12), 3), "Back after 12 min; 3 messages waited.");
        assert_eq!(words(SignedDuration::from_mins(61), 1), "Back after 1 h 1 min; one message waited.");
        assert_eq!(words(SignedDuration::from_hours(50), 0), "Back after 2 d 2 h; nothing waited.");
    }
}
