//! Killed at every step after the provider's answer: no token is lost and no newer login overwritten.
//!
//! The one who is killed lives in a runtime of its own, which ends without any of its tasks going on; the next one begins
//! with the same store and the same Secret. Between it and the real API server stands a wire that can stop.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::client::Body;
use pilothouse::store::Store;
use pilothouse::usage::credential::Login;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::secret::{NAME, place, place_in, put_login, stored};
use super::{DEADLINE, Machine, at, login, login_at, tokens};
use crate::support::control_plane::{Namespace, client_for, with_namespace};
use crate::support::provider::{Provider, Reply};

/// Where the wire to the API server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The claim is not sent.
    BeforeClaim,
    /// The claim is written, its answer does not come.
    AfterClaim,
    /// The tokens are not sent.
    BeforeWrite,
    /// The tokens are written, the answer does not come.
    AfterWrite,
}

/// The real API server behind a wire that stops, or breaks.
#[derive(Clone)]
struct Wire {
    inner: Client,
    stop: Option<Stop>,
    broken: Arc<AtomicBool>,
    stopped: watch::Sender<bool>,
}

impl tower::Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let wire = self.clone();
        Box::pin(async move {
            if wire.broken.load(Ordering::SeqCst) {
                return Err(kube::Error::Service("the connection is reset".into()));
            }
            let (head, body) = request.into_parts();
            let bytes = body.collect_bytes().await?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let [claims, writes] = ["annotations\":{", "stringData"].map(|word| text.contains(word));
            let (before, after) = match wire.stop {
                Some(Stop::BeforeClaim) => (claims, false),
                Some(Stop::AfterClaim) => (false, claims),
                Some(Stop::BeforeWrite) => (writes, false),
                Some(Stop::AfterWrite) => (false, writes),
                None => (false, false),
            };
            let hang = async || {
                wire.stopped.send_replace(true);
                std::future::pending::<()>().await;
            };
            if before {
                hang().await;
            }
            let answer = wire.inner.send(Request::from_parts(head, Body::from(bytes.to_vec()))).await;
            if after {
                hang().await;
            }
            answer
        })
    }
}

/// One process: a runtime that ends at once.
struct Process {
    runtime: Option<Runtime>,
    stopped: watch::Receiver<bool>,
}

impl Process {
    /// Starts a process that asks for its login at once, behind a wire that stops.
    fn start(namespace: &Namespace, provider: &Provider, store: PathBuf, stop: Option<Stop>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stopped, seen) = watch::channel(false);
        let kubeconfig = namespace.cluster.kubeconfig();
        let (name, url) = (namespace.name.clone(), provider.token_url());
        runtime.spawn(async move {
            let inner = client_for(&kubeconfig).await;
            let wire = Wire { inner, stop, broken: Arc::default(), stopped };
            let place = place_in(&name, Client::new(wire, name.clone()), None);
            let login = login_at(url, place, Store::open(&store).unwrap());
            let _ = login.current(at(0)).await;
        });
        Self { runtime: Some(runtime), stopped: seen }
    }

    async fn until_stopped(&mut self) {
        let stopped = self.stopped.wait_for(|stopped| *stopped);
        tokio::time::timeout(DEADLINE, stopped).await.unwrap().unwrap();
    }

    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn path(machine: &Machine) -> PathBuf {
    machine.folder.path().join("store.sqlite3")
}

