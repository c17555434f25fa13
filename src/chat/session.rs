//! The login and what outlives it: tokens, the Matrix store, its lock, and the ways out when one of them is lost.

mod credentials;
mod error;
mod lock;
mod tokens;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use matrix_sdk::authentication::matrix::MatrixSession;
use matrix_sdk::config::RequestConfig;
use matrix_sdk::cross_process_lock::CrossProcessLockConfig;
use matrix_sdk::encryption::{BackupDownloadStrategy, EncryptionSettings};
use matrix_sdk::store::RoomLoadSettings;
use matrix_sdk::{
    Client, ClientBuildError, HttpError, RefreshTokenError, SessionMeta, SessionTokens, SqliteStoreConfig,
};
use matrix_sdk_base::crypto::{CollectStrategy, CryptoStoreError, DecryptionSettings, OlmError, TrustRequirement};
use tracing::{info, warn};

pub use self::error::OpenError;
use self::lock::Lock;
pub use self::lock::lock_held;
pub(super) use self::tokens::Folder;
use self::tokens::Saved;
use self::wire::{LoggedIn, Wire, WireError, patiently};
use super::{Ended, recovery};
use crate::config::{self, Login, TrustMode};
use crate::retry::Backoff;

/// One request of the SDK takes no longer; the long poll adds its own time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// An open login: the one owner of the store folder.
#[derive(Debug)]
pub(crate) struct Session {
    matrix: config::Matrix,
    trust: config::Trust,
    folder: Folder,
    wire: Wire,
    saved: Arc<Mutex<Saved>>,
    strategy: CollectStrategy,
    _lock: Lock,
}

/// What an opened session tells the rest of chat.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) session: Session,
    pub(crate) client: Client,
    /// What the operator of the machine should do.
    pub(crate) advice: Vec<String>,
}

impl Session {
    /// Logs in or goes on with the saved login, and has the own device signed.
    ///
    /// Waits out a homeserver that is away or limits logins; everything that waiting does not better is an [`OpenError`].
    pub(crate) async fn open(
        matrix: config::Matrix,
        trust: config::Trust,
        lock_patience: Duration,
    ) -> Result<Opened, OpenError> {
        let folder = Folder::open(&matrix.store)?;
        let lock = Lock::take(folder.root(), lock_patience).await?;
        let wire = Wire::new(&matrix)?;
        let saved = match folder.session()? {
            Some(saved) => go_on_with(saved, &matrix, &folder)?,
            None => first_login(&matrix, &folder, &wire).await?,
        };
        folder.save_session(&saved)?;
        let strategy = match trust.mode {
            TrustMode::Identity => CollectStrategy::IdentityBasedStrategy,
            // People without cross-signing could not read a word otherwise.
            TrustMode::Devices | TrustMode::Any => CollectStrategy::AllDevices,
        };
        let mut session =
            Self { matrix, trust, folder, wire, saved: Arc::new(Mutex::new(saved)), strategy, _lock: lock };

        let mut client = session.connect().await?;
        let signed = recovery::sign_own_device(&client, &session.matrix, &session.folder).await;
        let (signed, advice) = match signed {
            Ok(advice) => (true, advice),
            Err(why) if session.matrix.require_signed_device => {
                close(&client).await;
                return Err(why);
            }
            Err(why) => {
                warn!(%why, "going on with an unsigned device, as configured");
                (false, vec![format!("the own device is unsigned: {why}")])
            }
        };
        if !signed && session.trust.mode == TrustMode::Identity {
            // The identity strategy refuses to send from an unsigned device, and it is fixed when a client is built.
            session.strategy = CollectStrategy::AllDevices;
            close(&client).await;
            client = session.connect().await?;
        }
        Ok(Opened { session, client, advice })
    }

    /// Logs in again with the same device, after a soft logout. The old client must be closed.
    pub(crate) async fn login_again(&self) -> Result<Client, OpenError> {
        self.renew().await?;
        self.connect().await
    }

    /// The section that the session was opened with.
    pub(crate) fn matrix(&self) -> &config::Matrix {
        &self.matrix
    }

    /// The section that the session was opened with.
    pub(crate) fn trust(&self) -> &config::Trust {
        &self.trust
    }

    /// Full user id.
    pub(crate) fn user_id(&self) -> String {
        self.current().user_id
    }

    /// Whether the client may encrypt with this own device, signed or not.
    pub(crate) fn sends_unsigned(&self) -> bool {
        self.strategy == CollectStrategy::AllDevices
    }

