//! A real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager on loopback, three seconds to start.
//!
//! There is no scheduler and no node; [`Kubelet`](super::kubelet::Kubelet) says how the pods of a namespace fare.

use std::fmt::Write as _;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Event, Namespace as NamespaceObject, Pod, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watch_object, watcher};
use kube::{Api, Client, Resource, ResourceExt as _, discovery};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::kubelet::Kubelet;
use super::leash::{Folder, Leashed};
use super::node::Node;
use super::{cached, environment, free_port, unique};

/// Three seconds on an idle machine; a busy one takes its time.
const START: Duration = Duration::from_mins(2);

/// Gives the control plane that all tests of this binary share.
pub(crate) async fn control_plane() -> Arc<ControlPlane> {
    static SHARED: OnceCell<Arc<ControlPlane>> = OnceCell::const_new();
    Arc::clone(SHARED.get_or_init(async || Arc::new(ControlPlane::start().await)).await)
}

/// Runs a test in a new namespace of the shared control plane; see [`ControlPlane::with_namespace`].
pub(crate) async fn with_namespace<T>(test: impl AsyncFnOnce(Namespace) -> T) -> T {
    control_plane().await.with_namespace(test).await
}

/// A running control plane.
pub(crate) struct ControlPlane {
    url: String,
    port: u16,
    etcd_url: String,
    _controller_manager: Leashed,
    api_server: Mutex<Option<Leashed>>,
    _etcd: Leashed,
    // Last: the servers in it end first.
    folder: Folder,
}

impl ControlPlane {
    /// Starts a control plane of its own, for a test that stops it or slows it down.
    ///
    /// # Panics
    /// When a binary is missing (with the remedy) or a server does not come up.
    pub(crate) async fn start() -> Self {
        let folder = Folder::new("pilothouse-control-plane-");
        write_keys(&folder);
        fs::write(folder.join("tokens.csv"), "admintoken,admin,admin,\"system:masters\"\n").expect("tokens");

        let (client, peer, port) = (free_port(), free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{client}");
        let mut etcd = Command::new(binary("etcd"));
        etcd.arg(format!("--data-dir={}", folder.join("etcd").display()))
            .arg(format!("--listen-client-urls={etcd_url}"))
            .arg(format!("--advertise-client-urls={etcd_url}"))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
            .args(["--unsafe-no-fsync=true", "--log-level=warn"]);
        let mut etcd = Leashed::start("etcd", &etcd);
        let health = format!("{etcd_url}/health");
        let http = reqwest::Client::new();
        until_up(&mut etcd, async || http.get(&health).send().await.is_ok_and(|answer| answer.status().is_success()))
            .await;

        let url = format!("https://127.0.0.1:{port}");
        let mut api_server = api_server(&folder, &etcd_url, port);
        let kubeconfig = folder.join("admin.kubeconfig");
        let certificate = folder.join("certs/apiserver.crt");
        until_up(&mut api_server, async || certificate.exists()).await;
        write_kubeconfig(&kubeconfig, &url, &certificate, "admintoken", "default");
        until_ready(&mut api_server, &kubeconfig).await;

        let mut controller_manager = Command::new(binary("kube-controller-manager"));
        controller_manager
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .args(["--bind-address=127.0.0.1".to_owned(), format!("--secure-port={}", free_port())])
            .arg(format!("--service-account-private-key-file={}", folder.join("sa.key").display()))
            .arg(format!("--root-ca-file={}", certificate.display()))
            .args(["--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400"])
            // The nodes of the tests have no heartbeat.
            .arg("--controllers=*,-node-lifecycle-controller");
        let mut controller_manager = Leashed::start("kube-controller-manager", &controller_manager);
        // The account that its controllers make in every namespace is the sign that they turn.
        let accounts = Api::<ServiceAccount>::namespaced(client_for(&kubeconfig).await, "default");
        until_up(&mut controller_manager, async || matches!(accounts.get_opt("default").await, Ok(Some(_)))).await;

        Self {
            url,
            port,
            etcd_url,
            _controller_manager: controller_manager,
            api_server: Mutex::new(Some(api_server)),
            _etcd: etcd,
            folder,
        }
    }

    /// The address of the API server.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The bundle against which the API server's certificate is verified (PEM).
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("certs/apiserver.crt")
    }

    /// A kubeconfig of `system:masters`.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// A new client of `system:masters`.
    pub(crate) async fn client(&self) -> Client {
        client_for(&self.kubeconfig()).await
    }

    /// Kills the API server; its port refuses connections until [`Self::start_api_server`].
    pub(crate) fn stop_api_server(&self) {
        drop(self.api_server().take());
    }

