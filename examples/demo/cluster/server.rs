//! The pretend cluster's HTTP API: the part of the Kubernetes API that a client of workloads speaks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch as channel;

use super::resource::{self, Resource};
use super::selector::Selector;
use super::{ChangeKind, Cluster, Fault, Key, Write, event, patch, table, text, watch};

/// How often the simulation moves on.
const TICK: Duration = Duration::from_millis(100);

/// The cluster behind its door.
pub(crate) struct Server {
    cluster: Mutex<Cluster>,
    newest: channel::Sender<u64>,
}

/// One request, taken apart.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) resource: &'static Resource,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
    query: HashMap<String, String>,
    selector: Selector,
    as_table: bool,
    content_type: String,
    /// The program's name, where it gives no field manager.
    agent: String,
}

impl Request {
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    fn key(&self, name: &str) -> Key {
        Key::new(self.resource.plural, self.namespace.as_deref().unwrap_or_default(), name)
    }
}

/// Starts the pretend cluster on a free port of the loopback interface.
pub(crate) async fn start() -> anyhow::Result<SocketAddr> {
    let cluster = Cluster::seeded(now()).map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
    let (newest, _) = channel::channel(cluster.revision());
    let server = Arc::new(Server { cluster: Mutex::new(cluster), newest });
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the pretend cluster")?;
    let address = listener.local_addr()?;
    let clockwork = Arc::clone(&server);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            clockwork.change(|cluster| cluster.advance(now()));
        }
    });
    let router = Router::new().fallback(answer).with_state(server);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Writes a kubeconfig for it.
