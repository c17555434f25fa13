//! A local server that plays a subscription's provider: the usage endpoint, and the token endpoint with refresh tokens that
//! are good for one use, of which a second one ends the whole login.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

/// Longer than any wait in a test.
const DEADLINE: Duration = Duration::from_mins(3);

/// What an endpoint answers once, in the place of what it would.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// The right answer, when a [`Provider::let_go`] comes.
    Held,
    /// A good status, and then a byte now and then without end.
    Drip,
    /// No answer.
    Silence,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Answer(status, vec![("content-type", "application/json".to_owned())], body.to_string())
    }

    /// The refusal of somebody who asks too often.
    pub(crate) fn too_often(retry_after: Option<&str>) -> Self {
        let body = json!({"error": {"type": "rate_limit_error", "message": "Rate limited. Please try again later."}});
        let headers = retry_after.map(|value| ("retry-after", value.to_owned())).into_iter().collect();
        Self::Answer(429, headers, body.to_string())
    }

    pub(crate) fn error(status: u16, kind: &str, message: &str) -> Self {
        Self::json(
            status,
            &json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}),
        )
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }
}

#[derive(Debug, Default)]
struct Login {
    access: HashSet<String>,
    refresh: String,
    used: HashSet<String>,
    revoked: bool,
    count: u32,
}

#[derive(Debug)]
struct Inner {
    login: Login,
    usage: Value,
    /// Whose the login is.
    organization: Option<String>,
    /// What an answer of the token endpoint has beside the two tokens.
    beside: Value,
    usage_replies: VecDeque<Reply>,
    token_replies: VecDeque<Reply>,
    usage_asked: Vec<Asked>,
    token_asked: Vec<Asked>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    asked: watch::Sender<(usize, usize)>,
    held: Semaphore,
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Provider {
    address: String,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

impl Provider {
    /// Starts a server whose one login has the tokens `access-0` and `refresh-0`; renewing counts them up.
    pub(crate) async fn start() -> Self {
        let login =
            Login { access: ["access-0".to_owned()].into(), refresh: "refresh-0".to_owned(), ..Login::default() };
        let inner = Inner {
            login,
            usage: json!({"five_hour": {"utilization": 12.0, "resets_at": 1_790_000_000}, "limits": []}),
            beside: json!({"expires_in": 28_800, "scope": "user:inference user:profile", "token_type": "Bearer"}),
            organization: None,
            usage_replies: VecDeque::new(),
            token_replies: VecDeque::new(),
            usage_asked: Vec::new(),
            token_asked: Vec::new(),
        };
        let shared = Shared { inner: Mutex::new(inner), asked: watch::channel((0, 0)).0, held: Semaphore::new(0) };
        let shared = Arc::new(shared);
        let router = Router::new()
            .route("/api/oauth/usage", get(usage))
            .route("/v1/oauth/token", post(token))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, shared, _server: AbortOnDropHandle::new(server) }
    }

    /// Its base URL.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn usage_url(&self) -> Url {
        format!("{}/api/oauth/usage", self.address).parse().expect("a URL")
    }

    pub(crate) fn token_url(&self) -> Url {
        format!("{}/v1/oauth/token", self.address).parse().expect("a URL")
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner()
    }

    /// Answers every question of the usage endpoint with this from now on.
    pub(crate) fn says(&self, usage: Value) {
        self.inner().usage = usage;
    }

    /// Says from now on whose the login is, as the real one does in a header.
    pub(crate) fn belongs_to(&self, organization: &str) {
        self.inner().organization = Some(organization.to_owned());
    }

    /// Answers the next question of the usage endpoint with this; several are answered in turn.
    pub(crate) fn on_usage(&self, reply: Reply) {
        self.inner().usage_replies.push_back(reply);
    }

    /// The same for the token endpoint.
    pub(crate) fn on_token(&self, reply: Reply) {
        self.inner().token_replies.push_back(reply);
    }

    /// Changes what the token endpoint answers beside the two tokens.
    pub(crate) fn beside(&self, beside: Value) {
        self.inner().beside = beside;
    }

    /// Lets one held answer go.
    pub(crate) fn let_go(&self) {
        self.shared.held.add_permits(1);
    }

    /// Takes no access token any more that was given out so far.
    pub(crate) fn expire(&self) {
        self.inner().login.access.clear();
    }

    /// Ends the login, as a second use of a refresh token does.
    pub(crate) fn revoke(&self) {
        self.inner().login.revoked = true;
    }

    /// Begins a new login, as a person does: gives its access and refresh token.
    pub(crate) fn log_in(&self) -> (String, String) {
        let mut inner = self.inner();
        inner.login = Login { count: inner.login.count + 100, ..Login::default() };
        inner.login.next()
    }

