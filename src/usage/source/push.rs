//! Takes what workstations push, so that no login leaves them.
//!
//! The CLI gives its statusline program what its last answer said of the limits. One line there sends it on, at most once a
//! minute, and the bearer token stands in no process list. In `~/.claude/settings.json`:
//!
//! ```json
//! {"statusLine": {"type": "command", "command": "~/.claude/pilothouse-statusline"}}
//! ```
//!
//! `~/.claude/pilothouse-statusline`, executable; its last line is the hook, and goes below a statusline that is there
//! already. `~/.claude/pilothouse-header` (mode 0600) holds `Authorization: Bearer <the account's token>`:
//!
//! ```sh
//! #!/bin/sh
//! input=$(cat); printf '%s' "$input" | jq -r .model.display_name
//! { cd ~/.claude && [ -z "$(find pilothouse-sent -mmin -1)" ] && touch pilothouse-sent && printf '%s' "$input" | jq -c '{sent_at: now, rate_limits}' | curl -m 5 -H @pilothouse-header --data-binary @- https://pilothouse.example/usage/v1/work; } >/dev/null 2>&1 &
//! ```
//!
//! Each CLI tells its own last answer, so what is pushed may be old and is never proof of a reset
//! ([`Source::confirms`]). The listener speaks plain HTTP: put it behind whatever speaks TLS for the rest of the cluster.
//!
//! | answer | when |
//! |---|---|
//! | 204 | taken |
//! | 400 | not JSON, no `rate_limits`, or `sent_at` more than 5 min from the time here |
//! | 401 | the bearer token is missing or not that of the account |
//! | 404 | no such account, or no push for it |
//! | 409 | sent no later than one that was taken |
//! | 413 | more than 16 KiB |
//! | 429 | less than 5 s after the one before, or too many at once |
//! | 503 | the store cannot be written |

mod request;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path as Segment, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use jiff::{SignedDuration, Timestamp};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::store::Store;
use crate::store::usage::Pushed;
use crate::usage::bucket::{Snapshot, Source};

/// The longest body: a statusline's whole input has about 2 KiB.
const LONGEST_BODY: usize = 16 * 1024;
/// So long a body may take.
const SLOWEST_BODY: Duration = Duration::from_secs(10);
/// So many requests are looked at at once.
const AT_ONCE: usize = 16;
/// Clocks may differ by this much.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Pushes of one account are at least so far apart.
const GAP: SignedDuration = SignedDuration::from_secs(5);

/// What is configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Account → the file with its bearer token, which is read again for each request.
    pub accounts: BTreeMap<String, PathBuf>,
}

/// Serves until `shutdown`; what was pushed goes into `pushed`.
///
/// # Errors
/// Where the address is taken.
pub async fn serve(
    settings: Settings,
    store: Store,
    pushed: mpsc::Sender<Snapshot>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listen = settings.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("the address {listen} for pushed usage cannot be used; choose another port"))?;
    tracing::info!(address = %listener.local_addr()?, accounts = settings.accounts.len(), "pushed usage is taken");
    let server = axum::serve(listener, router(settings.accounts, store, pushed));
    tokio::select! {
        result = server => result.context("the listener for pushed usage ended"),
        () = shutdown.cancelled() => Ok(()),
    }
}

/// The one route, for whoever has a listener.
pub fn router(accounts: BTreeMap<String, PathBuf>, store: Store, pushed: mpsc::Sender<Snapshot>) -> Router {
    let shared = Shared { accounts, store, pushed, places: Semaphore::new(AT_ONCE) };
    Router::new().route("/usage/v1/{account}", post(take)).with_state(Arc::new(shared))
}

struct Shared {
    accounts: BTreeMap<String, PathBuf>,
    store: Store,
    pushed: mpsc::Sender<Snapshot>,
    places: Semaphore,
}

/// Why a push was not taken, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.0, format!("{}\n", self.1)).into_response();
        let header = match self.0 {
            StatusCode::TOO_MANY_REQUESTS => Some((header::RETRY_AFTER, "5")),
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            _ => None,
        };
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, header::HeaderValue::from_static(value));
        }
        response
    }
}

fn refused<T>(status: StatusCode, why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(status, why.into()))
}

async fn take(
    State(shared): State<Arc<Shared>>,
    Segment(account): Segment<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refused> {
    #[expect(clippy::disallowed_methods, reason = "a request comes when it comes: here the clock is read")]
    let now = Timestamp::now();
    shared.take(&account, &headers, body, now).await.map(|()| StatusCode::NO_CONTENT).inspect_err(|refused| {
        tracing::debug!(status = refused.0.as_u16(), why = refused.1, "a push was refused");
    })
}

impl Shared {
    async fn take(&self, account: &str, headers: &HeaderMap, body: Body, now: Timestamp) -> Result<(), Refused> {
        let Ok(_place) = self.places.try_acquire() else {
            return refused(StatusCode::TOO_MANY_REQUESTS, "too many pushes at once; send the next one later");
        };
        let Some(token) = bearer(headers) else {
            return refused(StatusCode::UNAUTHORIZED, "send the account's token as `Authorization: Bearer …`");
        };
        let Some(file) = self.accounts.get(account) else {
            return refused(StatusCode::NOT_FOUND, "no push is configured for this account");
        };
        if !matches(file, token).await {
            return refused(StatusCode::UNAUTHORIZED, "the bearer token is not that of this account");
        }
        let Ok(body) = tokio::time::timeout(SLOWEST_BODY, axum::body::to_bytes(body, LONGEST_BODY)).await else {
            return refused(StatusCode::BAD_REQUEST, format!("the body did not come within {SLOWEST_BODY:?}"));
        };
        let Ok(body) = body else {
            return refused(StatusCode::PAYLOAD_TOO_LARGE, "the body broke off or has more than 16 KiB");
        };
        let (sent_at, rate_limits) =
            request::read(&body).map_err(|why| Refused(StatusCode::BAD_REQUEST, why.to_owned()))?;
        if now.duration_since(sent_at).abs() > SKEW {
            return refused(StatusCode::BAD_REQUEST, "sent_at is more than 5 min from the time here; set the clock");
        }
        let snapshot = super::answer::decode(account, Source::Push, sent_at, None, &rate_limits)
            .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("rate_limits: {error}")))?;
        // A place in the queue first: what cannot be passed on must not count as taken.
        let Ok(place) = self.pushed.try_reserve() else {
            return refused(StatusCode::TOO_MANY_REQUESTS, "the pushes before are not looked at yet; send it again");
        };
        match self.store.note_pushed(account, sent_at, GAP).await {
            Ok(Pushed::Taken) => {
                place.send(snapshot);
                Ok(())
            }
            Ok(Pushed::NotNewer) => {
                refused(StatusCode::CONFLICT, "sent_at is not later than that of a push which was taken before")
            }
            Ok(Pushed::TooSoon) => refused(StatusCode::TOO_MANY_REQUESTS, "less than 5 s after the push before"),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a push could not be noted");
                refused(StatusCode::SERVICE_UNAVAILABLE, "the store cannot be written; send it again later")
            }
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

/// Compares a token with the one in the account's file, in a time that tells nothing about it. The file is read each time:
/// a new token counts at once, and an empty or missing file lets nobody in.
async fn matches(file: &Path, token: &str) -> bool {
    match tokio::fs::read_to_string(file).await {
        Ok(expected) => {
            let expected = expected.trim();
            !expected.is_empty() && bool::from(expected.as_bytes().ct_eq(token.as_bytes()))
        }
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the token for pushed usage cannot be read: nobody is let in");
            false
        }
    }
}