    /// Starts the API server again, on the same port and the same data.
    pub(crate) async fn start_api_server(&self) {
        let mut server = api_server(&self.folder, &self.etcd_url, self.port);
        until_ready(&mut server, &self.kubeconfig()).await;
        *self.api_server() = Some(server);
    }

    /// Freezes the API server: connections are accepted by the kernel and never answered.
    pub(crate) fn pause_api_server(&self) {
        self.api_server().as_ref().expect("the API server runs").signal("STOP");
    }

    /// Lets a frozen API server go on.
    pub(crate) fn resume_api_server(&self) {
        self.api_server().as_ref().expect("the API server runs").signal("CONT");
    }

    /// Runs a test in a new namespace and removes it afterwards; when the test panics, prints first what is in it.
    pub(crate) async fn with_namespace<T>(self: &Arc<Self>, test: impl AsyncFnOnce(Namespace) -> T) -> T {
        let client = self.client().await;
        let name = unique("test");
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let object: NamespaceObject = serde_json::from_value(object).expect("a namespace");
        let namespaces = Api::<NamespaceObject>::all(client.clone());
        namespaces.create(&PostParams::default(), &object).await.expect("a namespace is made");

        let namespace = Namespace { name: name.clone(), client: client.clone(), cluster: Arc::clone(self) };
        let outcome = AssertUnwindSafe(test(namespace)).catch_unwind().await;
        let ended = async {
            if outcome.is_err() {
                eprintln!("{}", describe(&client, &name).await);
            }
            let _ = namespaces.delete(&name, &DeleteParams::background()).await;
        };
        // A test may have left the API server frozen; its own panic matters more than the clean-up.
        let _ = tokio::time::timeout(Duration::from_secs(10), ended).await;
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn api_server(&self) -> std::sync::MutexGuard<'_, Option<Leashed>> {
        self.api_server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A namespace of one test.
pub(crate) struct Namespace {
    /// Its random name.
    pub(crate) name: String,
    /// A client of `system:masters`.
    pub(crate) client: Client,
    /// The control plane it is in.
    pub(crate) cluster: Arc<ControlPlane>,
}

impl Namespace {
    /// The objects of one kind in this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Starts a kubelet for this namespace; it ends when dropped.
    pub(crate) fn kubelet(&self) -> Kubelet {
        Kubelet::start(self.client.clone(), &self.name, None)
    }

    /// Starts a kubelet with a node, on which every container has written `log`.
    pub(crate) async fn kubelet_with_logs(&self, log: &str) -> Kubelet {
        let node = Node::start(self.client.clone(), &self.cluster.folder.join("certs"), log).await;
        Kubelet::start(self.client.clone(), &self.name, Some(node))
    }

    /// Applies YAML documents, as `kubectl apply --server-side -n` does: what names no namespace lands in this one.
    pub(crate) async fn apply(&self, yaml: &str) {
        apply(&self.client, yaml, &self.name).await;
    }

    /// Makes a Deployment with one container `main` of `image`; the image says how its pods fare (see the kubelet).
    pub(crate) async fn deployment(&self, name: &str, image: &str, replicas: i32) -> Deployment {
        self.workload("Deployment", name, image, replicas).await
    }

    /// Makes a Deployment or a StatefulSet with one container `main` of `image`.
    pub(crate) async fn workload<K>(&self, kind: &str, name: &str, image: &str, replicas: i32) -> K
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": image}]},
                },
            },
        });
        self.apply(&object.to_string()).await;
        self.api::<K>().get(name).await.expect("what was applied is there")
    }

    /// The replicas that a Deployment is to have.
    pub(crate) async fn replicas(&self, name: &str) -> i32 {
        let object = self.api::<Deployment>().get(name).await.expect("the Deployment is there");
        object.spec.and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// How often what a Deployment is to be was changed, and by whomever: a patch that changes nothing does not count.
    pub(crate) async fn generation(&self, name: &str) -> i64 {
        let object = self.api::<Deployment>().get(name).await.expect("the Deployment is there");
        object.metadata.generation.expect("the API server counts")
    }

    /// Waits until a Deployment is to have so many replicas.
    pub(crate) async fn wait_replicas(&self, name: &str, wanted: i32, deadline: Duration) {
        let so = |object: &Deployment| object.spec.as_ref().and_then(|spec| spec.replicas) == Some(wanted);
        self.wait::<Deployment>(name, deadline, so).await;
    }

    /// Waits until so many pods of a Deployment are ready.
    pub(crate) async fn wait_ready(&self, name: &str, wanted: i32, deadline: Duration) {
        let so = |object: &Deployment| object.status.as_ref().and_then(|status| status.ready_replicas) == Some(wanted);
        self.wait::<Deployment>(name, deadline, so).await;
    }

    /// Waits until the object satisfies `wanted`, and returns it.
    ///
    /// # Panics
    /// With the object as it was last seen, when the deadline passes first.
    pub(crate) async fn wait<K>(&self, name: &str, deadline: Duration, wanted: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + serde::Serialize
            + Send
            + 'static,
        K::DynamicType: Default,
    {
        let mut seen = pin!(watch_object(self.api::<K>(), name).default_backoff());
        let mut last = None;
        let found = async {
            loop {
                // An error is no end: the watch comes back by itself.
                if let Some(Ok(Some(object))) = seen.next().await {
                    if wanted(&object) {
                        return object;
                    }
                    last = Some(object);
                }
            }
        };
        let Ok(found) = tokio::time::timeout(deadline, found).await else {
            let last = serde_json::to_string_pretty(&last).expect("an object is JSON");
            panic!("{name} is not as wanted within {deadline:?}; it is {last}")
        };
        found
    }

    /// Waits for the Kubernetes Event with this reason and note, and returns it.
    pub(crate) async fn event(&self, reason: &str, note: &str, deadline: Duration) -> Event {
        let events = watcher(self.api::<Event>(), Config::default().fields(&format!("reason={reason}")));
        let mut events = pin!(events.default_backoff().applied_objects());
        let found = async {
            loop {
                // An error is no end: the watch comes back by itself.
                if let Some(Ok(event)) = events.next().await
                    && event.message.as_deref() == Some(note)
                {
                    return event;
                }
            }
        };
        let found = tokio::time::timeout(deadline, found).await;
        found.unwrap_or_else(|_| panic!("no event {reason} with {note:?} within {deadline:?}"))
    }

    /// Makes a token of a ServiceAccount in this namespace, as a pod would get it.
    pub(crate) async fn service_account_token(&self, account: &str) -> String {
        service_account_token(&self.client, &self.name, account).await
    }

    /// Writes a kubeconfig for `token` with this namespace as its own, and returns its path.
    pub(crate) fn kubeconfig_for_token(&self, token: &str) -> PathBuf {
        let path = self.cluster.folder.join(format!("{}.kubeconfig", unique("token")));
        write_kubeconfig(&path, &self.cluster.url, &self.cluster.ca(), token, &self.name);
        path
    }

    /// Writes a kubeconfig of `system:masters` for what stands before the API server at `url`, and returns its path.
    pub(crate) fn kubeconfig_at(&self, url: &str) -> PathBuf {
        let path = self.cluster.folder.join(format!("{}.kubeconfig", unique("front")));
        write_kubeconfig(&path, url, &self.cluster.ca(), "admintoken", &self.name);
        path
    }

    /// The state of workloads, pods and events, for people.
    pub(crate) async fn describe(&self) -> String {
        describe(&self.client, &self.name).await
    }
}

/// Applies YAML documents server-side; `namespace` is for those that need one and name none.
pub(crate) async fn apply(client: &Client, yaml: &str, namespace: &str) {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let object: DynamicObject = serde_json::from_value(document).expect("a Kubernetes object");
        let types = object.types.clone().expect("apiVersion and kind");
        let kind = GroupVersionKind::try_from(&types).expect("apiVersion and kind");
        let (resource, capabilities) = discovery::pinned_kind(client, &kind).await.expect("a served kind");
        let api: Api<DynamicObject> = match capabilities.scope {
            discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
            discovery::Scope::Namespaced => {
                let namespace = object.namespace().unwrap_or_else(|| namespace.to_owned());
                Api::namespaced_with(client.clone(), &namespace, &resource)
            }
        };
        let applied = PatchParams::apply("test").force();
        let outcome = api.patch(&object.name_any(), &applied, &Patch::Apply(&object)).await;
        outcome.unwrap_or_else(|error| panic!("{} {} is not applied: {error}", types.kind, object.name_any()));
    }
}

