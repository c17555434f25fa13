//! The login and what outlives it: tokens, the Matrix store, its lock, and the ways out when one of them is lost.

mod connection;
mod credentials;
mod error;
mod lock;
mod logins;
mod tokens;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use matrix_sdk::Client;
use matrix_sdk_base::crypto::CollectStrategy;
use tracing::{info, warn};

pub(super) use self::connection::close;
pub(super) use self::credentials::same_user;
pub use self::error::OpenError;
pub use self::lock::{Lock, lock_held};
use self::logins::Logins;
pub(super) use self::tokens::Folder;
pub(super) use self::tokens::Saved;
use self::wire::LoggedIn;
pub(super) use self::wire::{Patience, Wire, WireError, patiently};
use super::advice::Advice;
use super::recovery::{self, Unsigned};
use crate::config::{self, Login, TrustMode};
use crate::retry::Backoff;

/// How often signing the own device is tried, with a homeserver that answers.
const SIGNING_TRIES: u32 = 4;
/// How often it is tried with one that gives no answer, where an unsigned device may start …
const UNSETTLED_TRIES: u32 = 8;
/// … and the longest pause between these tries, whatever it asks for: half a minute in all, a little over one where it does.
const UNSETTLED_PAUSE: Duration = Duration::from_secs(10);
/// Pauses between tries of it grow from here …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … to here, with one that does not.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

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
    pub(crate) advice: Vec<Advice>,
}

