//! What an answer of the homeserver means for a row of the outbox: pure.

use std::time::Duration;

use matrix_sdk::ruma::api::error::{ErrorKind, RetryAfter};
use matrix_sdk::{Error, HttpError};

/// What a limit means when the homeserver does not say.
const LIMITED: Duration = Duration::from_secs(5);
/// The longest limit that is believed.
const LONGEST_LIMIT: Duration = Duration::from_mins(15);

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in the room, as this event.
    Sent(String),
    /// The homeserver wants a pause.
    Limited(Duration),
    /// It may work later: the same event again.
    Later(String),
    /// It will never work.
    Never(String),
}

/// Judges a failed try.
pub(super) fn judge(error: &Error) -> Verdict {
    match error {
        Error::Http(error) => judge_http(error),
        // Not joined: left, kicked, banned.
        Error::WrongRoomState(_) => Verdict::Never(error.to_string()),
        error => Verdict::Later(error.to_string()),
    }
}

fn judge_http(error: &HttpError) -> Verdict {
    let Some(said) = error.as_client_api_error() else { return Verdict::Later(error.to_string()) };
    if let Some(ErrorKind::LimitExceeded(limit)) = said.error_kind() {
        let wait = match limit.retry_after {
            Some(RetryAfter::Delay(wait)) => wait,
            _ => LIMITED,
        };
        return Verdict::Limited(wait.min(LONGEST_LIMIT));
    }
    match said.status_code.as_u16() {
        429 => Verdict::Limited(LIMITED),
        // The login is over or must be renewed: the sync loop sees to that.
        401 => Verdict::Later(said.to_string()),
        400..=499 => Verdict::Never(said.to_string()),
        _ => Verdict::Later(said.to_string()),
    }
}
