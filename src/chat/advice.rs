//! What whoever runs Pilothouse should see to about the bot's own device and its recovery key: the one place for these
//! sentences, which the log, `check` and `trust` repeat. The daemon notes it in the store, where the others read it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError};

/// Cursor of the store with the last advice, as JSON.
const ADVICE: &str = "advice";

/// Something to see to, on the machine or in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "advice")]
pub enum Advice {
    /// The own device is not signed, and the configuration goes on without.
    Unsigned {
        /// The cause, with its own way out.
        why: String,
    },
    /// The recovery key that an earlier start made lies on the volume and nowhere else, as far as is known.
    KeyOnVolume {
        /// The file.
        file: PathBuf,
    },
    /// The recovery key is configured, it fits, and it lies on the volume besides.
    KeyTwice {
        /// The file.
        file: PathBuf,
    },
    /// No recovery key is configured, and none lies on the volume.
    KeyMissing {
        /// A file whose presence has the next start make a new key, where the identity's private keys lie here.
        request: Option<PathBuf>,
    },
    /// The configured recovery key does not open the account's identity.
    KeyUnfit {
        /// The cause.
        why: String,
    },
    /// The identity's keys could not be put into secret storage, or not be looked for there.
    NotKept {
        /// The cause.
        why: String,
    },
}

impl Advice {
    /// Gives what was seen.
    #[must_use]
    pub fn seen(&self) -> String {
        match self {
            Self::Unsigned { why } => format!("the own device is unsigned: {why}"),
            Self::KeyOnVolume { file } => {
                format!("the recovery key lies on the same volume as what it recovers: {}", file.display())
            }
            Self::KeyTwice { file } => {
                format!("the recovery key is configured and fits, and it still lies on the volume: {}", file.display())
            }
            Self::KeyMissing { .. } => {
                "no recovery key is configured: if the volume is lost, the next device cannot be signed".to_owned()
            }
            Self::KeyUnfit { why } => format!(
                "matrix.recovery_key does not open the bot's identity ({why}): if the volume is lost, so is the identity"
            ),
            Self::NotKept { why } => {
                format!("whether the identity could be recovered after a lost volume is not known: {why}")
            }
        }
    }

    /// Gives what to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Unsigned { .. } => "give matrix.recovery_key_file; the next start signs the device".to_owned(),
            Self::KeyOnVolume { .. } => "move it into a Secret and set matrix.recovery_key_file".to_owned(),
            Self::KeyTwice { file } => {
                format!("delete {}, which would be lost or stolen with the volume", file.display())
            }
            Self::KeyMissing { request: None } => "set matrix.recovery_key_file".to_owned(),
            Self::KeyMissing { request: Some(request) } => format!(
                "set matrix.recovery_key_file; if nobody has the key any more, make an empty file {} and start again: a new \
                 key is made",
                request.display()
            ),
            Self::KeyUnfit { .. } => {
                "correct it and start again; until then keep every other copy of the key, recovery.key too".to_owned()
            }
            Self::NotKept { .. } => "it is tried again".to_owned(),
        }
    }

    /// Whether it is about the recovery key, and not the device.
    #[must_use]
    pub fn is_about_the_key(&self) -> bool {
        !matches!(self, Self::Unsigned { .. })
    }

    /// Reads what the daemon noted last, as far as files that were moved since have not changed it; `None` before its first
    /// start.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn noted(store: &Store) -> Result<Option<Vec<Self>>, StoreError> {
        let noted = store.cursor(ADVICE).await?.and_then(|text| serde_json::from_str::<Vec<Self>>(&text).ok());
        Ok(noted.map(|noted| {
            let still = |advice| match advice {
                Self::KeyOnVolume { file } if !file.is_file() => Some(Self::KeyMissing { request: None }),
                Self::KeyTwice { file } if !file.is_file() => None,
                advice => Some(advice),
            };
            noted.into_iter().filter_map(still).collect()
        }))
    }

    /// Notes all that there is to see to now.
    pub(super) async fn note(store: &Store, advice: &[Self]) -> Result<(), StoreError> {
        store.set_cursor(ADVICE, &serde_json::json!(advice).to_string()).await
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.seen(), self.remedy())
    }
}
