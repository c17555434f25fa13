//! `check` judges a login and a store as the daemon's start does, and ends whatever happens.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::front::{Front, Way};
use crate::support::house::{House, Plan, SOON, daemon};
use crate::support::person::Person;
use crate::support::process::Pilothouse;
use crate::support::synapse::{Account, Login, Synapse, synapse};

/// The devices of an account; this question needs one of its own.
async fn devices(synapse: &Synapse, account: &Account) -> usize {
    let login = synapse.login(account).await;
    let devices = synapse.call(&login.access_token, Method::GET, "/_matrix/client/v3/devices", None).await;
    devices["devices"].as_array().map_or(0, Vec::len) - 1
}

/// What is checked before its first start.
struct Unstarted {
    synapse: Arc<Synapse>,
    bot: Account,
    /// The one allowed person.
    account: Account,
    /// What every request to the homeserver passes.
    front: Front,
    /// `pilothouse check`.
    check: Pilothouse,
}

async fn unstarted(namespace: &Namespace) -> Unstarted {
    namespace.deployment("web", "fine", 0).await;
    let synapse = synapse().await;
    let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
    let front = Front::deciding(&synapse, |_| Way::On).await;
    let plan = Plan { homeserver: Some(front.url().to_owned()), ..Plan::of(&["web"]) };
    let toml = plan.toml(&synapse, &bot, &account.user_id, &namespace.name);
    let check = daemon(&toml, &namespace.cluster.kubeconfig()).arguments(&["check"]);
    Unstarted { synapse, bot, account, front, check }
}

