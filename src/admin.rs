//! `/livez`, `/readyz`, `/metrics`: what the cluster asks of its operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chat::Health;
use crate::cluster::Cluster;
use crate::store::Store;
use crate::telemetry::Metrics;

/// A sync older than this is not fresh: a long poll of 30 s, and as much again for a slow homeserver.
const FRESH: SignedDuration = SignedDuration::from_secs(75);
/// The operator's loop turns every 5 s at least; the store may hold it up for a while.
const STILL: SignedDuration = SignedDuration::from_secs(90);
/// One turn of the receiving loop may take the 2 min that a sync is given, and a pause of a minute after it.
const CHAT_STILL: SignedDuration = SignedDuration::from_secs(240);
/// The subscription's loop turns every minute at least; the store may hold it up for a while.
const USAGE_STILL: SignedDuration = SignedDuration::from_secs(180);
/// An answer of the API server is good for so long, so that probes do not load it.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// A store that takes longer to write is not ready; probes give up after a few seconds themselves.
const STORE_LIMIT: Duration = Duration::from_secs(2);

/// What the listener looks at.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The room's side.
    pub chat: watch::Receiver<Health>,
    /// The cluster's side.
    pub cluster: Cluster,
    /// The journal.
    pub store: Store,
    /// Counters.
    pub metrics: Metrics,
    /// The last turn of the operator's loop.
    pub pulse: watch::Receiver<Option<Timestamp>>,
    /// The last turn of the subscription's loop.
    pub usage: watch::Receiver<Option<Timestamp>>,
}

/// The answer of `/readyz`.
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own, and JSON shows them by name")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether everything below is so.
    pub ready: bool,
    /// The last sync is fresh.
    pub synced: bool,
    /// The own device can encrypt.
    pub can_encrypt: bool,
    /// The API server answers.
    pub api_server: bool,
    /// The store can be written.
    pub store: bool,
    /// Why not, in sentences.
    pub reasons: Vec<String>,
}

/// Serves until `shutdown`.
///
/// # Errors
/// Where the address is taken.
pub async fn serve(listen: SocketAddr, admin: Admin, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("admin.listen = {listen}: the address cannot be used; choose another port"))?;
    let (api, asked) = watch::channel(None);
    let state = Arc::new(Shared { admin: admin.clone(), api: asked });
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state);
    tracing::info!(address = %listener.local_addr()?, "probes and metrics");
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        result = server => result.context("the listener for probes ended"),
        () = ask(admin, api) => anyhow::bail!("the question to the API server ended"),
        () = shutdown.cancelled() => Ok(()),
    }
}

/// Asks the API server from time to time.
async fn ask(admin: Admin, api: watch::Sender<Option<Result<String, String>>>) {
    loop {
        let answer = admin.cluster.version().await.map_err(|error| error.to_string());
        let changed = api.borrow().as_ref().map(Result::is_ok) != Some(answer.is_ok());
        match &answer {
            Ok(version) if changed => tracing::info!(version, "the API server answers"),
            Err(error) if changed => tracing::warn!(error, "the API server does not answer; commands are told so"),
            _ => {}
        }
        api.send_replace(Some(answer));
        tokio::time::sleep(ASK_EVERY).await;
    }
}

struct Shared {
    admin: Admin,
    api: watch::Receiver<Option<Result<String, String>>>,
}

/// Judges readiness: pure.
fn judge(health: &Health, api: Option<&Result<String, String>>, store: Option<&str>, now: Timestamp) -> Readiness {
    let mut reasons = Vec::new();
    let age = health.synced_at.map(|at| now.duration_since(at));
    let synced = age.is_some_and(|age| age <= FRESH);
    if !synced {
        reasons.push(match (age, &health.trouble) {
            (_, Some(trouble)) => format!("homeserver: {trouble}"),
            (None, None) => "homeserver: not synced yet".to_owned(),
            (Some(age), None) => format!("homeserver: the last sync was {} s ago", age.as_secs()),
        });
    }
    if !health.can_encrypt {
        reasons.push("the own device is not signed by its owner, or not known yet: it cannot encrypt".to_owned());
    }
    let api_server = matches!(api, Some(Ok(_)));
    match api {
        Some(Err(error)) => reasons.push(error.clone()),
        None => reasons.push("API server: not asked yet".to_owned()),
        Some(Ok(_)) => {}
    }
    if let Some(error) = store {
        reasons.push(error.to_owned());
    }
    let ready = reasons.is_empty();
    Readiness { ready, synced, can_encrypt: health.can_encrypt, api_server, store: store.is_none(), reasons }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let readiness = readiness(&shared).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

async fn readiness(shared: &Shared) -> Readiness {
    let health = shared.admin.chat.borrow().clone();
    let store = match tokio::time::timeout(STORE_LIMIT, shared.admin.store.probe()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("the store did not take a write in {} s", STORE_LIMIT.as_secs())),
    };
    let api = shared.api.borrow().clone();
    judge(&health, api.as_ref(), store.as_deref(), now())
}

