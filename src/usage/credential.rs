//! The login with which a provider is asked: where it is kept, and how it is renewed.
//!
//! Refresh tokens are good for one use, and the provider ends the whole login where one is used twice. So there is one
//! writer at a time: a claim before the request, and what the answer brings is on the disk before anything else is done
//! with it ([`refresh`]). A login of its own belongs here, not a copy of somebody's: two who renew the same one log each
//! other out.
//!
//! Whoever puts a new login in place is heard without a restart: the place is read before each question.

pub mod directory;
pub mod layout;
mod lock;
pub mod refresh;
pub mod secret;
mod token;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::Secret;

pub use layout::{Keys, Layout};
pub use refresh::{Login, Settings};

/// A token is renewed so long before it ends.
const EARLY: SignedDuration = SignedDuration::from_mins(5);

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// What is shown to the provider; empty where another program has blanked it.
    pub access_token: Secret,
    /// What a new one is asked for with, once.
    pub refresh_token: Option<Secret>,
    /// When the access token ends.
    pub expires_at: Option<Timestamp>,
    /// When the whole login ends: about a month after `/login`, and renewing does not move it.
    pub refresh_expires_at: Option<Timestamp>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// The provider's word for the plan.
    pub plan: Option<String>,
    /// The client it was issued to, where that is said.
    pub client_id: Option<String>,
}

impl Credential {
    /// Says whether there is something to renew it with.
    #[must_use]
    pub fn can_renew(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// Says whether the access token ends soon, has ended, or was blanked.
    #[must_use]
    pub fn is_expiring(&self, now: Timestamp) -> bool {
        self.access_token.expose().is_empty() || self.expires_at.is_some_and(|at| at.duration_since(now) <= EARLY)
    }

    /// Says whether the access token can be shown at all.
    fn is_usable(&self, now: Timestamp) -> bool {
        !self.access_token.expose().is_empty() && self.expires_at.is_none_or(|at| at > now)
    }

    /// Digest of the refresh token.
    fn parent(&self) -> Option<String> {
        self.refresh_token.as_ref().map(|token| digest(token.expose()))
    }

    /// This login with the tokens that followed.
    fn renewed(&self, renewed: &Renewed) -> Self {
        Self {
            access_token: Secret::new(&renewed.access_token),
            refresh_token: Some(Secret::new(&renewed.refresh_token)),
            expires_at: Some(renewed.expires_at),
            refresh_expires_at: renewed.refresh_expires_at,
            scopes: renewed.scopes.clone(),
            ..self.clone()
        }
    }
}

/// What followed a refresh token. Kept in the store as JSON until it is written back.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Renewed {
    access_token: String,
    refresh_token: String,
    expires_at: Timestamp,
    refresh_expires_at: Option<Timestamp>,
    scopes: Vec<String>,
}

/// Why there is no login to ask with. No variant carries a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is none, or it cannot be read.
    #[error("{0}")]
    Missing(String),
    /// The provider takes it no more, and nothing but a new login helps.
    #[error("{0}")]
    Dead(String),
    /// The token endpoint wants fewer questions.
    #[error(
        "the provider's token endpoint asks to wait (429), so the login cannot be renewed now; it is tried again later"
    )]
    RateLimited {
        /// What it asks to wait, where it says.
        retry_after: Option<SignedDuration>,
    },
    /// It may work later.
    #[error("{0}; it is tried again later")]
    Unavailable(String),
}

/// Where a login is kept.
#[derive(Debug)]
pub enum Place {
    /// In a Kubernetes Secret.
    Secret(Box<secret::Place>),
    /// In a directory.
    Directory(directory::Place),
}

impl From<secret::Place> for Place {
    fn from(place: secret::Place) -> Self {
        Self::Secret(Box::new(place))
    }
}

impl From<directory::Place> for Place {
    fn from(place: directory::Place) -> Self {
        Self::Directory(place)
    }
}

/// What came of an attempt to become the one writer.
enum Claim {
    /// This process may write.
    Held(Box<Held>),
    /// Another one is writing; what is stored now.
    Busy(Option<Credential>),
}

/// The right to write, with what was stored when it was given.
struct Held {
    credential: Credential,
    right: Right,
}

impl Held {
    /// Says whether the right is still this process's. Of a Secret that shows when it is written.
    fn counts(&self) -> bool {
        match &self.right {
            Right::Version(..) => true,
            Right::Locks(locks) => locks.are_ours(),
        }
    }
}

