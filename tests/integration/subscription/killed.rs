//! The daemon itself, killed around the renewal of a login: between it and the real API server stands a door that stops.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::secret::{NAME, put_login, stored};
use super::{DOCUMENT, tokens};
use crate::support::control_plane::{Namespace, client_for, with_namespace};
use crate::support::leash::Folder;
use crate::support::process::Pilothouse;
use crate::support::provider::{Provider, Reply};

/// A claim of the one who was killed counts for a minute.
pub(super) const LONG: Duration = Duration::from_mins(3);

/// Where the door stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The renewed tokens do not reach the API server.
    Before,
    /// They do, and its answer does not come.
    After,
}

/// A plain door before the real API server.
struct Door {
    kubeconfig: Folder,
    stop: Arc<Mutex<Option<Stop>>>,
    stopped: watch::Receiver<bool>,
    _server: AbortOnDropHandle<()>,
}

impl Door {
    async fn before(namespace: &Namespace, stop: Option<Stop>) -> Self {
        let client = client_for(&namespace.cluster.kubeconfig()).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let (seen, stopped) = watch::channel(false);
        let stop = Arc::new(Mutex::new(stop));
        let kept = Arc::clone(&stop);
        let pass = move |request: Request| {
            let (client, seen, stop) = (client.clone(), seen.clone(), *kept.lock().unwrap());
            async move { forward(client, request, stop, &seen).await }
        };
        let router = Router::new().fallback(pass);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { kubeconfig: kubeconfig(&server), stop, stopped, _server: AbortOnDropHandle::new(task) }
    }

    async fn until_stopped(&mut self) {
        let stopped = self.stopped.wait_for(|stopped| *stopped);
        tokio::time::timeout(LONG, stopped).await.expect("the tokens are written").unwrap();
    }

    fn open(&self) {
        *self.stop.lock().unwrap() = None;
    }
}

/// A folder with a kubeconfig for what is at this URL.
pub(super) fn kubeconfig(server: &str) -> Folder {
    let folder = Folder::new("pilothouse-kubeconfig-");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: a, cluster: {{server: {server:?}}}}}]\n\
         users: [{{name: a, user: {{}}}}]\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n"
    );
    std::fs::write(folder.join("config"), text).unwrap();
    folder
}

async fn forward(client: Client, request: Request, stop: Option<Stop>, seen: &watch::Sender<bool>) -> Response {
    let (mut head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let stop =
        stop.filter(|_| head.method == http::Method::PATCH && String::from_utf8_lossy(&body).contains("stringData"));
    let hang = async || {
        seen.send_replace(true);
        std::future::pending::<()>().await;
    };
    if stop == Some(Stop::Before) {
        hang().await;
    }
    head.headers.remove(http::header::HOST);
    let answer = client.send(http::Request::from_parts(head, kube::client::Body::from(body.to_vec()))).await;
    if stop == Some(Stop::After) {
        hang().await;
    }
    match answer {
        Ok(answer) => answer.map(Body::new),
        Err(_) => Response::builder().status(502).body(Body::empty()).unwrap(),
    }
}

/// The daemon, with the login in the Secret of this namespace; its homeserver is nowhere, which is none of its concern.
fn daemon(namespace: &Namespace, provider: &Provider, door: &Door) -> Pilothouse {
    let toml = format!(
        "[matrix]\nhomeserver = \"http://127.0.0.1:1\"\nuser = \"@bot:here\"\npassword = \"x\"\n[policy]\nusers = [\"@you:here\"]\n\
         [usage]\ninterval = \"2s\"\n[[usage.accounts]]\nname = \"work\"\nsecret = {NAME:?}\nnamespace = {:?}\n\
         secret_key = {DOCUMENT:?}\nusage_url = {:?}\ntoken_url = {:?}\n",
        namespace.name,
        provider.usage_url().as_str(),
        provider.token_url().as_str(),
    );
    Pilothouse::new().configuration(&toml).kubeconfig(&door.kubeconfig.join("config"))
}

/// Waits until the provider was asked with this access token.
pub(super) async fn until_asked_with(provider: &Provider, access: &str) {
    let asked = async {
        let mut count = 0;
        while !provider.usage_asked().iter().any(|asked| asked.header("authorization") == format!("Bearer {access}")) {
            count += 1;
            provider.until_usage_asked(count).await;
        }
    };
    tokio::time::timeout(LONG, asked).await.unwrap_or_else(|_| panic!("nobody asks with {access}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_killed_daemon_loses_no_tokens_before_or_after_they_are_written_back() {
    with_namespace(async |namespace| {
        for stop in [Stop::Before, Stop::After] {
            let provider = Provider::start().await;
            let mut door = Door::before(&namespace, Some(stop)).await;
            put_login(&namespace, "access-0", "refresh-0", 60).await;
            let pilothouse = daemon(&namespace, &provider, &door);
            let mut running = pilothouse.start();
            door.until_stopped().await;
            running.kill().await;
            door.open();
            let _running = pilothouse.start();
            until_asked_with(&provider, "access-1").await;
            let written = async {
                let api = namespace.api::<Secret>();
                while !String::from_utf8_lossy(&api.get(NAME).await.unwrap().data.unwrap()[DOCUMENT].0)
                    .contains("refresh-1")
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(LONG, written).await.expect("the tokens are written");
            assert_eq!(tokens(&stored(&namespace).await), ("access-1", "refresh-1"), "{stop:?}");
            assert_eq!(provider.token_asked().len(), 1, "{stop:?}: the refresh token is used once");
            assert!(provider.takes("access-1", "refresh-1"), "{stop:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_that_is_killed_before_the_answer_has_used_nothing_up() {
    with_namespace(async |namespace| {
        let provider = Provider::start().await;
        let door = Door::before(&namespace, None).await;
        put_login(&namespace, "access-0", "refresh-0", 60).await;
        provider.on_token(Reply::Held);
        let pilothouse = daemon(&namespace, &provider, &door);
        let mut running = pilothouse.start();
        provider.until_token_asked(1).await;
        running.kill().await;
        let _running = pilothouse.start();
        until_asked_with(&provider, "access-1").await;
        assert_eq!(provider.token_asked().len(), 2);
        assert!(provider.takes("access-1", "refresh-1"));
    })
    .await;
}