/// Makes a token of a ServiceAccount, as a pod would get it.
pub(crate) async fn service_account_token(client: &Client, namespace: &str, account: &str) -> String {
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec { audiences: Vec::new(), bound_object_ref: None, expiration_seconds: Some(3600) };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let made = api.create_token_request(account, &PostParams::default(), &request).await;
    made.expect("a token is made").status.expect("a token request has a status").token
}

/// The state of workloads, pods and events of a namespace, for people.
async fn describe(client: &Client, namespace: &str) -> String {
    let all = ListParams::default();
    let mut text = format!("namespace {namespace}:\n");
    if let Ok(deployments) = Api::<Deployment>::namespaced(client.clone(), namespace).list(&all).await {
        for object in deployments {
            let status = serde_json::to_string(&object.status).unwrap_or_default();
            let wanted = object.spec.as_ref().and_then(|spec| spec.replicas);
            let _ = writeln!(text, "  deployment {} wants {wanted:?}: {status}", object.name_any());
        }
    }
    if let Ok(pods) = Api::<Pod>::namespaced(client.clone(), namespace).list(&all).await {
        for object in pods {
            let status = serde_json::to_string(&object.status).unwrap_or_default();
            let _ = writeln!(text, "  pod {}: {status}", object.name_any());
        }
    }
    if let Ok(events) = Api::<Event>::namespaced(client.clone(), namespace).list(&all).await {
        for event in events {
            let about = event.involved_object.name.unwrap_or_default();
            let (reason, message) = (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
            let _ = writeln!(text, "  event on {about}: {reason}: {message}");
        }
    }
    text
}

/// Finds a binary of the control plane.
pub(crate) fn binary(name: &str) -> PathBuf {
    let ours = environment("PILOTHOUSE_CONTROL_PLANE").map(PathBuf::from);
    let assets = environment("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let cache = cached("control-plane", include_bytes!("../../control-plane/go.sum"));
    let places: Vec<PathBuf> = ours.into_iter().chain(assets).chain([cache]).map(|folder| folder.join(name)).collect();
    places.iter().find(|path| path.is_file()).cloned().unwrap_or_else(|| {
        panic!("no {name} in any of {places:?}: build it once with `make control-plane` (five minutes, needs Go)")
    })
}

fn api_server(folder: &Path, etcd_url: &str, port: u16) -> Leashed {
    let mut command = Command::new(binary("kube-apiserver"));
    command
        .arg(format!("--etcd-servers={etcd_url}"))
        .arg(format!("--secure-port={port}"))
        .arg(format!("--cert-dir={}", folder.join("certs").display()))
        // Without an advertised address a machine that has no default route fails at start.
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
        .args(["--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged=true", "--authorization-mode=RBAC"])
        .arg("--disable-admission-plugins=ServiceAccount")
        .arg(format!("--service-account-issuer=https://127.0.0.1:{port}"))
        .arg(format!("--service-account-key-file={}", folder.join("sa.pub").display()))
        .arg(format!("--service-account-signing-key-file={}", folder.join("sa.key").display()))
        .arg(format!("--token-auth-file={}", folder.join("tokens.csv").display()));
    Leashed::start("kube-apiserver", &command)
}

/// Writes the key that signs ServiceAccount tokens, and its public half: the API server reads no PKCS #8 for the latter.
fn write_keys(folder: &Path) {
    let pem = |label: &str, der: &[u8]| {
        let base64 = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> =
            base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("base64 is ASCII")).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    };
    let secret = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, secret.as_ref()).expect("the key just made");
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a public key");
    fs::write(folder.join("sa.key"), pem("PRIVATE KEY", secret.as_ref())).expect("sa.key");
    fs::write(folder.join("sa.pub"), pem("PUBLIC KEY", public.as_ref())).expect("sa.pub");
}

fn write_kubeconfig(path: &Path, url: &str, ca: &Path, token: &str, namespace: &str) {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": ca}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    });
    // JSON is YAML.
    fs::write(path, kubeconfig.to_string()).expect("a kubeconfig is written");
}

/// Makes a client from a kubeconfig file.
pub(crate) async fn client_for(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a client's configuration")).expect("a client")
}

async fn until_ready(server: &mut Leashed, kubeconfig: &Path) {
    let client = client_for(kubeconfig).await;
    until_up(server, async || {
        let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
        client.request_text(request).await.is_ok()
    })
    .await;
}

/// Asks until the answer is yes; a server that has ended instead is a failure at once.
async fn until_up(server: &mut Leashed, up: impl AsyncFn() -> bool) {
    let start = tokio::time::Instant::now();
    // A question to a server that is just coming up can hang; it is asked again.
    while !tokio::time::timeout(Duration::from_secs(5), up()).await.unwrap_or(false) {
        if let Some(status) = server.ended() {
            panic!("a server of the control plane has ended with {status}{}", server.tail(40));
        }
        assert!(start.elapsed() < START, "a server of the control plane is not up within {START:?}{}", server.tail(40));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