fn verdicts(said: &str, area: &str, subject: &str) -> Vec<String> {
    let (from, to) = (said.find('{').expect("JSON"), said.rfind('}').expect("JSON"));
    let answer: Value = serde_json::from_str(&said[from..=to]).expect("JSON");
    let findings = answer["findings"].as_array().expect("findings").iter();
    let found = findings.filter(|finding| finding["area"] == area && finding["subject"] == subject);
    found.filter_map(|finding| finding["verdict"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_a_part_is_judged_as_the_start_judges_it() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask("version").await;
        assert!(house.running.stop(SOON).await.success());
        let store = house.pilothouse.database().parent().expect("a folder").to_owned();
        let aside = |name: &str| store.join(format!("{name}.aside"));
        let put = |from: &Path, to: &Path| fs::rename(from, to).expect("moved");
        for (lost, words) in [
            ("session.json", "no session.json beside it"),
            ("matrix", "is gone (is the volume mounted?"),
            ("store.key", "does not open the Matrix store"),
        ] {
            put(&store.join(lost), &aside(lost));
            let checked = house.beside(&["check", "--json"]).run(SOON).await;
            assert_eq!(checked.status.code(), Some(1), "{}", checked.said);
            assert_eq!(verdicts(&checked.said, "store", "Matrix store"), ["failure"], "{}", checked.said);
            assert!(checked.said.contains(words), "{}", checked.said);
            let mut refused = house.pilothouse.start();
            assert!(!refused.end(SOON).await.success());
            refused.line(words, SOON).await;
            // Whatever the start has made in its place.
            let _ = fs::remove_dir_all(store.join(lost));
            let _ = fs::remove_file(store.join(lost));
            put(&aside(lost), &store.join(lost));
        }
        // The journal alone: it is begun anew, and that is said before it happens.
        fs::remove_file(house.pilothouse.database()).expect("removed");
        let checked = house.beside(&["check", "--json"]).run(SOON).await;
        assert_eq!(verdicts(&checked.said, "store", "journal"), ["warning"], "{}", checked.said);
        assert_eq!(verdicts(&checked.said, "store", "Matrix store"), ["good"], "{}", checked.said);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_token_is_judged_with_its_device_before_and_after_the_first_start() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let synapse = synapse().await;
        let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
        let person = Person::with_identity(&synapse, &account).await;
        let Login { access_token, device_id } = synapse.login(&bot).await;
        let with = |device: &str, token: &str| {
            let toml = Plan::of(&["web"]).toml(&synapse, &bot, &person.user_id, &namespace.name);
            let login = format!("access_token = {token:?}\ndevice_id = {device:?}");
            toml.replace(&format!("password = {:?}", bot.password), &login)
        };
        let pilothouse = daemon(&with(&device_id, &access_token), &namespace.cluster.kubeconfig());
        let check = async |said: &str, code: i32| {
            let checked = pilothouse.run_with(&["check", "--json"], SOON).await;
            assert!(checked.said.contains(said), "{said:?} is not in {}", checked.said);
            assert_eq!(checked.status.code(), Some(code), "{}", checked.said);
            checked.said
        };
        let before = check("the configured access token is good", 0).await;
        assert_eq!(verdicts(&before, "trust", "own device"), ["skipped"], "{before}");
        pilothouse.write_configuration(&with("ANOTHER", &access_token));
        check("matrix.device_id says ANOTHER", 1).await;
        pilothouse.write_configuration(&with(&device_id, &access_token));
        let mut running = pilothouse.start();
        running.ready(SOON).await;
        assert!(running.stop(SOON).await.success());
        let after = check("the configured access token is good", 0).await;
        assert_eq!(verdicts(&after, "trust", "own device"), ["good"], "{after}");
        // What is configured counts, as at the next start, and not what was saved.
        pilothouse.write_configuration(&with(&device_id, "syt_revoked"));
        check("M_UNKNOWN_TOKEN", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_interrupts_it_finds_no_device_left_behind() {
    with_namespace(async |namespace| {
        let Unstarted { synapse, bot, front, check, .. } = unstarted(&namespace).await;
        front.cut(Method::GET, "/joined_rooms", Way::Nowhere);
        let mut running = check.start();
        front.until_cut(1).await;
        assert_eq!(devices(&synapse, &bot).await, 1, "its own, while it looks");
        running.signal("INT");
        assert_eq!(running.end(SOON).await.code(), Some(2));
        running.line("interrupted", SOON).await;
        let mut left = devices(&synapse, &bot).await;
        // The login of the first question.
        assert_eq!(left, 1);

        // Gone before the login: none is made.
        front.cut(Method::GET, "/versions", Way::Nowhere);
        let mut running = check.start();
        front.until_cut(2).await;
        running.signal("INT");
        assert_eq!(running.end(SOON).await.code(), Some(2));
        running.line("no login of this check stays behind", SOON).await;
        left += 1;
        assert_eq!(devices(&synapse, &bot).await, left);

        // Gone while a limit is waited out: none is made then either.
        let limit = json!({"errcode": "M_LIMIT_EXCEEDED", "error": "later", "retry_after_ms": 25_000});
        let earlier = front.asked("/login").len();
        front.cut(Method::POST, "/login", Way::Answer(StatusCode::TOO_MANY_REQUESTS, limit));
        let mut running = check.start();
        front.until_asked("/login", earlier).await;
        running.signal("INT");
        assert_eq!(running.end(SOON).await.code(), Some(2));
        running.line("no login of this check stays behind", SOON).await;
        assert_eq!(front.asked("/login").len(), earlier + 1);
        left += 1;
        assert_eq!(devices(&synapse, &bot).await, left);

        // A login that cannot be ended again stays behind, and that is what is said.
        front.cut(Method::GET, "/joined_rooms", Way::Nowhere);
        let mut running = check.start();
        front.until_cut(3).await;
        front.cut(Method::POST, "/logout", Way::Answer(StatusCode::BAD_GATEWAY, json!({})));
        running.signal("INT");
        assert_eq!(running.end(SOON).await.code(), Some(2));
        running.line("could not be logged out", SOON).await;
        let log = running.log();
        assert!(!log.iter().any(|line| line.contains("no login of this check stays behind")), "{log:?}");
        left += 2;
        assert_eq!(devices(&synapse, &bot).await, left);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_daemon_waits_out_is_not_said_to_keep_it_from_starting() {
    with_namespace(async |namespace| {
        let Unstarted { account, front, check, .. } = unstarted(&namespace).await;
        for (status, body, waits) in [
            (StatusCode::BAD_GATEWAY, json!({}), true),
            (
                StatusCode::TOO_MANY_REQUESTS,
                json!({"errcode": "M_LIMIT_EXCEEDED", "error": "later", "retry_after_ms": 600_000}),
                true,
            ),
            (StatusCode::FORBIDDEN, json!({"errcode": "M_FORBIDDEN", "error": "no"}), false),
        ] {
            front.cut(Method::POST, "/login", Way::Answer(status, body));
            let checked = check.run(SOON).await;
            assert_eq!(checked.status.code(), Some(1), "{}", checked.said);
            assert_eq!(checked.said.contains("the daemon waits for that"), waits, "{status}: {}", checked.said);
            assert_eq!(checked.said.contains("does not start"), !waits, "{status}: {}", checked.said);
        }
        // A server of which the homeserver had no answer says nothing of its people.
        let server = account.user_id.split_once(':').expect("a user id").1;
        let failed = json!({"device_keys": {}, "failures": {server: {"status": 503}}});
        front.cut(Method::POST, "/keys/query", Way::Answer(StatusCode::OK, failed));
        let checked = check.run_with(&["--json"], SOON).await;
        assert_eq!(verdicts(&checked.said, "trust", &account.user_id), ["warning"], "{}", checked.said);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_not_blamed_on_a_saved_login() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let synapse = synapse().await;
        let front = Front::deciding(&synapse, |_| Way::On).await;
        let plan = Plan { homeserver: Some(front.url().to_owned()), ..Plan::of(&["web"]) };
        let mut house = House::build(&namespace, plan).await;
        assert!(house.running.stop(SOON).await.success());
        front.cut(Method::GET, "/account/whoami", Way::Answer(StatusCode::BAD_GATEWAY, json!({})));
        let checked = house.beside(&["check"]).run(SOON).await;
        assert_eq!(checked.status.code(), Some(1), "{}", checked.said);
        assert!(checked.said.contains("the daemon waits for that"), "{}", checked.said);
        assert!(!checked.said.contains("check matrix.user and the token"), "{}", checked.said);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_provider_that_is_away_is_told_at_once() {
    with_namespace(async |namespace| {
        let synapse = synapse().await;
        let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
        // A port that stays taken, and where nobody listens.
        let taken = tokio::net::TcpSocket::new_v4().expect("a socket");
        taken.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let away = taken.local_addr().expect("bound");
        let keycloak =
            format!("[matrix.jwt.keycloak]\nurl = \"http://{away}/\"\nrealm = \"home\"\nclient_id = \"pilothouse\"\n");
        let plan = Plan { matrix: keycloak, ..Plan::of(&["web"]) };
        let toml = plan.toml(&synapse, &bot, &account.user_id, &namespace.name);
        let checked = daemon(&toml, &namespace.cluster.kubeconfig()).arguments(&["check", "--json"]).run(SOON).await;
        assert_eq!(checked.status.code(), Some(1), "{}", checked.said);
        assert_eq!(verdicts(&checked.said, "matrix", "login"), ["failure"], "{}", checked.said);
        assert!(checked.said.contains("Keycloak at http://"), "{}", checked.said);
        assert!(checked.said.contains("the daemon waits for that"), "{}", checked.said);
    })
    .await;
}
