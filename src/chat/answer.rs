//! What a failed request to the homeserver means, for every part of chat that asks one through the SDK.

use std::time::Duration;

use matrix_sdk::encryption::BundleImportError;
use matrix_sdk::encryption::identities::ManualVerifyError;
use matrix_sdk::encryption::secret_storage::{ImportError, SecretStorageError};
use matrix_sdk::ruma::api::error::{ErrorKind, RetryAfter};
use matrix_sdk::{Client, HttpError, RefreshTokenError, SessionChange};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

use super::Ended;

/// What a failed request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// None came, or one that a later try may better: an outage, or the page of a proxy that has no homeserver behind it now.
    Passing,
    /// The homeserver wants fewer requests, for so long where it says.
    Limited(Option<Duration>),
    /// The homeserver said no, and would say it again.
    Refused,
    /// The login is over.
    LoggedOut(Ended),
}

impl Answer {
    /// Reads an error of the SDK. A refused refresh hides what the homeserver said of the login: see [`LastWord`].
    pub(crate) fn of(error: &HttpError) -> Self {
        match error {
            HttpError::Cached(inner) => Self::of(inner),
            HttpError::RefreshToken(RefreshTokenError::MatrixAuth(inner)) => match Self::of(inner) {
                Self::Refused | Self::LoggedOut(_) => Self::LoggedOut(Ended::SoftLogout),
                // The refresh failed for a passing reason: the login still stands.
                passing => passing,
            },
            HttpError::RefreshToken(_) => Self::LoggedOut(Ended::SoftLogout),
            // It asks for the password, or for a better one.
            error if error.as_uiaa_response().is_some() => Self::Refused,
            error => match error.as_client_api_error() {
                Some(said) => Self::to(said.status_code.as_u16(), said.error_kind()),
                None => Self::Passing,
            },
        }
    }

    fn to(status: u16, kind: Option<&ErrorKind>) -> Self {
        match (status, kind) {
            (_, Some(ErrorKind::UnknownToken(data))) if data.soft_logout => Self::LoggedOut(Ended::SoftLogout),
            (_, Some(ErrorKind::UnknownToken(_) | ErrorKind::UserDeactivated)) => Self::LoggedOut(Ended::HardLogout),
            (_, Some(ErrorKind::LimitExceeded(limit))) => Self::Limited(match limit.retry_after {
                Some(RetryAfter::Delay(wait)) => Some(wait),
                _ => None,
            }),
            (429, _) => Self::Limited(None),
            (408, _) => Self::Passing,
            // Too large stays too large, whoever says so.
            (413, _) | (400..=499, Some(_)) => Self::Refused,
            _ => Self::Passing,
        }
    }
}

/// The request that failed with an error, where one did.
pub(crate) fn of(error: &anyhow::Error) -> Option<&HttpError> {
    // The SDK's errors show through to what they hold and leave it out of the chain.
    error.chain().find_map(|cause| {
        let sdk = match cause.downcast_ref::<SecretStorageError>() {
            Some(
                SecretStorageError::Sdk(error) | SecretStorageError::ImportError { error: ImportError::Sdk(error), .. },
            ) => Some(error),
            _ => match cause.downcast_ref::<BundleImportError>() {
                Some(BundleImportError::DeviceKeys(error)) => Some(error),
                _ => cause.downcast_ref::<matrix_sdk::Error>(),
            },
        };
        match (sdk, cause.downcast_ref::<ManualVerifyError>()) {
            (Some(matrix_sdk::Error::Http(error)), _) => Some(&**error),
            (None, Some(ManualVerifyError::Http(error))) => Some(error),
            _ => cause.downcast_ref::<HttpError>(),
        }
    })
}

/// An error with its causes in one line, without the URL, which of a sync is longer than all the rest.
pub(crate) fn in_words(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    match text.split_once(" for url (") {
        Some((before, rest)) => format!("{before}{}", rest.split_once(')').map_or("", |(_, after)| after)),
        None => text,
    }
}

