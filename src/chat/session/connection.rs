//! The SDK's client on the Matrix store, and the proof that login, store and device belong together.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use matrix_sdk::authentication::matrix::MatrixSession;
use matrix_sdk::config::RequestConfig;
use matrix_sdk::cross_process_lock::CrossProcessLockConfig;
use matrix_sdk::encryption::{BackupDownloadStrategy, EncryptionSettings};
use matrix_sdk::store::RoomLoadSettings;
use matrix_sdk::{Client, ClientBuildError, SessionMeta, SessionTokens, SqliteStoreConfig};
use matrix_sdk_base::crypto::{CryptoStoreError, DecryptionSettings, OlmError, TrustRequirement};
use tracing::warn;

use super::wire::{self, Patience, patiently};
use super::{OpenError, Session, other};
use crate::chat::Ended;
use crate::chat::answer::{Answer, LastWord};
use crate::retry::Backoff;

/// One request of the SDK takes no longer; the long poll adds its own time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

impl Session {
    /// Builds a client on the store and proves that login, store and device belong together.
    pub(super) async fn connect(&self) -> Result<Client, OpenError> {
        loop {
            let client = self.build().await?;
            if let Err(error) = self.restore(&client).await {
                close(&client).await;
                return Err(error);
            }
            match self.prove(&client).await {
                Ok(None) => return Ok(client),
                Ok(Some(Ended::SoftLogout)) => {
                    close(&client).await;
                    self.renew().await?;
                }
                Ok(Some(_)) => {
                    close(&client).await;
                    return Err(self.hard_logout());
                }
                Err(error) => {
                    close(&client).await;
                    return Err(error);
                }
            }
        }
    }

    async fn build(&self) -> Result<Client, OpenError> {
        let key = self.folder.key()?;
        let store = SqliteStoreConfig::with_low_memory_config(self.folder.matrix()).key(Some(&key));
        Client::builder()
            .homeserver_url(self.matrix.homeserver.as_str())
            .http_client(self.wire.http.clone())
            // Every wait is ours: the SDK would retry inside, for minutes and unseen.
            .request_config(RequestConfig::new().disable_retry().timeout(REQUEST_TIMEOUT))
            .sqlite_store_with_config_and_cache_path(store, None::<&std::path::Path>)
            .cross_process_store_config(CrossProcessLockConfig::SingleProcess)
            .handle_refresh_tokens()
            .with_encryption_settings(EncryptionSettings {
                // Done by `recovery`, where a failure is seen.
                auto_enable_cross_signing: false,
                backup_download_strategy: BackupDownloadStrategy::Manual,
                auto_enable_backups: false,
            })
            .with_room_key_recipient_strategy(self.strategy.clone())
            // Whose word a message is, is judged by `trust`, at the time of the command.
            .with_decryption_settings(DecryptionSettings {
                sender_device_trust_requirement: TrustRequirement::Untrusted,
            })
            .with_enable_share_history_on_invite(false)
            .build()
            .await
            .map_err(|error| self.build_error(error))
    }

    fn build_error(&self, error: ClientBuildError) -> OpenError {
        use matrix_sdk_sqlite::OpenStoreError as E;
        match error {
            ClientBuildError::SqliteStore(error) => match error {
                E::InitCipher(_) => OpenError::WrongStoreKey { path: self.folder.key_file() },
                E::CreateDir(source) => OpenError::Folder { path: self.folder.matrix(), source },
                error => store_error(self.folder.root(), wire::chain(&error)),
            },
            ClientBuildError::Http(error) => OpenError::Http { why: wire::chain(&error) },
            error => OpenError::Other { why: wire::chain(&error) },
        }
    }

    async fn restore(&self, client: &Client) -> Result<(), OpenError> {
        let saved = self.current();
        let bad_id = |why: String| OpenError::SessionUnreadable { path: self.folder.session_file(), why };
        let session = MatrixSession {
            meta: SessionMeta {
                user_id: saved.user_id.as_str().try_into().map_err(|error| bad_id(format!("{error}")))?,
                device_id: saved.device_id.as_str().into(),
            },
            tokens: SessionTokens { access_token: saved.access_token, refresh_token: saved.refresh_token },
        };
        let (reload, save) = (Arc::clone(&self.saved), Arc::clone(&self.saved));
        let folder = self.folder.clone();
        client
            .set_session_callbacks(
                Box::new(move |_| {
                    let saved = reload.lock().unwrap_or_else(PoisonError::into_inner);
                    Ok(SessionTokens {
                        access_token: saved.access_token.clone(),
                        refresh_token: saved.refresh_token.clone(),
                    })
                }),
                // On the disk before the new token is used: the homeserver takes the old one until then.
                Box::new(move |client: Client| {
                    let Some(tokens) = client.session_tokens() else { return Ok(()) };
                    let mut saved = save.lock().unwrap_or_else(PoisonError::into_inner);
                    saved.access_token = tokens.access_token;
                    saved.refresh_token = tokens.refresh_token;
                    Ok(folder.save_session(&saved)?)
                }),
            )
            .map_err(|error| OpenError::Other { why: wire::chain(&error) })?;
        client
            .matrix_auth()
            .restore_session(session, RoomLoadSettings::default())
            .await
            .map_err(|error| self.restore_error(&error))
    }

