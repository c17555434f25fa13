//! The few requests that are made without the SDK: what happens before a Matrix store may be opened.
//!
//! A login over plain HTTP lets its tokens reach the disk before an encryption identity is made for them, and the same
//! way serves the first login, the login after a soft logout, and the question whether the homeserver knows a device.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use url::Url;

use super::error::OpenError;
use crate::config;
use crate::retry::Backoff;
use crate::tls;

/// A request that takes longer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Pauses between tries grow from here …
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// … to here.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The longest limit that somebody who watches is asked to sit out.
const BRIEF: Duration = Duration::from_secs(30);
/// What a server's limit means when it does not say.
pub(super) const LIMITED: Duration = Duration::from_secs(30);

/// The configuration's key for a file with CAs.
const CA_KEY: &str = "matrix.ca_file";

/// How this program names itself to servers.
pub(crate) const USER_AGENT: &str = concat!("pilothouse/", env!("CARGO_PKG_VERSION"));

/// Builds the HTTP client for the homeserver: private CA, proxy, user agent.
pub(crate) fn http(matrix: &config::Matrix) -> Result<reqwest::Client, OpenError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(Duration::from_secs(10))
        .tls_version_min(reqwest::tls::Version::TLS_1_2);
    builder = with_ca(builder, matrix).map_err(|why| OpenError::Http { why })?;
    if let Some(proxy) = &matrix.proxy {
        let proxy = reqwest::Proxy::all(proxy.as_str())
            .map_err(|error| OpenError::Http { why: format!("matrix.proxy: {error}") })?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|error| OpenError::Http { why: chain(&error) })
}

/// Trusts `matrix.ca_file` besides the system's certificates.
pub(super) fn with_ca(
    builder: reqwest::ClientBuilder,
    matrix: &config::Matrix,
) -> Result<reqwest::ClientBuilder, String> {
    tls::with_ca(builder, matrix.ca_file.as_deref(), CA_KEY)
}

/// Why a request had no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// No answer, or one that a later try may better (5xx).
    #[error("{0}")]
    Unreachable(String),
    /// The homeserver wants fewer requests.
    #[error("the homeserver asks to wait {} s", .0.as_secs())]
    Limited(Duration),
    /// The homeserver said no.
    #[error("{status} {code}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// `errcode`.
        code: String,
        /// `error`.
        message: String,
        /// `soft_logout`.
        soft_logout: bool,
    },
    /// Whoever wanted the answer has gone; no device was made.
    #[error("interrupted")]
    Interrupted,
    /// An answer that no homeserver gives, perhaps of a proxy that has none behind it now.
    #[error("an answer that no homeserver gives: {0}")]
    Strange(String),
}

#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    errcode: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    soft_logout: bool,
}

/// A successful `/login`.
#[derive(Deserialize)]
pub(crate) struct LoggedIn {
    pub(crate) user_id: String,
    pub(crate) device_id: String,
    pub(crate) access_token: String,
    pub(crate) refresh_token: Option<String>,
}

/// A successful `/account/whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Whoami {
    pub(crate) user_id: String,
    /// `None` for a token that belongs to no device.
    pub(crate) device_id: Option<String>,
}

/// What the homeserver serves for one account.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// ed25519 key of the device that was asked for.
    pub(crate) device: Option<String>,
}

/// Plain HTTP to one homeserver.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(super) http: reqwest::Client,
    homeserver: Url,
    /// Whether a configured proxy stands between.
    proxied: bool,
}

