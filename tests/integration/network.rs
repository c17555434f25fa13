//! The way to the homeserver: a private CA, proxies, limits on logins, and an identity provider that is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use pilothouse::chat::OpenError;
use pilothouse::config::{JwtSource, Login, Secret};
use serde_json::json;

use crate::support::bot::{Bot, DEADLINE};
use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::front::{Certificates, Front, Proxy, Way};
use crate::support::house::{Plan, SOON, daemon};
use crate::support::person::Person;
use crate::support::process::Pilothouse;
use crate::support::subscribed::{subscription, week};
use crate::support::synapse::{Account, Synapse, synapse};

const RUN: Duration = Duration::from_mins(3);

/// A person who talks to the homeserver itself, and a bot that does not.
struct Scene {
    synapse: Arc<Synapse>,
    bot: Account,
    person: Person,
}

impl Scene {
    async fn new() -> Self {
        let synapse = synapse().await;
        let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
        let person = Person::with_identity(&synapse, &account).await;
        Self { synapse, bot, person }
    }

    /// A daemon whose homeserver is at `url`, with more keys of `[matrix]`.
    fn daemon(&self, namespace: &Namespace, url: &str, matrix: &str) -> Pilothouse {
        let plan = Plan { matrix: matrix.to_owned(), ..Plan::of(&["web"]) };
        let toml = plan.toml(&self.synapse, &self.bot, &self.person.user_id, &namespace.name);
        daemon(&toml.replace(self.synapse.url(), url), &namespace.cluster.kubeconfig())
    }

    /// Starts it, and has a command answered.
    async fn answers(&self, pilothouse: &Pilothouse) {
        let mut running = pilothouse.start();
        running.ready(SOON).await;
        let room = self.person.create_room(&[&self.bot.user_id]).await;
        self.person.member(&room, &self.bot.user_id, "join", SOON).await;
        let sent = self.person.send(&room, "status").await;
        let answer = self.person.expect_reply(&sent, SOON).await;
        assert!(answer.body().contains("web"), "{}", answer.body());
        assert!(running.stop(SOON).await.success());
    }
}