fn next(namespace: &Namespace, provider: &Provider, machine: &Machine) -> Login {
    login(provider, place(namespace, namespace.client.clone(), None), machine.store())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_or_after_the_tokens_are_written_none_is_lost() {
    with_namespace(async |namespace| {
        for stop in [Stop::BeforeWrite, Stop::AfterWrite] {
            let (provider, machine) = (Provider::start().await, Machine::new());
            put_login(&namespace, "access-0", "refresh-0", 10).await;
            let mut first = Process::start(&namespace, &provider, path(&machine), Some(stop));
            first.until_stopped().await;
            first.kill();
            let kept = machine.store().successor("work").await.unwrap().unwrap();
            assert!(kept.successor.contains("refresh-1"), "kept before it is written");
            // At once, although the claim of the dead one still stands there.
            let login = next(&namespace, &provider, &machine);
            assert_eq!(login.current(at(1)).await.unwrap().access_token.expose(), "access-1", "{stop:?}");
            assert_eq!(tokens(&stored(&namespace).await), ("access-1", "refresh-1"), "{stop:?}");
            assert_eq!(machine.store().successor("work").await.unwrap(), None);
            assert_eq!(provider.token_asked().len(), 1);
            assert!(provider.takes("access-1", "refresh-1"));
            // And the login lives on.
            assert_eq!(login.current(at(28_800)).await.unwrap().access_token.expose(), "access-2");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_answer_and_writing_it_gives_way_to_a_newer_login() {
    with_namespace(async |namespace| {
        let (provider, machine) = (Provider::start().await, Machine::new());
        put_login(&namespace, "access-0", "refresh-0", 10).await;
        let mut first = Process::start(&namespace, &provider, path(&machine), Some(Stop::BeforeWrite));
        first.until_stopped().await;
        first.kill();
        let (access, refresh) = provider.log_in();
        put_login(&namespace, &access, &refresh, 28_800).await;
        let login = next(&namespace, &provider, &machine);
        assert_eq!(login.current(at(1)).await.unwrap().access_token.expose(), access);
        assert_eq!(machine.store().successor("work").await.unwrap(), None);
        // The dead one's claim is stale by now.
        let secret = namespace.api::<Secret>();
        let nothing = Patch::Merge(json!({"metadata": {"annotations": null}}));
        secret.patch(NAME, &PatchParams::default(), &nothing).await.unwrap();
        assert_eq!(tokens(&stored(&namespace).await), (access.as_str(), refresh.as_str()));
        assert_eq!(provider.token_asked().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_its_claim_it_holds_the_others_up_for_a_minute_at_most() {
    with_namespace(async |namespace| {
        for stop in [Stop::BeforeClaim, Stop::AfterClaim] {
            let (provider, machine) = (Provider::start().await, Machine::new());
            put_login(&namespace, "access-0", "refresh-0", 10).await;
            let mut first = Process::start(&namespace, &provider, path(&machine), Some(stop));
            first.until_stopped().await;
            first.kill();
            assert!(provider.token_asked().is_empty());
            let after = next(&namespace, &provider, &machine).current(at(61)).await.unwrap();
            assert_eq!(after.access_token.expose(), "access-1", "{stop:?}");
            assert_eq!(tokens(&stored(&namespace).await), ("access-1", "refresh-1"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_waits_for_the_answer_the_token_is_still_good() {
    with_namespace(async |namespace| {
        let (provider, machine) = (Provider::start().await, Machine::new());
        put_login(&namespace, "access-0", "refresh-0", 10).await;
        provider.on_token(Reply::Silence);
        let first = Process::start(&namespace, &provider, path(&machine), None);
        provider.until_token_asked(1).await;
        first.kill();
        let after = next(&namespace, &provider, &machine).current(at(61)).await.unwrap();
        assert_eq!(after.access_token.expose(), "access-1");
        assert_eq!(tokens(&stored(&namespace).await), ("access-1", "refresh-1"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_the_last_login_is_used_and_written_later() {
    with_namespace(async |namespace| {
        let (provider, machine) = (Provider::start().await, Machine::new());
        put_login(&namespace, "access-0", "refresh-0", 10).await;
        let broken = Arc::new(AtomicBool::new(false));
        let (stopped, _) = watch::channel(false);
        let wire = Wire { inner: namespace.client.clone(), stop: None, broken: Arc::clone(&broken), stopped };
        let place = place(&namespace, Client::new(wire, namespace.name.clone()), None);
        let login = login(&provider, place, machine.store());
        // The API server goes away while the answer is on its way.
        provider.on_token(Reply::Held);
        let asking = login.clone();
        let asking = tokio::spawn(async move { asking.current(at(0)).await });
        provider.until_token_asked(1).await;
        broken.store(true, Ordering::SeqCst);
        provider.let_go();
        let renewed = tokio::time::timeout(DEADLINE, asking).await.unwrap().unwrap().unwrap();
        assert_eq!(renewed.access_token.expose(), "access-1", "the new token is used all the same");
        assert_eq!(login.current(at(300)).await.unwrap().access_token.expose(), "access-1");
        assert!(machine.store().successor("work").await.unwrap().is_some());
        broken.store(false, Ordering::SeqCst);
        assert_eq!(login.current(at(600)).await.unwrap().access_token.expose(), "access-1");
        assert_eq!(tokens(&stored(&namespace).await), ("access-1", "refresh-1"));
        assert_eq!(machine.store().successor("work").await.unwrap(), None);
        assert_eq!(provider.token_asked().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_for_a_while_loses_nothing() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(10));
    let file = machine.config().join(super::DOCUMENT);
    let aside = machine.folder.path().join("aside");
    let first = login(&provider, machine.place(), machine.store());
    provider.on_token(Reply::Held);
    let asking = tokio::spawn(async move { first.current(at(0)).await });
    provider.until_token_asked(1).await;
    // A folder in the place of the file.
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir(&file).unwrap();
    provider.let_go();
    let renewed = tokio::time::timeout(DEADLINE, asking).await.unwrap().unwrap().unwrap();
    assert_eq!(renewed.access_token.expose(), "access-1");
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    // Another process begins.
    let after = login(&provider, machine.place(), machine.store()).current(at(300)).await.unwrap();
    assert_eq!(after.access_token.expose(), "access-1");
    assert_eq!(tokens(&machine.stored()), ("access-1", "refresh-1"));
    assert_eq!(provider.token_asked().len(), 1);
}

#[tokio::test]
async fn what_was_kept_gives_way_to_a_newer_login_in_a_directory_too() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(10));
    login(&provider, machine.place(), machine.store()).current(at(0)).await.unwrap();
    // As after a kill: kept, and not dropped yet.
    let parent = pilothouse::usage::credential::digest("refresh-0");
    let successor = json!({
        "access_token": "access-1",
        "refresh_token": "refresh-1",
        "expires_at": at(28_800),
        "refresh_expires_at": null,
        "scopes": [],
    });
    let keep = async || {
        let kept =
            pilothouse::store::usage::Successor { parent: parent.clone(), successor: successor.to_string(), at: at(0) };
        machine.store().keep_successor("work", kept).await.unwrap();
    };
    let current = async || login(&provider, machine.place(), machine.store()).current(at(300)).await.unwrap();
    keep().await;
    assert_eq!(current().await.access_token.expose(), "access-1");
    keep().await;
    machine.log_in("access-new", "refresh-new", 28_800);
    assert_eq!(current().await.access_token.expose(), "access-new");
    keep().await;
    machine.log_in("access-0", "refresh-0", 10);
    assert_eq!(current().await.access_token.expose(), "access-1");
    assert_eq!(tokens(&machine.stored()), ("access-1", "refresh-1"));
    assert_eq!((machine.store().successor("work").await.unwrap(), provider.token_asked().len()), (None, 1));
}