enum Right {
    /// The Secret as it was at this version, with its data.
    Version(secret::Version, layout::Entries),
    /// The CLI's locks.
    Locks(lock::Locks),
}

/// What came of writing.
enum Written {
    /// It is there.
    Done,
    /// Somebody else wrote first: nothing was written.
    Changed,
}

impl Place {
    /// Looks at the login and changes nothing.
    ///
    /// # Errors
    /// [`CredentialError`] where there is none or it cannot be read.
    pub async fn look(&self) -> Result<Credential, CredentialError> {
        self.latest().await
    }

    /// Reads the login as cheaply as can be; where a Secret is mounted this lags behind by a minute.
    async fn read(&self) -> Result<Credential, CredentialError> {
        match self {
            Self::Secret(place) => place.read().await,
            Self::Directory(place) => place.read().await,
        }
    }

    /// Reads the login as it is.
    async fn latest(&self) -> Result<Credential, CredentialError> {
        match self {
            Self::Secret(place) => place.latest().await,
            Self::Directory(place) => place.read().await,
        }
    }

    /// Becomes the one writer for a renewal, if nobody else is.
    async fn claim(&self, now: Timestamp) -> Result<Claim, CredentialError> {
        match self {
            Self::Secret(place) => place.claim(now).await,
            Self::Directory(place) => place.lock(now).await,
        }
    }

    /// Gets the right to write what this process renewed before. Whoever claims the Secret meanwhile has the used-up token
    /// in hand, so its version alone protects what is stored.
    async fn open(&self, now: Timestamp) -> Result<Claim, CredentialError> {
        match self {
            Self::Secret(place) => place.open().await,
            Self::Directory(place) => place.lock(now).await,
        }
    }

    /// Writes tokens over those that were stored when the right was given, and gives the right back.
    async fn write(&self, held: Held, renewed: &Renewed) -> Result<Written, CredentialError> {
        match (self, held.right) {
            (Self::Secret(place), Right::Version(version, entries)) => place.write(&entries, version, renewed).await,
            (Self::Directory(place), Right::Locks(locks)) => place.write(&held.credential, locks, renewed).await,
            // A right is only ever used on the place that gave it.
            (Self::Secret(_), Right::Locks(_)) | (Self::Directory(_), Right::Version(..)) => Ok(Written::Changed),
        }
    }

    /// Gives the right back without having written.
    async fn release(&self, held: Held) {
        // Locks go with the value itself.
        if let (Self::Secret(place), Right::Version(version, _)) = (self, held.right) {
            place.release(version).await;
        }
    }
}

/// SHA-256 of a token in hexadecimal digits: says which one is meant without saying it.
#[must_use]
pub fn digest(token: &str) -> String {
    format!("{:x}", Sha256::digest(token))
}

/// How near the end of a login is: 7, 3 or 1 days, 0 when it is over; `None` where it is far or not known. Each number is
/// worth one warning.
#[must_use]
pub fn days_left(refresh_expires_at: Option<Timestamp>, now: Timestamp) -> Option<u8> {
    let left = refresh_expires_at?.duration_since(now);
    let within = |days: i64| left <= SignedDuration::from_hours(24 * days);
    [0, 1, 3, 7].into_iter().find(|days| within(i64::from(*days)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn the_end_of_a_login_is_warned_of_in_steps() {
        const DAY: i64 = 86_400;
        for (left, days) in [
            (30 * DAY, None),
            (7 * DAY + 1, None),
            (7 * DAY, Some(7)),
            (3 * DAY + 1, Some(7)),
            (3 * DAY, Some(3)),
            (DAY, Some(1)),
            (1, Some(1)),
            (0, Some(0)),
            (-DAY, Some(0)),
        ] {
            assert_eq!(days_left(Some(at(left)), at(0)), days, "{left}");
        }
        assert_eq!(days_left(None, at(0)), None);
    }

    #[test]
    fn a_login_prints_no_token() {
        let credential = Credential {
            access_token: Secret::new("sk-ant-oat01-a"),
            refresh_token: Some(Secret::new("sk-ant-ort01-r")),
            expires_at: None,
            refresh_expires_at: None,
            scopes: vec![],
            plan: None,
            client_id: None,
        };
        assert!(!format!("{credential:?}").contains("sk-ant"));
    }
}