fn ca_file(certificates: &Certificates) -> String {
    format!("ca_file = {:?}\n", certificates.ca_file().display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_ca_is_trusted_where_it_is_configured_and_named_where_it_is_not() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let (scene, certificates) = (Scene::new().await, Certificates::new());
        let front = Front::with_private_ca(scene.synapse.url(), &certificates).await;

        let without = scene.daemon(&namespace, front.url(), "");
        let running = without.start();
        let line = running.line("logging in: no answer", SOON).await;
        assert!(line.contains("signed by an unknown CA: set matrix.ca_file"), "{line}");
        drop(running);
        let check = without.run_with(&["check"], RUN).await;
        assert_eq!(check.status.code(), Some(1), "{}", check.said);
        assert!(check.said.contains("signed by an unknown CA: set matrix.ca_file"), "{}", check.said);
        assert_eq!(front.asked("").len(), 0, "nothing was said to a server that is not trusted");

        let with = scene.daemon(&namespace, front.url(), &ca_file(&certificates));
        let check = with.run_with(&["check", "--json"], RUN).await;
        assert_eq!(check.status.code(), Some(0), "{}", check.said);
        scene.answers(&with).await;
        assert_ne!(front.asked("/login").len(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_homeserver_is_reached_through_a_configured_proxy_alone() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let (scene, certificates) = (Scene::new().await, Certificates::new());
        let front = Front::with_private_ca(scene.synapse.url(), &certificates).await;
        let proxy = Proxy::start().await;
        let matrix = format!("{}proxy = {:?}\n", ca_file(&certificates), proxy.url);
        let pilothouse = scene.daemon(&namespace, front.url(), &matrix);
        // What is configured counts, whatever the environment says.
        let pilothouse = pilothouse.variable("HTTPS_PROXY", "http://127.0.0.1:1").variable("NO_PROXY", "*");
        let check = pilothouse.run_with(&["check", "--json"], RUN).await;
        assert_eq!(check.status.code(), Some(0), "{}", check.said);
        assert_ne!(proxy.tunnels(), 0);
        let checked = proxy.tunnels();
        scene.answers(&pilothouse).await;
        assert!(proxy.tunnels() > checked);

        let matrix = format!("{}proxy = \"http://127.0.0.1:1\"\n", ca_file(&certificates));
        let nowhere = scene.daemon(&namespace, front.url(), &matrix);
        let asked = front.asked("").len();
        let check = nowhere.run_with(&["check"], RUN).await;
        assert!(check.said.contains("through matrix.proxy"), "{}", check.said);
        assert_eq!(front.asked("").len(), asked, "never beside the proxy");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_usual_proxy_variables_count() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let (scene, certificates) = (Scene::new().await, Certificates::new());
        let front = Front::with_private_ca(scene.synapse.url(), &certificates).await;
        let proxy = Proxy::start().await;
        let fresh = || scene.daemon(&namespace, front.url(), &ca_file(&certificates));

        let proxied = fresh().variable("HTTPS_PROXY", &proxy.url);
        scene.answers(&proxied).await;
        let tunnels = proxy.tunnels();
        assert_ne!(tunnels, 0);

        let direct = proxied.variable("NO_PROXY", "example.org,127.0.0.1");
        scene.answers(&direct).await;
        assert_eq!(proxy.tunnels(), tunnels);
    })
    .await;
}

/// The provider's own addresses, with a proxy on the way that looks into everything: what a company's is.
#[tokio::test(flavor = "multi_thread")]
async fn the_login_of_this_machine_is_watched_through_a_proxy_with_a_ca_of_its_own() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let (provider, login) = subscription(40.0, week()).await;
        let certificates = Certificates::of(&["api.anthropic.com", "platform.claude.com"]);
        let front = Front::with_private_ca(provider.address(), &certificates).await;
        let (scene, proxy) = (Scene::new().await, Proxy::to(front.url()).await);
        let fresh = || {
            let pilothouse = scene.daemon(&namespace, scene.synapse.url(), "").variable("HTTPS_PROXY", &proxy.url);
            let folder = login.display().to_string();
            pilothouse.variable("LOCAL_MODE", "true").variable("CLAUDE_CONFIG_DIR", &folder)
        };
        let strange = fresh().run_with(&["usage"], RUN).await;
        assert_eq!(strange.status.code(), Some(1), "{}", strange.said);
        assert!(strange.said.contains("signed by an unknown CA: set usage.ca_file"), "{}", strange.said);
        assert_eq!(front.asked("").len(), 0, "no token for a server that is not trusted");

        let ca = certificates.ca_file().display().to_string();
        // The first answer of a login that must be renewed first: both addresses are asked.
        provider.expire();
        let trusting = fresh().variable("PILOTHOUSE__USAGE__CA_FILE", &ca);
        let mut running = trusting.start();
        running.ready(SOON).await;
        provider.until_usage_asked(2).await;
        let room = scene.person.create_room(&[&scene.bot.user_id]).await;
        scene.person.member(&room, &scene.bot.user_id, "join", SOON).await;
        let sent = scene.person.send(&room, "usage").await;
        let answer = scene.person.expect_reply(&sent, SOON).await;
        assert!(answer.body().contains("week 40 %"), "{}", answer.body());
        assert_eq!((front.asked("GET /api/oauth/usage").len(), front.asked("POST /v1/oauth/token").len()), (2, 1));
        assert!(running.stop(SOON).await.success());
        let renewed = std::fs::read_to_string(login.join(".credentials.json")).expect("the login");
        assert!(renewed.contains("access-1") && !renewed.contains("access-0"), "{renewed}");
    })
    .await;
}

#[tokio::test]
async fn a_limit_on_logins_is_waited_for_and_not_run_against() {
    let limit = json!({"per_second": 0.1, "burst_count": 1});
    let unlimited = json!({"per_second": 10_000, "burst_count": 10_000});
    let limits = json!({"rc_login": {"address": unlimited, "account": limit, "failed_attempts": unlimited}});
    let synapse = Synapse::start(limits).await;
    let front = Front::deciding(&synapse, |_| Way::On).await;
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.homeserver = front.url().parse().expect("a URL");
    // The account's one login of these ten seconds.
    synapse.login(&account).await;
    bot.open_once().await.expect("it opens at last");
    let logins = front.asked("POST /_matrix/client/v3/login");
    assert_eq!(logins.len(), 2, "one refused, one good");
    let waited = logins[1] - logins[0];
    // A limit that does not say is taken for half a minute.
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(29), "as it was told: {waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_waits_for_a_limit_that_ends_soon_and_tells_one_that_does_not() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let scene = Scene::new().await;
        let limited = Arc::new(AtomicUsize::new(0));
        let (count, wait_ms) = (Arc::clone(&limited), Arc::new(AtomicUsize::new(700)));
        let wait = Arc::clone(&wait_ms);
        let front = Front::deciding(&scene.synapse, move |asked| {
            let (count, wait) = (Arc::clone(&count), wait.load(Ordering::SeqCst));
            if asked.path.ends_with("/login") && (wait > 60_000 || count.fetch_add(1, Ordering::SeqCst) == 0) {
                let body = json!({"errcode": "M_LIMIT_EXCEEDED", "error": "Too many", "retry_after_ms": wait});
                return Way::Answer(StatusCode::TOO_MANY_REQUESTS, body);
            }
            Way::On
        })
        .await;
        let pilothouse = scene.daemon(&namespace, front.url(), "");
        let check = pilothouse.run_with(&["check", "--json"], RUN).await;
        assert_eq!(check.status.code(), Some(0), "{}", check.said);
        let logins = front.asked("/login");
        assert_eq!(logins.len(), 2);
        let waited = logins[1] - logins[0];
        assert!(waited >= Duration::from_millis(700) && waited < Duration::from_secs(29), "{waited:?}");

        wait_ms.store(600_000, Ordering::SeqCst);
        let check = pilothouse.run_with(&["check"], RUN).await;
        assert_eq!(check.status.code(), Some(1), "{}", check.said);
        assert!(check.said.contains("asks to wait 600 s"), "{}", check.said);
        assert_eq!(front.asked("/login").len(), 3, "asked once");
    })
    .await;
}