    fn restore_error(&self, error: &matrix_sdk::Error) -> OpenError {
        let mismatch = match error {
            matrix_sdk::Error::CryptoStoreError(error) => Some(error.as_ref()),
            matrix_sdk::Error::OlmError(error) => match error.as_ref() {
                OlmError::Store(error) => Some(error),
                _ => None,
            },
            _ => None,
        };
        if let Some(CryptoStoreError::MismatchedAccount { expected, got }) = mismatch {
            return OpenError::StoreForeign {
                expected: format!("{} {}", expected.0, expected.1),
                found: format!("{} {}", got.0, got.1),
            };
        }
        store_error(self.folder.root(), wire::chain(error))
    }

    /// Asks the homeserver who we are, and the store which keys we have; gives how the login ended, if it did.
    async fn prove(&self, client: &Client) -> Result<Option<Ended>, OpenError> {
        let saved = self.current();
        let mut word = LastWord::on(client);
        let mut pauses = Backoff::new(Duration::from_millis(500), Duration::from_mins(1));
        let who = loop {
            match client.whoami().await {
                Ok(who) => break who,
                Err(error) => {
                    if let Some(ended) = word.ended(&error) {
                        return Ok(Some(ended));
                    }
                    let pause = match Answer::of(&error) {
                        Answer::Refused => return Err(OpenError::Other { why: wire::chain(&error) }),
                        Answer::Limited(Some(wait)) => wait,
                        _ => pauses.next(),
                    };
                    warn!(error = wire::chain(&error), ?pause, "the homeserver cannot be reached, trying again");
                    tokio::time::sleep(pause).await;
                }
            }
        };
        if who.user_id != saved.user_id {
            return Err(OpenError::OtherAccount { expected: saved.user_id, found: who.user_id.to_string() });
        }
        if who.device_id.as_ref().map(|id| id.as_str()) != Some(saved.device_id.as_str()) {
            return Err(OpenError::OtherDevice {
                expected: saved.device_id,
                found: who.device_id.map_or_else(|| "no device".to_owned(), |id| format!("device {id}")),
            });
        }

        let found = client.encryption().ed25519_key().await.unwrap_or_default();
        let changed =
            |expected| OpenError::DeviceKeyChanged { device: saved.device_id.clone(), expected, found: found.clone() };
        match &saved.ed25519 {
            Some(expected) if *expected != found => Err(changed(expected.clone())),
            Some(_) => Ok(None),
            None => {
                // A first start, or one that was interrupted: the homeserver may know the device already.
                let token = client.access_token().unwrap_or_default();
                let keys = || self.wire.keys(&token, &saved.user_id, &saved.device_id);
                let keys = patiently("asking for the own keys", Patience::Endless, keys)
                    .await
                    .map_err(|error| other(&error))?;
                match keys.device {
                    Some(published) if published != found => Err(changed(published)),
                    _ => {
                        self.remember(|saved| saved.ed25519 = Some(found.clone()))?;
                        Ok(None)
                    }
                }
            }
        }
    }
}

/// Closes the stores of a client that is not used any more.
pub(crate) async fn close(client: &Client) {
    if let Err(error) = client.pause().await {
        warn!(%error, "the Matrix store could not be closed");
    }
}

/// What SQLite and the system say of a file that is whole and cannot be used now.
const PASSING: [&str; 10] = [
    "unable to open",
    "is locked",
    "disk I/O error",
    "disk is full",
    "readonly database",
    "permission denied",
    "Permission denied",
    "locking protocol",
    "out of memory",
    "imeout",
];

/// Tells a store that cannot be used now from a damaged one, which nobody should be told lightly to delete.
fn store_error(folder: &std::path::Path, why: String) -> OpenError {
    let folder = folder.to_owned();
    // The SDK's own errors are not exported; SQLite's words have been the same for decades.
    if PASSING.iter().any(|words| why.contains(words)) {
        OpenError::StoreUnavailable { folder, why }
    } else {
        OpenError::StoreCorrupted { folder, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_damaged_store_is_called_damaged() {
        for (why, damaged) in [
            (
                "Failed to load database version: file is not a database: Error code 26: File opened that is not a database file",
                true,
            ),
            ("Failed to load database version: database disk image is malformed", true),
            ("missing field `user_id`", true),
            (
                "Failed to load database version: unable to open database file: matrix-sdk-crypto.sqlite3: Error code 14",
                false,
            ),
            ("Failed to run migrations: database is locked: Error code 5: The database file is locked", false),
            ("Failed to run migrations: database or disk is full", false),
            ("attempt to write a readonly database", false),
            ("Error occurred while creating a new object: Permission denied (os error 13)", false),
        ] {
            let error = store_error(std::path::Path::new("/data"), why.to_owned());
            assert_eq!(matches!(error, OpenError::StoreCorrupted { .. }), damaged, "{why}");
        }
    }
}
