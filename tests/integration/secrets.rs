//! No secret of a running daemon is in anything that it writes or says, at the loudest level of its log either: neither its
//! own, nor those of the subscription that it watches.

use std::fs;
use std::time::Duration;

use crate::support::free_port;
use crate::support::house::{House, Plan, SOON};
use crate::support::leash::Folder;
use crate::support::manifests::{Manifests, with_namespaces};
use crate::support::provider::Provider;
use crate::support::subscribed::{account, answer, log_in, now, section, week};

const RUN: Duration = Duration::from_mins(3);
/// Everything, and what is quiet unless it is named.
const LOUD: &str = "debug,matrix_sdk=debug,matrix_sdk_base=debug,matrix_sdk_crypto=debug,matrix_sdk::http_client=debug,\
                    kube_client=debug,kube_runtime=debug,hyper=debug,tower=debug,rustls=debug";

/// The bearer token of workstations.
const PUSHED: &str = "a-long-random-token";

/// The secrets of a house, with their names: everything that its operator has written and that it has made itself.
fn secrets(house: &House, token: &str) -> Vec<(&'static str, String)> {
    let store = house.pilothouse.store.path().join("store");
    let read = |file: &str| fs::read(store.join(file)).expect("it keeps this file");
    let session: serde_json::Value = serde_json::from_slice(&read("session.json")).expect("JSON");
    let of_session = |key: &str| session[key].as_str().expect("it is in the session").to_owned();
    let text = |file: &str| String::from_utf8(read(file)).expect("text").trim().to_owned();
    let mut secrets = vec![
        ("the password", house.bot.password.clone()),
        ("the access token", of_session("access_token")),
        ("the recovery key", text("recovery.key")),
        ("the token of the ServiceAccount", token.to_owned()),
    ];
    // Said with spaces or without.
    secrets.push(("the recovery key in one word", text("recovery.key").split_whitespace().collect()));
    if session["refresh_token"].is_string() {
        secrets.push(("the refresh token", of_session("refresh_token")));
    }
    let key = read("store.key");
    secrets.push(("the key of the store, as hexadecimal", hexadecimal(&key)));
    secrets.push(("the key of the store, as numbers", format!("{key:?}")));
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, &key);
    secrets.push(("the key of the store, as base64", base64));
    secrets.push(("the key of the store, as it lies there", String::from_utf8_lossy(&key).trim().to_owned()));
    // The subscription's first login, the one that followed it, and what a workstation shows.
    for token in ["access-0", "refresh-0", "access-1", "refresh-1", PUSHED] {
        secrets.push(("a token of the subscription", token.to_owned()));
    }
    for (name, secret) in &secrets {
        assert!(secret.len() >= 8, "{name} is too short to be looked for");
    }
    secrets
}

fn hexadecimal(key: &[u8]) -> String {
    key.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_it_writes_or_says_holds_a_secret() {
    with_namespaces(async |own, targets| {
        let _kubelet = targets.kubelet_with_logs("listening").await;
        targets.deployment("web", "fine", 0).await;
        own.apply(&Manifests::render("base").moved(&own.name, &targets.name).built_in().yaml()).await;
        let token = own.service_account_token("pilothouse").await;
        let (provider, folder) = (Provider::start().await, Folder::new("pilothouse-login-"));
        provider.says(answer(40.0, week()));
        log_in(&folder);
        fs::write(folder.join("pushed"), PUSHED).expect("written");
        let listen = format!("127.0.0.1:{}", free_port());
        let desk = format!(
            "listen = {listen:?}\n[[usage.accounts]]\nname = \"desk\"\nsource = \"push\"\npush_token_file = {:?}\n",
            folder.join("pushed").display().to_string()
        );
        let usage = section("2s", &(desk + account("work", &provider, &folder).as_str()));
        let plan = Plan {
            more: format!("[log]\nfilter = {LOUD:?}\n{usage}"),
            kubeconfig: Some(own.kubeconfig_for_token(&token)),
            ..Plan::of(&["web"])
        };
        let mut house = House::build(targets, plan).await;
        let mut said = Vec::new();

        // From a login with the password, and from a session that is restored.
        house.ask_until("start 2", "ready: 2/2").await;
        // The login is renewed, and a workstation is heard.
        provider.expire();
        provider.until_token_asked(1).await;
        provider.until_usage_asked(provider.usage_asked().len() + 2).await;
        let limits = serde_json::json!({ "seven_day": { "used_percentage": 40.0, "resets_at": week().as_second() } });
        let push = crate::support::http().post(format!("http://{listen}/usage/v1/desk"));
        let body = serde_json::json!({ "sent_at": now().as_second(), "rate_limits": limits });
        for (token, status) in [("another-token", 401), (PUSHED, 204)] {
            let answer = push.try_clone().expect("a request").bearer_auth(token).json(&body).send().await;
            assert_eq!(answer.expect("an answer").status(), status);
        }
        said.push(("the log", house.running.log().join("\n")));
        house.running.kill().await;
        house.start_again().await;
        for text in ["status", "help", "version", "trust", "history", "usage", "restart", "strat", "stop"] {
            house.ask(text).await;
        }
        let http = crate::support::http();
        for path in ["/metrics", "/readyz", "/livez"] {
            let answer = http.get(house.pilothouse.admin(path)).send().await.expect("it answers");
            said.push((path, answer.text().await.expect("text")));
        }
        let usage = [&["usage"][..], &["usage", "--json"], &["usage", "export"]];
        for arguments in [&["config"][..], &["check"], &["check", "--json"], &["trust"]].into_iter().chain(usage) {
            said.push(("a subcommand", house.beside(arguments).run(RUN).await.said));
        }
        let status = house.running.stop(SOON).await;
        assert!(status.success(), "{status}");
        said.push(("the log", house.running.log().join("\n")));
        let room = house.person.events(&house.room);
        said.push(("the room", room.iter().map(|event| event.content.to_string()).collect::<Vec<_>>().join("\n")));

        let secrets = secrets(&house, &token);
        for (place, text) in &said {
            assert!(!text.is_empty(), "{place} says nothing");
            for (name, secret) in &secrets {
                let line = text.lines().find(|line| line.contains(secret.as_str()));
                assert_eq!(line, None, "{name} is in {place}");
            }
        }
        let log: String = said.iter().filter(|(place, _)| *place == "the log").map(|(_, text)| text.as_str()).collect();
        for library in ["matrix_sdk::http_client", "matrix_sdk_crypto", "hyper", "kube_client"] {
            assert!(log.contains(library), "{library} says nothing");
        }
    })
    .await;
}