#[tokio::test]
async fn an_identity_provider_that_is_away_is_waited_for() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let token = synapse.jwt(&account);
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url: url::Url = format!("http://{}/", listener.local_addr().expect("bound")).parse().expect("a URL");
    let provider = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        // Away: whoever connects is hung up on.
        for _ in 0..2 {
            drop(listener.accept().await);
            seen.lock().expect("unpoisoned").push(Instant::now());
        }
        let grant = move || async move {
            let mut seen = seen.lock().expect("unpoisoned");
            seen.push(Instant::now());
            match seen.len() {
                3 | 4 => (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(json!("no database"))),
                5 => (StatusCode::TOO_MANY_REQUESTS, axum::Json(json!({}))),
                _ => (StatusCode::OK, axum::Json(json!({ "access_token": token }))),
            }
        };
        let limited = |answer: axum::response::Response| async {
            let mut answer = answer;
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                answer.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
            }
            answer
        };
        let path = "/realms/home/protocol/openid-connect/token";
        let router =
            axum::Router::new().route(path, axum::routing::post(grant)).layer(axum::middleware::map_response(limited));
        axum::serve(listener, router).await.expect("it serves for ever");
    }));
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.login = Login::Jwt {
        login_type: "org.matrix.login.jwt".to_owned(),
        source: JwtSource::Keycloak {
            url,
            realm: "home".to_owned(),
            client_id: "pilothouse".to_owned(),
            client_secret: None,
            password: Secret::new("keycloak's"),
        },
    };
    tokio::time::timeout(DEADLINE, bot.open_once()).await.expect("in time").expect("it opens when it is back");
    drop(provider);
    let asked = asked.lock().expect("unpoisoned").clone();
    assert_eq!(asked.len(), 6);
    let pauses: Vec<Duration> = asked.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_millis(200)), "no loop: {pauses:?}");
    assert!(pauses[4] >= Duration::from_millis(900), "as it was told: {pauses:?}");
}

#[tokio::test]
async fn a_homeserver_that_asks_for_the_password_before_it_takes_an_identity_gets_it() {
    let synapse = synapse().await;
    let account = synapse.register("bot").await;
    let (password, user) = (account.password.clone(), account.user_id.clone());
    let front = Front::deciding(&synapse, move |asked| {
        if !asked.path.ends_with("/keys/device_signing/upload") {
            return Way::On;
        }
        let auth = &asked.body["auth"];
        let mine = auth["session"] == "one" && auth["type"] == "m.login.password";
        if mine && auth["password"] == password.as_str() && auth["identifier"]["user"] == user.as_str() {
            return Way::On;
        }
        let flows = json!([{"stages": ["m.login.password"]}]);
        Way::Answer(StatusCode::UNAUTHORIZED, json!({"session": "one", "flows": flows, "params": {}}))
    })
    .await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.homeserver = front.url().parse().expect("a URL");
    bot.open_once().await.expect("it opens, signed");
    assert_eq!(front.asked("POST /_matrix/client/v3/keys/device_signing/upload").len(), 2);

    // Without a password there is nothing to show, and it says so.
    let account = synapse.register("bot").await;
    let mut bot = Bot::new(&synapse, &account);
    bot.matrix.homeserver = front.url().parse().expect("a URL");
    let file = bot.matrix.store.with_extension("jwt");
    std::fs::write(&file, synapse.jwt(&account)).expect("written");
    let source = JwtSource::File { path: file };
    bot.matrix.login = Login::Jwt { login_type: "org.matrix.login.jwt".to_owned(), source };
    let error = bot.open_once().await.expect_err("unsigned");
    assert!(
        matches!(error, OpenError::Unsigned { .. }) && error.to_string().contains("asks for a password"),
        "{error}"
    );
}
