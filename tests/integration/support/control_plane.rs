//! A real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager on loopback, three seconds to start.
//!
//! There is no scheduler and no node; [`Kubelet`](super::kubelet::Kubelet) says how the pods of a namespace fare.

use std::fmt::Write as _;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use futures_util::FutureExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Event, Namespace as NamespaceObject, Pod, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt as _, discovery};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::leash::{Folder, Leashed};
pub(crate) use super::namespace::Namespace;
use super::places::control_plane_binary as binary;
use super::{free_port, http, unique};

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
    pub(super) folder: Folder,
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
        let http = http();
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
        self.api_server().as_ref().expect("the API server runs").freeze();
    }

    /// Lets a frozen API server go on.
    pub(crate) fn resume_api_server(&self) {
        self.api_server().as_ref().expect("the API server runs").thaw();
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
pub(super) async fn describe(client: &Client, namespace: &str) -> String {
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

pub(super) fn write_kubeconfig(path: &Path, url: &str, ca: &Path, token: &str, namespace: &str) {
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