/// One of the loops that must turn.
struct Beat {
    /// Of what.
    name: &'static str,
    /// The last turn; `None` before the first, or while a login is waited for: that is no standstill.
    at: Option<Timestamp>,
    /// How long a turn may take.
    limit: SignedDuration,
}

/// Judges liveness: pure. Names the first loop that stands still, and for how long.
fn alive(beats: &[Beat], now: Timestamp) -> Result<(), String> {
    let still = beats.iter().find_map(|beat| {
        let since = now.duration_since(beat.at?);
        (since > beat.limit).then(|| format!("the loop of {} has not turned for {} s", beat.name, since.as_secs()))
    });
    still.map_or(Ok(()), Err)
}

/// Live while the loops turn, whatever the servers do.
async fn livez(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let Admin { chat, pulse, usage, .. } = &shared.admin;
    let beats = [
        Beat { name: "operator", at: *pulse.borrow(), limit: STILL },
        Beat { name: "chat", at: chat.borrow().turned_at, limit: CHAT_STILL },
        Beat { name: "usage", at: *usage.borrow(), limit: USAGE_STILL },
    ];
    match alive(&beats, now()) {
        Ok(()) => (StatusCode::OK, "live\n".to_owned()),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, why + "\n"),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let readiness = readiness(&shared).await;
    let synced = shared.admin.chat.borrow().synced_at;
    let store = &shared.admin.store;
    if let (Ok(inbox), Ok(outbox)) = (store.inbox_depth().await, store.outbox_depth().await) {
        shared.admin.metrics.depths(inbox, outbox);
    }
    if let Ok(dropped) = store.outbox_dropped().await {
        shared.admin.metrics.dropped(dropped);
    }
    shared.admin.metrics.health(synced.map(|at| now().duration_since(at).as_secs_f64()), readiness.ready);
    (
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        shared.admin.metrics.text(),
    )
}

#[expect(clippy::disallowed_methods, reason = "a probe is asked at some time, and this is it")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_while_every_loop_turns_and_before_its_first_turn() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let judged = |operator: Option<i64>, chat: Option<i64>, usage: Option<i64>| {
            let beat = |name, ago: Option<i64>, limit| Beat {
                name,
                at: ago.map(|ago| now - SignedDuration::from_secs(ago)),
                limit,
            };
            let beats =
                [beat("operator", operator, STILL), beat("chat", chat, CHAT_STILL), beat("usage", usage, USAGE_STILL)];
            alive(&beats, now)
        };
        let still = |name: &str, ago: i64| Err(format!("the loop of {name} has not turned for {ago} s"));
        for (operator, chat, usage, wanted) in [
            (None, None, None, Ok(())),
            (Some(0), Some(0), Some(0), Ok(())),
            (Some(90), Some(240), Some(180), Ok(())),
            (Some(91), Some(0), Some(0), still("operator", 91)),
            (Some(0), Some(241), Some(0), still("chat", 241)),
            (Some(0), None, Some(0), Ok(())),
            (Some(0), Some(0), Some(181), still("usage", 181)),
            (None, None, Some(181), still("usage", 181)),
            // A clock that was set back.
            (Some(-3600), Some(-3600), Some(-3600), Ok(())),
        ] {
            assert_eq!(judged(operator, chat, usage), wanted, "{operator:?} {chat:?} {usage:?}");
        }
    }

    #[test]
    fn ready_only_when_all_is_so_and_every_lack_has_its_reason() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let good = Health { synced_at: Some(now), can_encrypt: true, ..Health::default() };
        let api = Ok("v1.35.4".to_owned());
        assert!(judge(&good, Some(&api), None, now).ready);
        let stale = Health { synced_at: Some(now - SignedDuration::from_secs(76)), ..good.clone() };
        let unsigned = Health { can_encrypt: false, ..good.clone() };
        let down = Err("the API server cannot be reached: refused".to_owned());
        for (readiness, reason) in [
            (judge(&stale, Some(&api), None, now), "the last sync was 76 s ago"),
            (judge(&Health::default(), Some(&api), None, now), "not synced yet"),
            (judge(&unsigned, Some(&api), None, now), "cannot encrypt"),
            (judge(&good, Some(&down), None, now), "cannot be reached"),
            (judge(&good, None, None, now), "not asked yet"),
            (judge(&good, Some(&api), Some("disk full"), now), "disk full"),
        ] {
            assert!(!readiness.ready);
            assert!(readiness.reasons.iter().any(|text| text.contains(reason)), "{readiness:?}");
        }
    }
}