/// What became of the request that failed with an error, where one did.
pub(crate) fn to(error: &anyhow::Error) -> Option<Answer> {
    // Whoever asked the same at the same time has the error of the request itself.
    let shared = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(matrix_sdk::Error::ConcurrentRequestFailed))
    };
    of(error).map(Answer::of).or_else(|| error.chain().any(shared).then_some(Answer::Passing))
}

/// How long the homeserver asked to wait before the next try.
pub(crate) fn asked_to_wait(error: &anyhow::Error) -> Option<Duration> {
    match to(error)? {
        Answer::Limited(wait) => wait,
        _ => None,
    }
}

/// Whether an error means that the login is over: no room's own fault.
pub(crate) fn is_logout(error: &anyhow::Error) -> bool {
    matches!(to(error), Some(Answer::LoggedOut(_)))
}

/// The homeserver's last word on the login itself, which the SDK tells beside its errors.
pub(crate) struct LastWord {
    changes: broadcast::Receiver<SessionChange>,
    hard: bool,
}

impl LastWord {
    /// Listens from now on: made before the first request that is judged by it.
    pub(crate) fn on(client: &Client) -> Self {
        Self { changes: client.subscribe_to_session_changes(), hard: false }
    }

    /// Whether the error ends the login, and in which way.
    pub(crate) fn ended(&mut self, error: &HttpError) -> Option<Ended> {
        self.listen();
        match Answer::of(error) {
            Answer::LoggedOut(Ended::SoftLogout) if self.hard => Some(Ended::HardLogout),
            Answer::LoggedOut(ended) => Some(ended),
            _ => None,
        }
    }

    fn listen(&mut self) {
        loop {
            match self.changes.try_recv() {
                Ok(SessionChange::UnknownToken(data)) => self.hard = !data.soft_logout,
                Ok(SessionChange::TokensRefreshed) => self.hard = false,
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_without_the_url() {
        let error = anyhow::anyhow!(
            "error sending request for url (http://hs/sync?filter=%7B%7D&since=s1): Connection refused"
        );
        let told = in_words(&error.context("sync with the homeserver"));
        assert_eq!(told, "sync with the homeserver: error sending request: Connection refused");
        assert_eq!(in_words(&anyhow::anyhow!("403 Forbidden")), "403 Forbidden");
    }

    #[test]
    fn a_failure_of_a_request_that_another_made_is_one_of_a_request() {
        let shared = anyhow::Error::from(matrix_sdk::Error::ConcurrentRequestFailed).context("is the room encrypted?");
        assert_eq!(to(&shared), Some(Answer::Passing));
        assert!(!is_logout(&shared));
        assert_eq!(to(&anyhow::anyhow!("the disk is full")), None);
    }

    #[test]
    fn only_words_of_a_homeserver_are_taken_for_an_end() {
        let kind = |errcode: &str| serde_json::from_value::<ErrorKind>(serde_json::json!({ "errcode": errcode })).ok();
        for (status, errcode, expected) in [
            (401, Some("M_UNKNOWN_TOKEN"), Answer::LoggedOut(Ended::HardLogout)),
            (403, Some("M_USER_DEACTIVATED"), Answer::LoggedOut(Ended::HardLogout)),
            (403, Some("M_FORBIDDEN"), Answer::Refused),
            (404, Some("M_NOT_FOUND"), Answer::Refused),
            (400, Some("ORG_EXAMPLE_WHAT"), Answer::Refused),
            (404, None, Answer::Passing),
            (403, None, Answer::Passing),
            (413, None, Answer::Refused),
            (408, None, Answer::Passing),
            (429, None, Answer::Limited(None)),
            (429, Some("M_LIMIT_EXCEEDED"), Answer::Limited(None)),
            (500, Some("M_UNKNOWN"), Answer::Passing),
            (502, None, Answer::Passing),
        ] {
            let kind = errcode.map(|errcode| kind(errcode).expect("an errcode"));
            assert_eq!(Answer::to(status, kind.as_ref()), expected, "{status} {errcode:?}");
        }
    }
}