pub(crate) fn write_kubeconfig(path: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let config = json!({
        "kind": "Config", "apiVersion": "v1", "current-context": "pretend",
        "clusters": [{"name": "pretend", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "you", "user": {}}],
        "contexts": [{"name": "pretend",
                      "context": {"cluster": "pretend", "user": "you", "namespace": super::NAMESPACE}}],
    });
    // JSON is YAML.
    std::fs::write(path, format!("{config:#}")).with_context(|| format!("cannot write {}", path.display()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the simulation takes the time as a parameter; this is where it comes from"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

impl Server {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the cluster and wakes the watches.
    fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let mut cluster = self.cluster();
        let result = change(&mut cluster);
        let revision = cluster.revision();
        self.newest.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
        result
    }

    pub(super) fn revisions(&self) -> channel::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The objects that a request means, and the resource version of that look.
    pub(super) fn matching(&self, request: &Request) -> (Vec<Value>, u64) {
        let cluster = self.cluster();
        let objects = cluster
            .list(request.resource.plural, request.namespace.as_deref())
            .map(|(_, object)| versioned(request.resource, object.clone()))
            .filter(|object| request.selector.matches(object))
            .collect();
        (objects, cluster.revision())
    }

    /// The changes after a resource version that a request means.
    pub(super) fn changes(&self, request: &Request, since: u64) -> Result<(Vec<(ChangeKind, Value)>, u64), Fault> {
        let cluster = self.cluster();
        let changes = cluster
            .changes_since(since)?
            .filter(|change| change.key.plural == request.resource.plural)
            .filter(|change| request.namespace.as_ref().is_none_or(|wanted| change.key.namespace == *wanted))
            .map(|change| (change.kind, versioned(request.resource, change.object.clone())))
            .filter(|(_, object)| request.selector.matches(object))
            .collect();
        Ok((changes, cluster.revision()))
    }

    /// The objects as a table, if the client asked for one.
    pub(super) fn shown(&self, request: &Request, objects: &[Value]) -> Option<Value> {
        request.as_table.then(|| table::table(request.resource.plural, objects, self.cluster().revision(), now()))
    }
}

/// An object as the request's API group shows it.
fn versioned(resource: &Resource, object: Value) -> Value {
    if resource.group == "events.k8s.io" { event::to_new(object) } else { object }
}

async fn answer(
    State(server): State<Arc<Server>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let found = match segments.as_slice() {
        ["livez" | "readyz" | "healthz"] => return "ok".into_response(),
        ["version"] => Some(resource::version()),
        ["api"] => Some(resource::core_versions()),
        ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": resource::groups()})),
        ["api", version] => resource::resource_list("", version),
        ["apis", name] => resource::groups().into_iter().find(|group| group["name"] == *name),
        ["apis", group, version] => resource::resource_list(group, version),
        ["api", version, rest @ ..] => return resources(server, &method, "", version, rest, &uri, &headers, &body),
        ["apis", group, version, rest @ ..] => {
            return resources(server, &method, group, version, rest, &uri, &headers, &body);
        }
        _ => None,
    };
    found.map_or_else(|| refuse(&unknown()), |document| reply(200, &document))
}

#[expect(clippy::too_many_arguments, reason = "the parts of one HTTP request")]
fn resources(
    server: Arc<Server>,
    method: &Method,
    group: &str,
    version: &str,
    rest: &[&str],
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let request = match parse(group, version, rest, uri, headers) {
        Ok(request) => request,
        Err(fault) => return refuse(&fault),
    };
    if *method == Method::GET && request.name.is_none() && matches!(request.query("watch"), Some("true" | "1")) {
        let headers = [(header::CONTENT_TYPE, "application/json")];
        return (headers, watch::body(server, request)).into_response();
    }
    if request.subresource.as_deref() == Some("log") {
        return log(&server, &request).unwrap_or_else(|fault| refuse(&fault));
    }
    let body = match request.content_type.as_str() {
        // kubectl asks for reviews and sends options in protobuf; nothing in them matters here.
        "application/vnd.kubernetes.protobuf" => Ok(json!({})),
        _ if body.is_empty() => Ok(json!({})),
        _ => serde_json::from_slice(body),
    };
    let Ok(body) = body else { return refuse(&Fault::Invalid("the body is not JSON".to_owned())) };
    let result = match (method.as_str(), request.name.clone()) {
        ("GET", None) => Ok((200, list(&server, &request))),
        ("GET", Some(name)) => one(&server, &request, &name).map(|object| (200, object)),
        ("POST", None) => create(&server, &request, body).map(|object| (201, object)),
        ("PUT" | "PATCH", Some(name)) => update(&server, &request, &name, method, &body).map(|object| (200, object)),
        ("DELETE", Some(name)) => {
            server.change(|cluster| cluster.delete(&request.key(&name), now())).map(|object| (200, object))
        }
        _ => Err(Fault::NotAllowed),
    };
    match result {
        Ok((code, object)) => reply(code, &object),
        Err(fault) => refuse(&fault),
    }
}

fn parse(group: &str, version: &str, rest: &[&str], uri: &Uri, headers: &HeaderMap) -> Result<Request, Fault> {
    // `namespaces/x` alone is the Namespace itself.
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        all => (None, all),
    };
    let plural = rest.first().copied().unwrap_or_default();
    let resource = resource::find(group, version, plural).ok_or_else(unknown)?;
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let parameter = |name: &str| query.get(name).map_or("", String::as_str);
    let selector = Selector::parse(parameter("labelSelector"), parameter("fieldSelector"))?;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Ok(Request {
        resource,
        namespace,
        name: rest.get(1).map(|name| (*name).to_owned()),
        subresource: rest.get(2).map(|name| (*name).to_owned()),
        selector,
        query,
        as_table: header(header::ACCEPT).contains("as=Table"),
        content_type: header(header::CONTENT_TYPE).to_owned(),
        agent: header(header::USER_AGENT).split('/').next().unwrap_or_default().to_owned(),
    })
}

fn list(server: &Server, request: &Request) -> Value {
    let (objects, revision) = server.matching(request);
    server.shown(request, &objects).unwrap_or_else(|| {
        json!({"kind": format!("{}List", request.resource.kind), "apiVersion": request.resource.api_version(),
               "metadata": {"resourceVersion": revision.to_string()}, "items": objects})
    })
}

fn one(server: &Server, request: &Request, name: &str) -> Result<Value, Fault> {
    let object = server.cluster().object(&request.key(name))?.clone();
    match request.subresource.as_deref() {
        None | Some("status") => {
            let object = versioned(request.resource, object);
            Ok(server.shown(request, std::slice::from_ref(&object)).unwrap_or(object))
        }
        Some("scale") => Ok(scale(&object)),
        Some(_) => Err(Fault::NotAllowed),
    }
}

fn create(server: &Server, request: &Request, mut body: Value) -> Result<Value, Fault> {
    match request.resource.plural {
        "selfsubjectaccessreviews" => {
            body["kind"] = json!(request.resource.kind);
            body["apiVersion"] = json!(request.resource.api_version());
            body["status"] = json!({"allowed": true, "reason": "the pretend cluster allows everything"});
            Ok(body)
        }
        "events" | "deployments" | "statefulsets" => {
            let mut name = text(&body, "/metadata/name").to_owned();
            if name.is_empty() {
                name = format!("{}{:x}", text(&body, "/metadata/generateName"), server.cluster().revision());
            }
            let key = request.key(&name);
            let body = if request.resource.group == "events.k8s.io" { event::to_core(body) } else { body };
            server.change(|cluster| cluster.create(key, body, now())).map(|made| versioned(request.resource, made))
        }
        _ => Err(Fault::NotAllowed),
    }
}

fn update(server: &Server, request: &Request, name: &str, method: &Method, body: &Value) -> Result<Value, Fault> {
    let kind = request.content_type.split(';').next().unwrap_or_default();
    let (change, operation): (fn(&mut Value, &Value), _) = match (method.as_str(), kind) {
        ("PUT", _) => (|object, body| *object = body.clone(), "Update"),
        (_, "application/merge-patch+json") => (patch::merge, "Update"),
        (_, "application/strategic-merge-patch+json") => (patch::strategic, "Update"),
        (_, "application/apply-patch+yaml") => (patch::strategic, "Apply"),
        _ => return Err(Fault::UnsupportedPatch),
    };
    let manager = request.query("fieldManager").unwrap_or(&request.agent);
    let subresource = request.subresource.as_deref();
    let write = Write { manager, operation, subresource, now: now() };
    let key = request.key(name);
    let body = if request.resource.group == "events.k8s.io" { event::to_core(body.clone()) } else { body.clone() };
    let apply = |object: &mut Value| {
        if subresource == Some("scale") {
            let mut scale = scale(object);
            change(&mut scale, &body);
            object["spec"]["replicas"] = scale["spec"]["replicas"].clone();
            object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
        } else {
            change(object, &body);
        }
    };
    let updated = if request.query("dryRun") == Some("All") {
        let mut object = server.cluster().object(&key)?.clone();
        apply(&mut object);
        object
    } else {
        server.change(|cluster| cluster.update(&key, write, apply))?
    };
    Ok(if subresource == Some("scale") { scale(&updated) } else { versioned(request.resource, updated) })
}

/// A workload seen through its `/scale`.
fn scale(object: &Value) -> Value {
    let metadata = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .map(|name| (name.to_owned(), object["metadata"][name].clone()))
        .collect::<serde_json::Map<_, _>>();
    let selector: Vec<String> = object["spec"]["selector"]["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
           "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
           "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0),
                      "selector": selector.join(",")}})
}

fn log(server: &Server, request: &Request) -> Result<Response, Fault> {
    let key = request.key(request.name.as_deref().unwrap_or_default());
    let cluster = server.cluster();
    cluster.object(&key)?;
    let log = cluster.pods.get(&key).map(|pod| pod.log(now())).unwrap_or_default();
    let tail = request.query("tailLines").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let lines: Vec<&str> = log.lines().collect();
    let shown: String = lines.iter().skip(lines.len().saturating_sub(tail)).flat_map(|line| [line, "\n"]).collect();
    Ok(([(header::CONTENT_TYPE, "text/plain")], shown).into_response())
}

fn unknown() -> Fault {
    Fault::NotFound("the server could not find the requested resource:".to_owned())
}

fn refuse(fault: &Fault) -> Response {
    reply(fault.code(), &fault.status())
}

fn reply(code: u16, document: &Value) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, [(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}