    /// Says whether the provider would still take this login.
    pub(crate) fn takes(&self, access: &str, refresh: &str) -> bool {
        let login = &self.inner().login;
        !login.revoked && login.access.contains(access) && login.refresh == refresh
    }

    /// Every question of the usage endpoint so far.
    pub(crate) fn usage_asked(&self) -> Vec<Asked> {
        self.inner().usage_asked.clone()
    }

    /// Every question of the token endpoint so far.
    pub(crate) fn token_asked(&self) -> Vec<Asked> {
        self.inner().token_asked.clone()
    }

    /// Waits until the usage endpoint was asked so often.
    pub(crate) async fn until_usage_asked(&self, times: usize) {
        let mut asked = self.shared.asked.subscribe();
        let reached = asked.wait_for(|(usage, _)| *usage >= times);
        tokio::time::timeout(DEADLINE, reached).await.expect("it is asked in time").expect("the server runs");
    }

    /// Waits until the token endpoint was asked so often.
    pub(crate) async fn until_token_asked(&self, times: usize) {
        let mut asked = self.shared.asked.subscribe();
        let reached = asked.wait_for(|(_, token)| *token >= times);
        tokio::time::timeout(DEADLINE, reached).await.expect("it is asked in time").expect("the server runs");
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plays a scripted reply; `None`: the right answer is wanted.
    async fn play(&self, reply: Option<Reply>) -> Option<Response<Body>> {
        match reply? {
            Reply::Answer(status, headers, body) => Some(answer(status, &headers, body)),
            Reply::Held => {
                self.held.acquire().await.expect("it is never closed").forget();
                None
            }
            Reply::Drip => {
                let bytes = futures_util::stream::repeat(()).then(|()| async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok::<_, std::io::Error>(Bytes::from_static(b" "))
                });
                Some(Response::new(Body::from_stream(bytes)))
            }
            Reply::Silence => std::future::pending().await,
        }
    }
}

impl Login {
    fn next(&mut self) -> (String, String) {
        self.count += 1;
        let (access, refresh) = (format!("access-{}", self.count), format!("refresh-{}", self.count));
        self.access.insert(access.clone());
        self.refresh.clone_from(&refresh);
        (access, refresh)
    }
}

fn answer(status: u16, headers: &[(&'static str, String)], body: String) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(body)).expect("an answer")
}

fn said(status: StatusCode, body: &Value) -> Response<Body> {
    answer(status.as_u16(), &[("content-type", "application/json".to_owned())], body.to_string())
}

async fn usage(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response<Body> {
    let reply = {
        let mut inner = shared.inner();
        inner.usage_asked.push(Asked { at: Instant::now(), headers: headers.clone(), body: Value::Null });
        inner.usage_replies.pop_front()
    };
    shared.asked.send_modify(|asked| asked.0 += 1);
    if let Some(response) = shared.play(reply).await {
        return response;
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let inner = shared.inner();
    match bearer {
        // What the real one does with an empty bearer.
        None | Some("") => answer(429, &[("retry-after", "3242".to_owned())], String::new()),
        Some(token) if inner.login.access.contains(token) && !inner.login.revoked => {
            let mut headers = vec![("content-type", "application/json".to_owned())];
            headers.extend(inner.organization.clone().map(|id| ("anthropic-organization-id", id)));
            answer(200, &headers, inner.usage.to_string())
        }
        Some(_) => {
            let error = json!({"type": "authentication_error", "message": "Invalid bearer token"});
            said(StatusCode::UNAUTHORIZED, &json!({"type": "error", "error": error, "request_id": "req_1"}))
        }
    }
}

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let body: Value = serde_json::from_slice(&body).expect("the question is JSON");
    let reply = {
        let mut inner = shared.inner();
        inner.token_asked.push(Asked { at: Instant::now(), headers, body: body.clone() });
        inner.token_replies.pop_front()
    };
    shared.asked.send_modify(|asked| asked.1 += 1);
    if let Some(response) = shared.play(reply).await {
        return response;
    }
    let mut inner = shared.inner();
    let refresh = body["refresh_token"].as_str().unwrap_or_default().to_owned();
    if inner.login.used.contains(&refresh) {
        inner.login.revoked = true;
    }
    if inner.login.revoked || inner.login.refresh != refresh {
        let error = json!({"error": "invalid_grant", "error_description": "Refresh token not found or invalid"});
        return said(StatusCode::BAD_REQUEST, &error);
    }
    inner.login.used.insert(refresh);
    let (access, refresh) = inner.login.next();
    let mut body = inner.beside.clone();
    body["access_token"] = access.into();
    body["refresh_token"] = refresh.into();
    said(StatusCode::OK, &body)
}
