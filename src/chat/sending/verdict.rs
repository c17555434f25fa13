//! What an answer of the homeserver means for a row of the outbox: pure.

use std::time::Duration;

use matrix_sdk::{Error, HttpError};

use crate::chat::answer::Answer;

/// What a limit means when the homeserver does not say.
const LIMITED: Duration = Duration::from_secs(5);
/// The longest limit that is believed: what waited for so long is given up.
const LONGEST_LIMIT: Duration = Duration::from_hours(24);

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in the room, as this event.
    Sent(String),
    /// The homeserver wants a pause.
    Limited(Duration),
    /// It may work later: the same event again.
    Later(String),
    /// The homeserver will never take it.
    Never(String),
    /// It was given up while it was planned: too many waited.
    Gone,
    /// There is nobody to read it: not a room of the bot's, or one that it must not speak in.
    Nowhere(String),
}

/// Judges a failed try.
pub(super) fn judge(error: &Error) -> Verdict {
    match error {
        Error::Http(error) => judge_http(error),
        // Not joined: left, kicked, banned.
        Error::WrongRoomState(_) => Verdict::Nowhere(error.to_string()),
        error => Verdict::Later(error.to_string()),
    }
}

fn judge_http(error: &HttpError) -> Verdict {
    match Answer::of(error) {
        Answer::Limited(wait) => Verdict::Limited(wait.unwrap_or(LIMITED).min(LONGEST_LIMIT)),
        Answer::Refused => Verdict::Never(error.to_string()),
        // The end of a login is the sync loop's to see to.
        Answer::Passing | Answer::LoggedOut(_) => Verdict::Later(error.to_string()),
    }
}
