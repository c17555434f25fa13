//! What may stand before a homeserver or an API server: a reverse proxy, with TLS of a private CA or with faults, and a
//! forward proxy.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use futures_util::stream;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::control_plane::ControlPlane;
use super::http;
use super::leash::Folder;
use super::synapse::{Synapse, python};

/// Longest wait for a request on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// A request on its way to the server.
pub(crate) struct Asked {
    /// The path, percent-decoded.
    pub(crate) path: String,
    /// The body; null where it is no JSON.
    pub(crate) body: Value,
}

/// What becomes of a request.
pub(crate) enum Way {
    /// It goes on to the server.
    On,
    /// It is answered so.
    Answer(StatusCode, Value),
    /// It is never answered.
    Nowhere,
    /// It goes on, and its answer is lost.
    Lost,
    /// It goes on once it is let go.
    Held,
}

/// A reverse proxy before a server; it ends when dropped.
pub(crate) struct Front {
    url: String,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

/// What a front knows.
struct Shared {
    behind: String,
    http: reqwest::Client,
    record: watch::Sender<Record>,
    held: Notify,
}

#[derive(Default)]
struct Record {
    /// When each request came: its method and path.
    asked: Vec<(Instant, String)>,
    /// Where the way is to be cut.
    cut: Option<Cut>,
    /// How often it was cut.
    cuts: usize,
}

/// The request after whose method and path the way is cut, and which way it goes.
type Cut = (Method, &'static str, Way);

impl Front {
    /// One before a homeserver that decides about every request.
    pub(crate) async fn deciding(
        synapse: &Synapse,
        decide: impl Fn(&Asked) -> Way + Clone + Send + Sync + 'static,
    ) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", tcp.local_addr().expect("bound"));
        Self::serve(tcp, url, Shared::new(synapse.url(), http()), decide)
    }

    /// One before the server at a URL that speaks TLS with the certificate of a CA which nobody knows.
    pub(crate) async fn with_private_ca(behind: &str, certificates: &Certificates) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", tcp.local_addr().expect("bound"));
        let (certificate, key) = (certificates.folder.join("server.crt"), certificates.folder.join("server.key"));
        let shared = Shared::new(behind, http());
        Self::serve(Tls::over(tcp, &certificate, &key), url, shared, |_| Way::On)
    }

    /// One before an API server; it speaks no TLS, see [`Namespace::kubeconfig_at`](super::control_plane::Namespace).
    pub(crate) async fn before_api_server(cluster: &ControlPlane) -> Self {
        Self::deciding_for_api_server(cluster, |_| Way::On).await
    }

    /// As [`Front::before_api_server`], one that decides about every request.
    pub(crate) async fn deciding_for_api_server(
        cluster: &ControlPlane,
        decide: impl Fn(&Asked) -> Way + Clone + Send + Sync + 'static,
    ) -> Self {
        let bundle = std::fs::read(cluster.ca()).expect("the API server's bundle");
        let bundle = reqwest::Certificate::from_pem_bundle(&bundle).expect("certificates");
        let http = reqwest::Client::builder().tls_certs_only(bundle).build().expect("a client");
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", tcp.local_addr().expect("bound"));
        Self::serve(tcp, url, Shared::new(cluster.url(), http), decide)
    }

