//! Renews a login so that no token is lost and no newer login overwritten.
//!
//! ```text
//!  claim ─▶ read again ─▶ ask ─▶ keep {digest of the used one, what followed} in the store ─▶ write back ─▶ use ─▶ drop
//! ```
//!
//! From the answer on, each step may be the last: what was kept is looked at before the next question and is used only
//! where the stored refresh token is still the used one. Otherwise somebody has logged in since, and the newer login wins.
//! Between the moment in which the provider replaces the token and the one in which the store has it on the disk (an answer
//! on its way and one write) nothing can be promised: a kill there, or an answer that breaks off, costs the login. The same
//! holds where store and place refuse the write at the same time and the process then ends.

mod successor;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{error, info, warn};
use url::Url;

use super::token::{self, TokenError};
use super::{Claim, Credential, CredentialError, Held, Place, Renewed, digest};
use crate::retry::Backoff;
use crate::store::Store;

/// Where tokens are renewed, unless configured.
pub const TOKEN_URL: &str = "https://platform.claude.com/v1/oauth/token";
/// The CLI's client, to which its logins belong, unless configured.
pub const CLIENT_ID: &str = "9d1c250a-e61b-44d9-88ed-5944d1962f5e";

/// So long another writer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pauses while waiting, and between tries to write back: from here …
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// … to here.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is configured of one account's login.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the account.
    pub account: String,
    /// The token endpoint, or a proxy before it.
    pub token_url: Url,
    /// The client that the login belongs to; [`CLIENT_ID`] unless configured. What the credential says goes first.
    pub client_id: String,
    /// How this program names itself. The endpoint refuses the CLI's names; then the own one is sent.
    pub user_agent: String,
}

/// The login of one account: read before each question, renewed in time. Clones share it.
#[derive(Debug, Clone)]
pub struct Login {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    http: reqwest::Client,
    place: Place,
    store: Store,
    memory: Mutex<Memory>,
    /// One renewal of this process at a time.
    turn: tokio::sync::Mutex<()>,
}

/// What this process knows beyond place and store.
#[derive(Debug, Default)]
struct Memory {
    /// The login that was used last.
    last: Option<Credential>,
    /// Digests of refresh tokens that are used up, though a mount may still show them.
    used_up: HashSet<String>,
    /// Digest of the refresh token that the provider has refused for good.
    dead: Option<String>,
    /// What followed, where the store could not keep it.
    unkept: Option<(String, RenewedInMemory)>,
}

struct RenewedInMemory(Renewed);

impl std::fmt::Debug for RenewedInMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Why the login is to be renewed.
#[derive(Debug, Clone)]
enum Why {
    /// It ends soon.
    Expiring,
    /// The provider refused the access token with this digest.
    Rejected(String),
}

impl Why {
    /// Says whether it still holds for what is stored now.
    fn holds(&self, stored: &Credential, now: Timestamp) -> bool {
        match self {
            Self::Expiring => stored.is_expiring(now),
            Self::Rejected(rejected) => digest(stored.access_token.expose()) == *rejected || stored.is_expiring(now),
        }
    }
}

impl Login {
    /// Asks nothing yet. `http` is made by [`wire::client`](crate::usage::wire::client).
    #[must_use]
    pub fn new(settings: Settings, http: reqwest::Client, place: Place, store: Store) -> Self {
        let (memory, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { shared: Arc::new(Shared { settings, http, place, store, memory, turn }) }
    }

    /// When the whole login ends, as far as it was read: see [`days_left`](super::days_left).
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.shared.memory().last.as_ref().and_then(|last| last.refresh_expires_at)
    }

