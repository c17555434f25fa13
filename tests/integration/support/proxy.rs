//! A proxy before the homeserver, for the faults that it does not give on demand: it fails or changes chosen requests, and
//! counts all of them.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::Value;

use super::http;
use super::synapse::Synapse;

/// Most of a request's body.
const BODY: usize = 10 << 20;

/// What the proxy answers itself.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl Answer {
    /// An answer as a homeserver gives it.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, kind: "application/json", body: body.to_string() }
    }

    /// The page of a reverse proxy.
    pub(crate) fn page(status: u16) -> Self {
        Self { status, kind: "text/html", body: "<html><h1>Not here</h1></html>".to_owned() }
    }
}

type Fault = Box<dyn Fn(&Method, &str) -> Option<Answer> + Send>;
type Change = Box<dyn Fn(&Method, &str, Value) -> Value + Send>;

#[derive(Default)]
struct Plan {
    faults: Vec<Fault>,
    changes: Vec<Change>,
    seen: Vec<(Method, String)>,
}

/// A running proxy; it ends with its test.
pub(crate) struct Proxy {
    url: String,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Clone)]
struct Shared {
    target: String,
    http: reqwest::Client,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    /// Stands before this homeserver and changes nothing yet.
    pub(crate) async fn before(synapse: &Synapse) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let plan = Arc::<Mutex<Plan>>::default();
        let shared = Shared { target: synapse.url().to_owned(), http: http(), plan: Arc::clone(&plan) };
        let router = axum::Router::new().fallback(forward).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, plan }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> url::Url {
        self.url.parse().expect("a URL")
    }

    /// Gives this answer to requests whose path has this in it, until [`Self::mend`].
    pub(crate) fn fail(&self, part: &'static str, answer: Answer) {
        let fault: Fault = Box::new(move |_, path| path.contains(part).then(|| answer.clone()));
        self.plan().faults.push(fault);
    }

    /// Changes the JSON body of requests, until [`Self::mend`].
    pub(crate) fn change(&self, change: impl Fn(&Method, &str, Value) -> Value + Send + 'static) {
        self.plan().changes.push(Box::new(change));
    }

    /// Lets everything through again.
    pub(crate) fn mend(&self) {
        let mut plan = self.plan();
        plan.faults.clear();
        plan.changes.clear();
    }

    /// How many requests had this in their path.
    pub(crate) fn count(&self, method: &Method, part: &str) -> usize {
        self.plan().seen.iter().filter(|(seen, path)| seen == method && path.contains(part)).count()
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn forward(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let Ok(mut body) = axum::body::to_bytes(body, BODY).await else { return status(StatusCode::BAD_REQUEST) };
    {
        let mut plan = shared.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.seen.push((parts.method.clone(), path.clone()));
        if let Some(answer) = plan.faults.iter().find_map(|fault| fault(&parts.method, &path)) {
            let response = Response::builder().status(answer.status).header("content-type", answer.kind);
            return response.body(Body::from(answer.body)).expect("an answer");
        }
        for change in &plan.changes {
            if let Ok(json) = serde_json::from_slice(&body) {
                body = Bytes::from(change(&parts.method, &path, json).to_string());
            }
        }
    }
    let mut headers = parts.headers;
    for name in ["host", "content-length", "transfer-encoding", "accept-encoding"] {
        headers.remove(name);
    }
    let asked = shared.http.request(parts.method, format!("{}{path}", shared.target)).headers(headers).body(body);
    let Ok(answer) = asked.send().await else { return status(StatusCode::BAD_GATEWAY) };
    let mut response = Response::builder().status(answer.status());
    if let Some(kind) = answer.headers().get("content-type") {
        response = response.header("content-type", kind);
    }
    match answer.bytes().await {
        Ok(bytes) => response.body(Body::from(bytes)).expect("an answer"),
        Err(_) => status(StatusCode::BAD_GATEWAY),
    }
}

fn status(status: StatusCode) -> Response {
    Response::builder().status(status).body(Body::empty()).expect("an answer")
}