impl Session {
    /// Logs in or goes on with the saved login, and has the own device signed.
    ///
    /// Waits out a homeserver that is away or limits logins; everything that waiting does not better is an [`OpenError`].
    pub(crate) async fn open(matrix: config::Matrix, trust: config::Trust, lock: Lock) -> Result<Opened, OpenError> {
        let folder = Folder::open(&matrix.store)?;
        let wire = Wire::new(&matrix)?;
        let saved = match kept(&matrix, &folder)? {
            Some(saved) => saved,
            None => first_login(&matrix, &wire, Patience::Endless).await?,
        };
        folder.save_session(&saved)?;
        let strategy = match trust.mode {
            TrustMode::Identity => CollectStrategy::IdentityBasedStrategy,
            // People without cross-signing could not read a word otherwise.
            TrustMode::Devices | TrustMode::Any => CollectStrategy::AllDevices,
        };
        let mut session =
            Self { matrix, trust, folder, wire, saved: Arc::new(Mutex::new(saved)), strategy, _lock: lock };

        let (mut client, signed) = session.sign().await?;
        let (signed, advice) = match signed {
            Ok(advice) => (true, advice.into_iter().collect()),
            Err(why) if session.matrix.require_signed_device || matches!(why, OpenError::Other { .. }) => {
                close(&client).await;
                return Err(why);
            }
            Err(why) => {
                warn!(%why, "going on with an unsigned device, as configured");
                (false, vec![Advice::Unsigned { why: why.to_string() }])
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

    /// Connects and has the own device signed. A homeserver that does not answer that is waited for like one that is away; but
    /// where the device is known to be unsigned and may start so, not for ever.
    async fn sign(&self) -> Result<(Client, Result<Option<Advice>, OpenError>), OpenError> {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut brief = Backoff::new(FIRST_PAUSE, UNSETTLED_PAUSE);
        let (mut refused, mut unsettled) = (0, 0);
        loop {
            let client = self.connect().await?;
            let (why, asked) = match recovery::sign_own_device(&client, &self.matrix, &self.folder).await {
                Ok(advice) => return Ok((client, Ok(advice))),
                Err(Unsigned::Unanswered(error, asked)) => {
                    (format!("whether the own device is signed is not known yet: {error:#}"), asked)
                }
                Err(Unsigned::Unsettled(why, asked)) => {
                    unsettled += 1;
                    if self.matrix.require_signed_device {
                        (why.to_string(), asked)
                    } else if unsettled < UNSETTLED_TRIES {
                        (why.to_string(), Some(asked.unwrap_or_else(|| brief.next()).min(UNSETTLED_PAUSE)))
                    } else {
                        return Ok((client, Err(why)));
                    }
                }
                Err(Unsigned::Certain(why)) => {
                    refused += 1;
                    if !matches!(why, OpenError::Unsigned { .. }) || refused >= SIGNING_TRIES {
                        return Ok((client, Err(why)));
                    }
                    (why.to_string(), None)
                }
            };
            let pause = asked.map_or_else(|| pauses.next(), |wait| wait.max(FIRST_PAUSE));
            warn!(?pause, "trying again: {why}");
            close(&client).await;
            tokio::time::sleep(pause).await;
        }
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
        let (device, folder) = (self.current().device_id, self.folder.root().to_owned());
        match self.matrix.login {
            // Tokens are replaced one by one, and their device stays.
            Login::Token { .. } => OpenError::TokenEnded { device, folder },
            Login::Password { .. } | Login::Jwt { .. } => OpenError::HardLogout { device, folder },
        }
    }

    fn current(&self) -> Saved {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, change: impl FnOnce(&mut Saved)) -> Result<(), OpenError> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut saved);
        self.folder.save_session(&saved)
    }

    /// New tokens for the same device; not at once where the last ones did not last.
    async fn renew(&self) -> Result<(), OpenError> {
        let saved = self.current();
        let pause = Duration::try_from(saved.logins.pause(now())).unwrap_or_default();
        if !pause.is_zero() {
            warn!(?pause, "the last logins did not last: waiting before the next");
            tokio::time::sleep(pause).await;
        }
        let Some(login) = login(&self.matrix, &self.wire, &saved.device_id, Patience::Endless).await? else {
            return Err(OpenError::TokenExpired { device: saved.device_id });
        };
        let LoggedIn { user_id, access_token, refresh_token, .. } = login;
        self.remember(|saved| saved.logins.note(now()))?;
        let keys = || self.wire.keys(&access_token, &user_id, &saved.device_id);
        let keys =
            patiently("asking for the own keys", Patience::Endless, keys).await.map_err(|error| other(&error))?;
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
}

/// The login that the folder holds, checked against the configuration and what else is there; `None` before the first one.
///
/// # Errors
/// Where the next start would stop: files are damaged, foreign or lost in part.
pub(super) fn kept(matrix: &config::Matrix, folder: &Folder) -> Result<Option<Saved>, OpenError> {
    let Some(mut saved) = folder.session()? else {
        if folder.has_matrix_store() {
            return Err(OpenError::SessionLost { folder: folder.root().to_owned() });
        }
        return Ok(None);
    };
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
    Ok(Some(saved))
}

/// Makes the first login of an empty folder.
///
/// # Errors
/// Where the homeserver does not take it, or it is not what the configuration says.
pub(super) async fn first_login(
    matrix: &config::Matrix,
    wire: &Wire,
    patience: Patience<'_>,
) -> Result<Saved, OpenError> {
    let Login::Token { access_token, device_id } = &matrix.login else {
        // Named before it is asked for: where the answer is lost, the next try gets the same device and not one more.
        let device = new_device();
        let LoggedIn { user_id, device_id, access_token, refresh_token } = login(matrix, wire, &device, patience)
            .await?
            .ok_or_else(|| OpenError::Other { why: "no credentials".to_owned() })?;
        info!(user_id, device_id, "logged in as a new device");
        let mut logins = Logins::default();
        logins.note(now());
        return Ok(Saved { user_id, device_id, access_token, refresh_token, ed25519: None, logins });
    };
    let token = access_token.expose().trim();
    let who =
        patiently("checking the access token", patience, || wire.whoami(token)).await.map_err(|error| match error {
            WireError::Refused { soft_logout: true, .. } => OpenError::TokenExpired { device: device_id.clone() },
            WireError::Refused { .. } => OpenError::LoginRefused { why: error.to_string() },
            error => other(&error),
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
    let keys = || wire.keys(token, &who.user_id, device_id);
    let keys = patiently("asking for the own keys", patience, keys).await.map_err(|error| other(&error))?;
    if keys.device.is_some() {
        return Err(OpenError::TokenStoreLost { device: device_id.clone() });
    }
    Ok(Saved {
        user_id: who.user_id,
        device_id: device_id.clone(),
        access_token: token.to_owned(),
        refresh_token: None,
        ed25519: None,
        logins: Logins::default(),
    })
}

/// One login, waiting out limits and outages but never repeating what was refused; `None` where a token is configured.
async fn login(
    matrix: &config::Matrix,
    wire: &Wire,
    device: &str,
    patience: Patience<'_>,
) -> Result<Option<LoggedIn>, OpenError> {
    // Fresh ones for each try: a JSON Web Token may not live as long as an outage or a limit.
    let attempt = || async {
        match credentials::credentials(matrix, patience).await {
            // What has gone out makes a device, and must be waited for.
            Ok(Some(_)) if patience.is_over() => Err(WireError::Interrupted),
            Ok(Some(credentials)) => wire.login(&credentials, device).await.map(|login| Ok(Some(login))),
            Ok(None) => Ok(Ok(None)),
            Err(error) => Ok(Err(error)),
        }
    };
    let login = patiently("logging in", patience, attempt).await.map_err(|error| match error {
        WireError::Refused { .. } => OpenError::LoginRefused { why: error.to_string() },
        error => other(&error),
    })?;
    let Some(login) = login? else { return Ok(None) };
    if !credentials::same_user(&matrix.user, &login.user_id) {
        let _ = wire.logout(&login.access_token).await;
        return Err(OpenError::OtherAccount { expected: matrix.user.clone(), found: login.user_id });
    }
    Ok(Some(login))
}

/// A device id that nobody has, of ten capitals as homeservers make them.
fn new_device() -> String {
    rand::random::<[u8; 10]>().iter().map(|byte| char::from(b'A' + byte % 26)).collect()
}

fn other(error: &WireError) -> OpenError {
    match error {
        WireError::Limited(wait) => OpenError::Limited { wait: *wait },
        WireError::Unreachable(why) => OpenError::Unanswered { why: why.clone() },
        error @ WireError::Strange(_) => OpenError::Unanswered { why: error.to_string() },
        WireError::Interrupted => OpenError::Interrupted,
        error @ WireError::Refused { .. } => OpenError::Other { why: error.to_string() },
    }
}

#[expect(clippy::disallowed_methods, reason = "logins are paced by the time at which they were made")]
fn now() -> Timestamp {
    Timestamp::now()
}