impl Wire {
    pub(crate) fn new(matrix: &config::Matrix) -> Result<Self, OpenError> {
        Ok(Self { http: http(matrix)?, homeserver: matrix.homeserver.clone(), proxied: matrix.proxy.is_some() })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/_matrix/client/v3/{path}", self.homeserver.as_str().trim_end_matches('/'))
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, WireError> {
        let answer = request.timeout(REQUEST_TIMEOUT).send().await.map_err(|error| self.no_answer(error))?;
        let status = answer.status();
        let asked_to_wait = retry_after(&answer);
        let body = answer.bytes().await.map_err(|error| self.no_answer(error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| WireError::Strange(error.to_string()));
        }
        let said: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
        Err(if status.as_u16() == 429 {
            WireError::Limited(asked_to_wait.or(said.retry_after_ms.map(Duration::from_millis)).unwrap_or(LIMITED))
        } else if status.is_server_error() {
            WireError::Unreachable(format!("the homeserver answers {status} {}", said.error))
        } else if said.errcode.is_empty() {
            WireError::Strange(format!("{status} without an errcode: is matrix.homeserver right?"))
        } else {
            WireError::Refused {
                status: status.as_u16(),
                code: said.errcode,
                message: said.error,
                soft_logout: said.soft_logout,
            }
        })
    }

    fn no_answer(&self, error: reqwest::Error) -> WireError {
        let through = if self.proxied && error.is_connect() { "through matrix.proxy: " } else { "" };
        WireError::Unreachable(format!("{through}{}", no_answer(error)))
    }

    /// `POST /login` with these credentials, as this device; the homeserver makes it where it does not know it.
    pub(crate) async fn login(&self, credentials: &Value, device: &str) -> Result<LoggedIn, WireError> {
        let mut body = credentials.clone();
        body["refresh_token"] = json!(true);
        body["device_id"] = json!(device);
        // Of no account for one that it knows.
        body["initial_device_display_name"] = json!("Pilothouse");
        self.ask(self.http.post(self.url("login")).json(&body)).await
    }

    /// `GET` of a path below `/_matrix/client/v3/`.
    pub(crate) async fn read(&self, token: &str, path: &str) -> Result<Value, WireError> {
        self.ask(self.http.get(self.url(path)).bearer_auth(token)).await
    }

    /// `POST /keys/query` for several people, whole.
    pub(crate) async fn query_keys(&self, token: &str, users: &[String]) -> Result<Value, WireError> {
        let wanted: serde_json::Map<_, _> = users.iter().map(|user| (user.clone(), json!([]))).collect();
        let body = json!({ "device_keys": wanted, "timeout": 10_000 });
        self.ask(self.http.post(self.url("keys/query")).bearer_auth(token).json(&body)).await
    }

    /// `GET /_matrix/client/versions`.
    pub(crate) async fn versions(&self) -> Result<Vec<String>, WireError> {
        #[derive(Deserialize)]
        struct Versions {
            versions: Vec<String>,
        }
        let url = format!("{}/_matrix/client/versions", self.homeserver.as_str().trim_end_matches('/'));
        self.ask::<Versions>(self.http.get(url)).await.map(|answer| answer.versions)
    }

    /// `POST /logout`: for a login that turned out to be of no use.
    pub(crate) async fn logout(&self, token: &str) -> Result<(), WireError> {
        self.ask::<Value>(self.http.post(self.url("logout")).bearer_auth(token).json(&json!({}))).await.map(drop)
    }

    /// `GET /account/whoami`.
    pub(crate) async fn whoami(&self, token: &str) -> Result<Whoami, WireError> {
        self.ask(self.http.get(self.url("account/whoami")).bearer_auth(token)).await
    }

    /// `POST /keys/query` for one account.
    pub(crate) async fn keys(&self, token: &str, user: &str, device: &str) -> Result<Keys, WireError> {
        let body = json!({ "device_keys": { user: [] }, "timeout": 10_000 });
        let answer: Value = self.ask(self.http.post(self.url("keys/query")).bearer_auth(token).json(&body)).await?;
        let device = &answer["device_keys"][user][device]["keys"][format!("ed25519:{device}")];
        Ok(Keys { device: device.as_str().map(str::to_owned) })
    }
}

/// How long an outage or a limit is waited out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience<'a> {
    /// For ever: a daemon comes back by itself.
    Endless,
    /// Somebody watches, until this is cancelled: an outage is told at once, and a limit is waited for once, where it ends within
    /// [`BRIEF`].
    Brief(&'a CancellationToken),
}

impl Patience<'_> {
    /// Whether whoever watched has gone.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Brief(end) if end.is_cancelled())
    }

    /// Gives up what makes no device when whoever watched has gone.
    pub(crate) async fn while_watched<T>(
        self,
        work: impl Future<Output = Result<T, WireError>>,
    ) -> Result<T, WireError> {
        match self {
            Self::Endless => work.await,
            Self::Brief(end) => end.run_until_cancelled(work).await.unwrap_or(Err(WireError::Interrupted)),
        }
    }
}

/// Asks until the server gives an answer that another try would not better, or `patience` is over.
pub(crate) async fn patiently<T, F>(
    what: &str,
    patience: Patience<'_>,
    mut ask: impl FnMut() -> F,
) -> Result<T, WireError>
where
    F: Future<Output = Result<T, WireError>>,
{
    let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    if let Patience::Brief(_) = patience {
        return match ask().await {
            Err(WireError::Limited(wait)) if wait <= BRIEF => {
                let sits_out = async {
                    tokio::time::sleep(wait.max(FIRST_PAUSE)).await;
                    Ok(())
                };
                patience.while_watched(sits_out).await?;
                ask().await
            }
            answer => answer,
        };
    }
    loop {
        let pause = match ask().await {
            Err(error @ (WireError::Unreachable(_) | WireError::Strange(_))) => {
                let pause = pauses.next();
                warn!(%error, ?pause, "{what}: no answer, trying again");
                pause
            }
            Err(WireError::Limited(wait)) => {
                // A server that asks for no wait at all is not asked in a circle.
                let wait = wait.max(FIRST_PAUSE);
                warn!(?wait, until = %until(wait), "{what}: limited, waiting as the server asks");
                wait
            }
            answer => return answer,
        };
        tokio::time::sleep(pause).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a waiting loop says until when")]
fn until(wait: Duration) -> Timestamp {
    Timestamp::now() + wait
}

/// How long a server asks to wait (the header `Retry-After`, in seconds).
pub(crate) fn retry_after(answer: &reqwest::Response) -> Option<Duration> {
    let seconds = answer.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Why no answer came, with what to do where that is known.
pub(crate) fn no_answer(error: reqwest::Error) -> String {
    let error = error.without_url();
    tls::certificate_fault(&error, CA_KEY).unwrap_or_else(|| chain(&error))
}

/// An error with its causes, in one line: reqwest hides the interesting one.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