    /// Gives the login to ask with, renewed where it ends soon.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub async fn current(&self, now: Timestamp) -> Result<Credential, CredentialError> {
        self.detached(move |shared| async move { shared.current(now).await }).await
    }

    /// Renews the login because the provider has refused its access token, unless another one is stored by now.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub async fn rejected(&self, used: &Credential, now: Timestamp) -> Result<Credential, CredentialError> {
        let why = Why::Rejected(digest(used.access_token.expose()));
        let before = used.parent();
        self.detached(move |shared| async move {
            shared.alive(before.as_ref())?;
            let renewed = shared.renew(why, now).await?;
            shared.remember(before, &renewed);
            Ok(renewed)
        })
        .await
    }

    /// Runs in a task of its own: a caller who loses patience must not drop an answer that is on its way.
    async fn detached<F>(&self, work: impl FnOnce(Arc<Shared>) -> F) -> Result<Credential, CredentialError>
    where
        F: Future<Output = Result<Credential, CredentialError>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.shared));
        let outcome = tokio::spawn(work).await;
        outcome
            .unwrap_or_else(|error| Err(CredentialError::Unavailable(format!("reading the login was ended ({error})"))))
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn current(&self, now: Timestamp) -> Result<Credential, CredentialError> {
        let stored = match self.settle(now).await? {
            Some(settled) => settled,
            None => match self.stored().await {
                Err(CredentialError::Unavailable(why)) => {
                    // The provider can be asked while the API server is away.
                    let last = self.memory().last.clone().filter(|last| !last.is_expiring(now));
                    let last = last.ok_or(CredentialError::Unavailable(why.clone()))?;
                    warn!(account = self.settings.account, why, "the login is used as it was read before");
                    last
                }
                stored => stored?,
            },
        };
        let before = stored.parent();
        self.alive(before.as_ref())?;
        let credential = if stored.is_expiring(now) && stored.can_renew() {
            match self.renew(Why::Expiring, now).await {
                Err(error @ (CredentialError::Unavailable(_) | CredentialError::RateLimited { .. }))
                    if stored.is_usable(now) =>
                {
                    warn!(account = self.settings.account, %error, "the login could not be renewed and is used while it lasts");
                    stored
                }
                renewed => renewed?,
            }
        } else {
            stored
        };
        if credential.access_token.expose().is_empty() {
            return Err(CredentialError::Missing(
                "the stored login is blank and has nothing to renew it with; log in again".to_owned(),
            ));
        }
        self.remember(before, &credential);
        Ok(credential)
    }

    /// Fails for a refresh token that the provider has refused for good: it is not asked again.
    fn alive(&self, parent: Option<&String>) -> Result<(), CredentialError> {
        let known = parent.is_some() && self.memory().dead.as_ref() == parent;
        if known { Err(dead()) } else { Ok(()) }
    }

    /// Reads what is stored; a mount that still shows a used-up token stands for what followed it.
    async fn stored(&self) -> Result<Credential, CredentialError> {
        let stored = self.place.read().await?;
        let memory = self.memory();
        let used_up = stored.parent().is_some_and(|parent| memory.used_up.contains(&parent));
        Ok(memory.last.clone().filter(|_| used_up).unwrap_or(stored))
    }

    /// Notes what is used from now on, in the place of what was stored under `before`.
    fn remember(&self, before: Option<String>, credential: &Credential) {
        let mut memory = self.memory();
        if let Some(before) = before.filter(|before| credential.parent().is_some_and(|parent| parent != *before)) {
            memory.used_up.insert(before);
        }
        memory.last = Some(credential.clone());
    }

    async fn renew(&self, why: Why, now: Timestamp) -> Result<Credential, CredentialError> {
        let _turn = self.turn.lock().await;
        let begun = Instant::now();
        let held = match self.claimed(&why, begun, now).await? {
            Ok(held) => held,
            Err(anothers) => return Ok(anothers),
        };
        let stored = held.credential.clone();
        let holds = why.holds(&stored, now + begun.elapsed());
        if !holds || !held.counts() {
            self.place.release(*held).await;
            let lost = || CredentialError::Unavailable("somebody else has taken the lock of the login".to_owned());
            return if holds { Err(lost()) } else { Ok(stored) };
        }
        let asked = self.ask(&stored, now + begun.elapsed()).await;
        match asked {
            Ok((parent, renewed)) => {
                let kept = self.keep(&parent, &renewed, now + begun.elapsed()).await;
                let finished = self.finish(Some(held), &parent, &renewed, now + begun.elapsed()).await;
                match finished {
                    Ok(Some((credential, written))) => {
                        info!(account = self.settings.account, written, "the login was renewed");
                        Ok(credential)
                    }
                    Ok(None) => self.place.latest().await,
                    Err(error) => {
                        error!(account = self.settings.account, %error, kept, "the renewed login could not be written back");
                        Ok(stored.renewed(&renewed))
                    }
                }
            }
            Err(error) => {
                self.place.release(*held).await;
                match error {
                    TokenError::Other(error) => Err(error),
                    TokenError::InvalidGrant => self.refused(&stored).await,
                }
            }
        }
    }

    /// Becomes the one writer, or gives what another one has written meanwhile.
    async fn claimed(
        &self,
        why: &Why,
        begun: Instant,
        now: Timestamp,
    ) -> Result<Result<Box<Held>, Credential>, CredentialError> {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let at = now + begun.elapsed();
            match self.place.claim(at).await? {
                Claim::Held(held) => return Ok(Ok(held)),
                Claim::Busy(Some(stored)) if !why.holds(&stored, at) => return Ok(Err(stored)),
                Claim::Busy(_) if begun.elapsed() > PATIENCE => {
                    return Err(CredentialError::Unavailable(format!(
                        "somebody else has been renewing the login for {} s",
                        PATIENCE.as_secs()
                    )));
                }
                Claim::Busy(_) => tokio::time::sleep(pauses.next()).await,
            }
        }
    }

    /// Uses the refresh token up; gives its digest and what followed.
    async fn ask(&self, stored: &Credential, now: Timestamp) -> Result<(String, Renewed), TokenError> {
        let missing = || CredentialError::Missing("the stored login has no refresh token; log in again".to_owned());
        let parent = stored.parent().ok_or_else(|| TokenError::Other(missing()))?;
        // What cannot be kept is not asked for.
        self.store.probe().await.map_err(|error| TokenError::Other(unreadable(&error)))?;
        let renewed = token::renew(&self.http, &self.settings, stored, now).await?;
        Ok((parent, renewed))
    }

    /// The provider takes the refresh token no more: another one may be stored by now, or nothing but a login helps.
    async fn refused(&self, stored: &Credential) -> Result<Credential, CredentialError> {
        let latest = self.place.latest().await?;
        if latest.parent() != stored.parent() {
            return Ok(latest);
        }
        self.memory().dead = stored.parent();
        Err(dead())
    }
}

fn dead() -> CredentialError {
    CredentialError::Dead(
        "the login is over: the provider takes its refresh token no more (invalid_grant), because a month has passed, somebody has logged out, or another \
         program has used it; log in again with the account's own CLAUDE_CONFIG_DIR (`claude`, `/login`) and put the new login where this one is"
            .to_owned(),
    )
}

fn unreadable(error: &crate::store::StoreError) -> CredentialError {
    CredentialError::Unavailable(format!("renewed logins cannot be kept: {error}"))
}