    fn serve<L>(
        listener: L,
        url: String,
        shared: Shared,
        decide: impl Fn(&Asked) -> Way + Clone + Send + Sync + 'static,
    ) -> Self
    where
        L: axum::serve::Listener,
        L::Addr: std::fmt::Debug,
    {
        let shared = Arc::new(shared);
        let passing = Arc::clone(&shared);
        let pass = move |request: Request| {
            let (shared, decide) = (Arc::clone(&passing), decide.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
                let path = decoded(head.uri.path());
                let cut = shared.note(&head.method, &path);
                let asked = Asked { path, body: serde_json::from_slice(&body).unwrap_or_default() };
                let is_cut = cut.is_some();
                let way = cut.unwrap_or_else(|| decide(&asked));
                let path = head.uri.path_and_query().expect("a path").as_str();
                match way {
                    Way::Answer(status, body) => (status, Json(body)).into_response(),
                    Way::On => shared.forward(head.method, path, &head.headers, body).await,
                    Way::Nowhere => shared.silence(is_cut).await,
                    Way::Held => {
                        shared.record.send_modify(|record| record.cuts += 1);
                        shared.held.notified().await;
                        shared.forward(head.method, path, &head.headers, body).await
                    }
                    Way::Lost => {
                        // To its end: only then it has had its effect.
                        let answer = shared.forward(head.method, path, &head.headers, body).await;
                        axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("an answer");
                        shared.silence(is_cut).await
                    }
                }
            }
        };
        let router = Router::new().fallback(pass);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves for ever") });
        Self { url, shared, _server: AbortOnDropHandle::new(server) }
    }

    /// Its base URL: the server's, for who does not know better.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// When a request came whose method and path contain `part`.
    pub(crate) fn asked(&self, part: &str) -> Vec<Instant> {
        let record = self.shared.record.borrow();
        record.asked.iter().filter(|(_, what)| what.contains(part)).map(|(at, _)| *at).collect()
    }

    /// The methods and paths that contain `part`, in the order in which they came.
    pub(crate) fn asked_for(&self, part: &str) -> Vec<String> {
        let record = self.shared.record.borrow();
        record.asked.iter().filter(|(_, what)| what.contains(part)).map(|(_, what)| what.clone()).collect()
    }

    /// Cuts the way once: the next request of this method whose path contains `part` goes this way.
    pub(crate) fn cut(&self, method: Method, part: &'static str, way: Way) {
        self.shared.record.send_modify(|record| record.cut = Some((method, part, way)));
    }

    /// Waits until a request that came after `earlier` others of its kind is here.
    pub(crate) async fn until_asked(&self, part: &str, earlier: usize) {
        let asked = |record: &Record| record.asked.iter().filter(|(_, what)| what.contains(part)).count() > earlier;
        self.until(part, asked).await;
    }

    /// Lets the request go on that is held, or will be.
    pub(crate) fn let_go(&self) {
        self.shared.held.notify_one();
    }

    /// Waits until the way was cut so often, with [`Way::Nowhere`], [`Way::Lost`] or [`Way::Held`].
    pub(crate) async fn until_cut(&self, times: usize) {
        self.until("no cut", |record| record.cuts >= times).await;
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Record) -> bool) {
        let mut record = self.shared.record.subscribe();
        let seen = tokio::time::timeout(PATIENCE, record.wait_for(|record| wanted(record))).await;
        assert!(
            seen.is_ok(),
            "not within {PATIENCE:?}: {what}; the last: {:?}",
            self.asked_for("").iter().rev().take(20)
        );
    }
}

impl Shared {
    fn new(behind: &str, http: reqwest::Client) -> Self {
        Self { behind: behind.to_owned(), http, record: watch::Sender::default(), held: Notify::new() }
    }

    /// Notes a request; gives its way where it is the one that is cut.
    fn note(&self, method: &Method, path: &str) -> Option<Way> {
        let mut way = None;
        self.record.send_modify(|record| {
            record.asked.push((Instant::now(), format!("{method} {path}")));
            way = record.cut.take_if(|(cut, part, _)| cut == method && path.contains(*part)).map(|(_, _, way)| way);
        });
        way
    }

    /// Never answers.
    async fn silence(&self, is_cut: bool) -> Response {
        if is_cut {
            self.record.send_modify(|record| record.cuts += 1);
        }
        std::future::pending().await
    }

    async fn forward(&self, method: Method, path: &str, headers: &HeaderMap, body: Bytes) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.behind)).body(body);
        for (name, value) in headers.iter().filter(|(name, _)| is_end_to_end(name.as_str())) {
            request = request.header(name, value);
        }
        let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers().iter().filter(|(name, _)| is_end_to_end(name.as_str())) {
            response = response.header(name, value);
        }
        // As it comes: a watch has no end.
        let chunks = stream::try_unfold(answer, |mut answer| async move {
            Ok::<_, reqwest::Error>(answer.chunk().await?.map(|chunk| (chunk, answer)))
        });
        response.body(Body::from_stream(chunks)).expect("the server's answer")
    }
}

