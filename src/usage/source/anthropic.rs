//! Asks the usage endpoint with a login of its own.
//!
//! The endpoint is the one that the provider's CLI asks, and is not documented. Its terms say that such logins are for its
//! own clients, so this source is off unless somebody turns it on, and it says honestly who asks.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use reqwest::header;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::{SourceError, answer};
use crate::usage::bucket::{Snapshot, Source};
use crate::usage::credential::{Credential, Login, digest};
use crate::usage::wire::{body, error_word, failure, retry_after};

/// Where the endpoint is, unless configured.
pub const USAGE_URL: &str = "https://api.anthropic.com/api/oauth/usage";
/// How long an answer may take, unless configured.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The feature that logins need, the same since the endpoint is known.
const BETA: &str = "oauth-2025-04-20";
/// A token that is refused although it is new is tried again after this time: the provider may have erred.
const REPEAT: SignedDuration = SignedDuration::from_hours(1);
/// The header that says whose login it was; an id has 36 characters.
const OWNER: &str = "anthropic-organization-id";
const LONGEST_ID: usize = 64;
/// Answers have about 3 KiB.
const LONGEST_BODY: usize = 256 * 1024;

/// What is configured of one account.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the account.
    pub account: String,
    /// The usage endpoint, or a proxy before it.
    pub url: Url,
    /// How this program names itself; [`USER_AGENT`](crate::usage::wire::USER_AGENT) unless configured.
    pub user_agent: String,
}

/// Why a token is not tried again. It counts as long as that token is the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Another login is needed: not asked again.
    Scope,
    /// It is refused although it was just renewed, or cannot be renewed: asked again in a while, not renewed again.
    Token {
        /// When it was refused.
        at: Timestamp,
    },
}

/// The usage endpoint with one account's login.
#[derive(Debug)]
pub struct Anthropic {
    settings: Settings,
    http: reqwest::Client,
    login: Login,
    /// Digest of the access token that was refused last, and how. Also: one question at a time.
    refused: Mutex<Option<(String, Refusal)>>,
}

impl Anthropic {
    /// Asks nothing yet. `http` is made by [`wire::client`](crate::usage::wire::client).
    #[must_use]
    pub fn new(settings: Settings, http: reqwest::Client, login: Login) -> Self {
        Self { settings, http, login, refused: Mutex::new(None) }
    }

    /// Name of the account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.settings.account
    }

    /// The login: when it ends, and where it is kept.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Asks once; a token that is refused is renewed once.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn ask(&self, now: Timestamp) -> Result<Snapshot, SourceError> {
        let mut refused = self.refused.lock().await;
        let mut credential = self.login.current(now).await?;
        let known = |credential: &Credential, refused: &Option<(String, Refusal)>| {
            let (token, refusal) = refused.as_ref()?;
            (*token == digest(credential.access_token.expose())).then_some(*refusal)
        };
        match known(&credential, &refused) {
            Some(Refusal::Scope) => return Err(SourceError::ScopeMissing),
            Some(Refusal::Token { at }) if now.duration_since(at).abs() < REPEAT => {
                return Err(SourceError::Unauthorized);
            }
            _ => {}
        }
        let mut answer = self.request(&credential, now).await;
        let renewable = credential.can_renew() && known(&credential, &refused).is_none();
        if renewable && answer == Err(SourceError::Unauthorized) {
            credential = self.login.rejected(&credential, now).await?;
            answer = self.request(&credential, now).await;
        }
        let refusal = match &answer {
            Err(SourceError::Unauthorized) => Some(Refusal::Token { at: now }),
            Err(SourceError::ScopeMissing) => Some(Refusal::Scope),
            Ok(_) => None,
            // Says nothing about the token.
            Err(_) => known(&credential, &refused),
        };
        *refused = refusal.map(|refusal| (digest(credential.access_token.expose()), refusal));
        let Answer { body, owner } = answer?;
        let snapshot = answer::decode(self.account(), Source::AnthropicOauth, now, credential.plan.as_deref(), &body)?;
        Ok(Snapshot { owner, ..snapshot })
    }

    async fn request(&self, credential: &Credential, now: Timestamp) -> Result<Answer, SourceError> {
        let token = credential.access_token.expose();
        if token.is_empty() {
            // An empty bearer is not refused but punished, for an hour.
            return Err(SourceError::Unauthorized);
        }
        let request = self
            .http
            .get(self.settings.url.clone())
            .bearer_auth(token)
            .header("anthropic-beta", BETA)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, &self.settings.user_agent);
        let transient = |why: String| SourceError::Transient(format!("the usage endpoint: {why}"));
        let answer = request.send().await.map_err(|error| transient(failure(&error)))?;
        let status = answer.status();
        let wait = retry_after(&answer, now);
        let owner = owner(answer.headers());
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(SourceError::RateLimited { retry_after: wait });
        }
        let body = body(answer, LONGEST_BODY).await.map_err(transient)?;
        let Some(body) = body else {
            return Err(transient(format!("the answer is longer than {} KiB", LONGEST_BODY / 1024)));
        };
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map(|body| Answer { body, owner })
                .map_err(|_| transient("the answer is not JSON; is something else at its URL?".to_owned())),
            StatusCode::UNAUTHORIZED => Err(SourceError::Unauthorized),
            StatusCode::FORBIDDEN if names_scope(&body) => Err(SourceError::ScopeMissing),
            _ => {
                let word = error_word(&body).map(|word| format!(" ({word})")).unwrap_or_default();
                let hint = if status == StatusCode::NOT_FOUND || status.is_redirection() {
                    "; look whether its URL is right"
                } else {
                    ""
                };
                Err(transient(format!("HTTP {}{word}{hint}", status.as_u16())))
            }
        }
    }
}

/// A good answer, and whose it is.
#[derive(Debug, PartialEq)]
struct Answer {
    body: Value,
    owner: Option<String>,
}

/// Reads whose login it was: the organisation's id. What is no id says nothing.
fn owner(headers: &header::HeaderMap) -> Option<String> {
    let id = headers.get(OWNER)?.to_str().ok()?.trim();
    let is_id = (1..=LONGEST_ID).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_id.then(|| id.to_ascii_lowercase())
}

/// Says whether a refusal is about the token's scope; others may be about the address or the organization.
fn names_scope(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("scope requirement")
}