    /// The error of a device that the homeserver has ended.
    pub(crate) fn hard_logout(&self) -> OpenError {
        OpenError::HardLogout { device: self.current().device_id, folder: self.folder.root().to_owned() }
    }

    fn current(&self) -> Saved {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, change: impl FnOnce(&mut Saved)) -> Result<(), OpenError> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut saved);
        self.folder.save_session(&saved)
    }

    /// New tokens for the same device.
    async fn renew(&self) -> Result<(), OpenError> {
        let saved = self.current();
        let Some(login) = login(&self.matrix, &self.wire, Some(&saved.device_id)).await? else {
            return Err(OpenError::TokenExpired { device: saved.device_id });
        };
        let LoggedIn { user_id, access_token, refresh_token, .. } = login;
        let keys = patiently("asking for the own keys", || self.wire.keys(&access_token, &user_id, &saved.device_id))
            .await
            .map_err(other)?;
        if user_id != saved.user_id || keys.device != saved.ed25519 {
            // The homeserver had deleted the device: this login has made a new one under its name, without its keys.
            let _ = self.wire.logout(&access_token).await;
            return Err(self.hard_logout());
        }
        info!(device = saved.device_id, "logged in again with the same device");
        self.remember(|saved| {
            saved.access_token = access_token;
            saved.refresh_token = refresh_token;
        })
    }

    /// Builds a client on the store and proves that login, store and device belong together.
    async fn connect(&self) -> Result<Client, OpenError> {
        let mut renewed = false;
        loop {
            let client = self.build().await?;
            if let Err(error) = self.restore(&client).await {
                close(&client).await;
                return Err(error);
            }
            match self.prove(&client).await {
                Ok(Ended::Shutdown) => return Ok(client),
                Ok(Ended::SoftLogout) if !renewed => {
                    renewed = true;
                    close(&client).await;
                    self.renew().await?;
                }
                Ok(_) => {
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
        let corrupted = |why: String| OpenError::StoreCorrupted { folder: self.folder.root().to_owned(), why };
        match error {
            ClientBuildError::SqliteStore(error) => match error {
                E::InitCipher(_) => OpenError::WrongStoreKey { path: self.folder.key_file() },
                E::CreateDir(source) => OpenError::Folder { path: self.folder.matrix(), source },
                error => corrupted(wire::chain(&error)),
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
            .map_err(|error| self.restore_error(error))
    }

    fn restore_error(&self, error: matrix_sdk::Error) -> OpenError {
        let mismatch = match &error {
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
        OpenError::StoreCorrupted { folder: self.folder.root().to_owned(), why: wire::chain(&error) }
    }

    /// Asks the homeserver who we are, and the store which keys we have. `Shutdown` stands for "all is well".
    async fn prove(&self, client: &Client) -> Result<Ended, OpenError> {
        let saved = self.current();
        let mut pauses = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        let who = loop {
            match client.whoami().await {
                Ok(who) => break who,
                Err(error) => {
                    if let Some(ended) = ended(&error) {
                        return Ok(ended);
                    }
                    if let Some(why) = refusal(&error) {
                        return Err(OpenError::Other { why });
                    }
                    let pause = pauses.next();
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
            Some(_) => Ok(Ended::Shutdown),
            None => {
                // A first start, or one that was interrupted: the homeserver may know the device already.
                let token = client.access_token().unwrap_or_default();
                let keys =
                    patiently("asking for the own keys", || self.wire.keys(&token, &saved.user_id, &saved.device_id))
                        .await
                        .map_err(other)?;
                match keys.device {
                    Some(published) if published != found => Err(changed(published)),
                    _ => {
                        self.remember(|saved| saved.ed25519 = Some(found.clone()))?;
                        Ok(Ended::Shutdown)
                    }
                }
            }
        }
    }
}

/// Checks a saved login against the configuration and the folder.
fn go_on_with(mut saved: Saved, matrix: &config::Matrix, folder: &Folder) -> Result<Saved, OpenError> {
    if !credentials::same_user(&matrix.user, &saved.user_id) {
        return Err(OpenError::StoreForeign { expected: matrix.user.clone(), found: saved.user_id });
    }
    if let Login::Token { access_token, device_id } = &matrix.login {
        if *device_id != saved.device_id {
            return Err(OpenError::StoreForeign {
                expected: format!("device {device_id}"),
                found: format!("device {}", saved.device_id),
            });
        }
        access_token.expose().trim().clone_into(&mut saved.access_token);
    }
    if saved.ed25519.is_some() && !folder.has_matrix_store() {
        return Err(OpenError::StoreLost { device: saved.device_id, folder: folder.root().to_owned() });
    }
    Ok(saved)
}

/// Makes the first login of an empty folder.
async fn first_login(matrix: &config::Matrix, folder: &Folder, wire: &Wire) -> Result<Saved, OpenError> {
    if folder.has_matrix_store() {
        return Err(OpenError::SessionLost { folder: folder.root().to_owned() });
    }
    let Login::Token { access_token, device_id } = &matrix.login else {
        let LoggedIn { user_id, device_id, access_token, refresh_token } =
            login(matrix, wire, None).await?.ok_or_else(|| OpenError::Other { why: "no credentials".to_owned() })?;
        info!(user_id, device_id, "logged in as a new device");
        return Ok(Saved { user_id, device_id, access_token, refresh_token, ed25519: None });
    };
    let token = access_token.expose().trim();
    let who = patiently("checking the access token", || wire.whoami(token)).await.map_err(|error| match error {
        WireError::Refused { soft_logout: true, .. } => OpenError::TokenExpired { device: device_id.clone() },
        WireError::Refused { .. } => OpenError::LoginRefused { why: error.to_string() },
        error => other(error),
    })?;
    if !credentials::same_user(&matrix.user, &who.user_id) {
        return Err(OpenError::OtherAccount { expected: matrix.user.clone(), found: who.user_id });
    }
    if who.device_id.as_ref() != Some(device_id) {
        return Err(OpenError::OtherDevice {
            expected: device_id.clone(),
            found: who.device_id.map_or_else(|| "no device".to_owned(), |id| format!("device {id}")),
        });
    }
    let keys =
        patiently("asking for the own keys", || wire.keys(token, &who.user_id, device_id)).await.map_err(other)?;
    if keys.device.is_some() {
        return Err(OpenError::TokenStoreLost { device: device_id.clone() });
    }
    Ok(Saved {
        user_id: who.user_id,
        device_id: device_id.clone(),
        access_token: token.to_owned(),
        refresh_token: None,
        ed25519: None,
    })
}

/// One login, waiting out limits and outages but never repeating what was refused; `None` where a token is configured.
async fn login(matrix: &config::Matrix, wire: &Wire, device: Option<&str>) -> Result<Option<LoggedIn>, OpenError> {
    let Some(credentials) = credentials::credentials(matrix).await? else { return Ok(None) };
    let login = patiently("logging in", || wire.login(&credentials, device)).await.map_err(|error| match error {
        WireError::Refused { .. } => OpenError::LoginRefused { why: error.to_string() },
        error => other(error),
    })?;
    if !credentials::same_user(&matrix.user, &login.user_id) {
        let _ = wire.logout(&login.access_token).await;
        return Err(OpenError::OtherAccount { expected: matrix.user.clone(), found: login.user_id });
    }
    Ok(Some(login))
}

fn other(error: WireError) -> OpenError {
    OpenError::Other { why: error.to_string() }
}

/// Closes the stores of a client that is not used any more.
pub(crate) async fn close(client: &Client) {
    if let Err(error) = client.pause().await {
        warn!(%error, "the Matrix store could not be closed");
    }
}

/// Says whether an answer ends the login, and how.
pub(crate) fn ended(error: &HttpError) -> Option<Ended> {
    use matrix_sdk::ruma::api::error::ErrorKind;
    match error {
        // The refresh itself may have failed for a passing reason: then the login still stands.
        HttpError::RefreshToken(RefreshTokenError::MatrixAuth(inner)) => inner
            .as_client_api_error()
            .filter(|error| error.status_code.is_client_error())
            .and_then(|error| (error.status_code.as_u16() != 429).then_some(Ended::SoftLogout)),
        HttpError::RefreshToken(_) => Some(Ended::SoftLogout),
        HttpError::Cached(inner) => ended(inner),
        error => match error.client_api_error_kind()? {
            ErrorKind::UnknownToken(data) if data.soft_logout => Some(Ended::SoftLogout),
            ErrorKind::UnknownToken(_) | ErrorKind::UserDeactivated => Some(Ended::HardLogout),
            _ => None,
        },
    }
}

/// What a homeserver says that another try would not better (not a limit, not an outage).
fn refusal(error: &HttpError) -> Option<String> {
    let said = error.as_client_api_error()?;
    (said.status_code.is_client_error() && said.status_code.as_u16() != 429).then(|| said.to_string())
}