fn is_end_to_end(header: &str) -> bool {
    !["host", "connection", "content-length", "transfer-encoding"].contains(&header)
}

fn decoded(path: &str) -> String {
    // A plus is no space in a path.
    let query = path.replace('+', "%2B");
    url::form_urlencoded::parse(query.as_bytes()).flat_map(|(key, value)| [key, value]).collect()
}

/// A CA that no system knows, and a certificate for `127.0.0.1`, `localhost` and more names signed by it.
pub(crate) struct Certificates {
    folder: Folder,
}

/// Made with what Synapse needs anyway.
const MAKE: &str = r#"
import datetime, ipaddress, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
name = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
now = datetime.datetime.now(datetime.timezone.utc)
def make(subject, key, issuer, signer, extensions):
    made = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
    for extension, critical in extensions:
        made = made.add_extension(extension, critical)
    return made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
ca, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
names = [x509.DNSName(text) for text in ["localhost", *sys.argv[2:]]] + [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
write = lambda file, what: open(sys.argv[1] + "/" + file, "wb").write(what)
write("ca.crt", make("A private CA", ca, "A private CA", ca, [(x509.BasicConstraints(True, 0), True)]))
write("server.crt", make("server", key, "A private CA", ca, [(x509.SubjectAlternativeName(names), False)]))
form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
write("server.key", key.private_bytes(*form))
"#;

impl Certificates {
    /// Makes them.
    pub(crate) fn new() -> Self {
        Self::of(&[])
    }

    /// Makes them, for these names of hosts, too.
    pub(crate) fn of(hosts: &[&str]) -> Self {
        let folder = Folder::new("pilothouse-certificates-");
        let made =
            Command::new(python()).arg("-c").arg(MAKE).arg(folder.path()).args(hosts).output().expect("python starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { folder }
    }

    /// The CA's certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }
}

/// TLS in front of a router.
pub(crate) struct Tls {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Tls {
    /// Shows the certificates of a PEM file, whose key is in another.
    pub(crate) fn over(tcp: TcpListener, certificates: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(certificates).expect("certificates");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        // Whether there is a default provider is the business of other tests.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
        Self { tcp, tls: Arc::new(tls).into() }
    }
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.tcp.accept().await.expect("the listener is open");
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// A forward proxy that tunnels (`CONNECT`) and counts; it ends when dropped.
pub(crate) struct Proxy {
    /// Its URL.
    pub(crate) url: String,
    tunnels: Arc<AtomicUsize>,
    _server: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Starts it.
    pub(crate) async fn start() -> Self {
        Self::on_the_way(None).await
    }

    /// Starts one that leads to the server at this URL whatever is no address.
    pub(crate) async fn to(server: &str) -> Self {
        let server: url::Url = server.parse().expect("a URL");
        let address = server.socket_addrs(|| None).expect("an address");
        Self::on_the_way(Some(address[0])).await
    }

    async fn on_the_way(server: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let tunnels = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&tunnels);
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(tunnel(client, server, Arc::clone(&count)));
            }
        });
        Self { url, tunnels, _server: AbortOnDropHandle::new(server) }
    }

    /// How many connections went through it.
    pub(crate) fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::SeqCst)
    }
}

async fn tunnel(mut client: TcpStream, server: Option<SocketAddr>, count: Arc<AtomicUsize>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(Duration::from_secs(10), client.read_u8()).await??);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split_whitespace();
    let (Some("CONNECT"), Some(wanted)) = (words.next(), words.next()) else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n").await;
    };
    let mut server = match server.filter(|_| wanted.parse::<SocketAddr>().is_err()) {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect(wanted).await?,
    };
    count.fetch_add(1, Ordering::SeqCst);
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}
