//! What runs beside the daemon or without it: check, trust, config, version; and the predecessor's environment alone.

use std::time::Duration;

use serde_json::Value;

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON, daemon};
use crate::support::process::Pilothouse;
use crate::support::synapse::synapse;

const RUN: Duration = Duration::from_mins(3);

fn findings(said: &str) -> Vec<Value> {
    let from = said.find('{').expect("JSON");
    let to = said.rfind('}').expect("JSON");
    let answer: Value = serde_json::from_str(&said[from..=to]).expect("JSON");
    answer["findings"].as_array().expect("findings").clone()
}

fn verdict(findings: &[Value], area: &str, subject: &str) -> String {
    let found =
        findings.iter().find(|f| f["area"] == area && f["subject"].as_str().is_some_and(|s| s.contains(subject)));
    found.unwrap_or_else(|| panic!("{area} {subject} in {findings:#?}"))["verdict"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_beside_a_running_daemon_uses_its_login_and_leaves_its_store_alone() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask("version").await;
        let beside = house.beside(&["check", "--json"]);
        let ended = beside.run(RUN).await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
        let found = findings(&ended.said);
        assert_eq!(verdict(&found, "matrix", "login"), "good");
        assert_eq!(verdict(&found, "store", "Matrix store"), "skipped");
        assert_eq!(verdict(&found, "trust", "own device"), "good");
        assert_eq!(verdict(&found, "trust", "recovery key"), "warning");
        assert_eq!(verdict(&found, "trust", &house.person.user_id), "good");
        assert_eq!(verdict(&found, "rooms", &house.room), "good");
        assert_eq!(verdict(&found, "permissions", "patch deployments/scale"), "good");
        assert_eq!(verdict(&found, "targets", "web"), "good");
        // And the daemon has not noticed.
        house.ask("version").await;
        let listed = house.beside(&["trust"]).run(RUN).await;
        assert!(
            listed.said.contains("trusted") && listed.said.contains("recovery key lies on the same volume"),
            "{}",
            listed.said
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_a_store_that_the_first_start_cannot_make() {
    with_namespace(async |namespace| {
        let synapse = synapse().await;
        let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
        let toml = Plan::of(&["web"]).toml(&synapse, &bot, &account.user_id, &namespace.name);
        // Where not even root can make anything.
        let pilothouse = daemon(&toml, &namespace.cluster.kubeconfig());
        let pilothouse = pilothouse.variable("PILOTHOUSE__MATRIX__STORE", "/proc/pilothouse/store");
        let ended = pilothouse.run_with(&["check", "--json"], RUN).await;
        assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
        assert_eq!(verdict(&findings(&ended.said), "store", "journal"), "failure");
        assert!(ended.said.contains("mount a writable volume there"), "{}", ended.said);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_without_a_login_leaves_no_device_behind() {
    with_namespace(async |namespace| {
        let synapse = synapse().await;
        let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
        let toml = Plan::of(&["web"]).toml(&synapse, &bot, &account.user_id, &namespace.name);
        let ended = daemon(&toml, &namespace.cluster.kubeconfig()).arguments(&["conntest", "--json"]).run(RUN).await;
        // The target does not exist, and the person has no identity.
        assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
        let found = findings(&ended.said);
        assert_eq!(verdict(&found, "matrix", "login"), "good");
        assert_eq!(verdict(&found, "trust", &account.user_id), "failure");
        assert_eq!(verdict(&found, "targets", "web"), "failure");
        assert_eq!(verdict(&found, "store", "journal"), "skipped");
        let login = synapse.login(&bot).await;
        let devices = synapse.call(&login.access_token, http::Method::GET, "/_matrix/client/v3/devices", None).await;
        assert_eq!(devices["devices"].as_array().map(Vec::len), Some(1), "{devices}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_configured_is_told_whole_and_exits_with_2() {
    let ended = Pilothouse::new()
        .configuration("[matrix]\nuser = \"pilothouse\"\npasword = \"1234567\"\n[policy]\nusers = [\"alice\"]\n")
        .arguments(&["check"])
        .run(RUN)
        .await;
    assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
    for part in ["matrix.pasword", "password", "policy.users", "alice"] {
        assert!(ended.said.contains(part), "{part} is not in {}", ended.said);
    }
    assert!(!ended.said.contains("1234567"), "{}", ended.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn config_and_version_say_what_is_so() {
    let ended = Pilothouse::new()
        .variable("MATRIX_USER", "bot")
        .variable("MATRIX_PASSWORD", "correct horse")
        .variable("ALLOWED_USERS", "@alice:example.org")
        .arguments(&["config"])
        .run(RUN)
        .await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
    assert!(ended.said.contains("MATRIX_USER") && ended.said.contains("***"), "{}", ended.said);
    assert!(!ended.said.contains("correct horse"), "{}", ended.said);
    let ended = Pilothouse::new().arguments(&["version"]).run(RUN).await;
    assert_eq!(ended.said.trim(), format!("pilothouse {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_predecessors_environment_and_role_alone_are_enough() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("clawdbot", "fine", 0).await;
        namespace.apply(include_str!("support/predecessor-role.yaml")).await;
        let token = namespace.service_account_token("predecessor").await;
        let synapse = synapse().await;
        let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
        let person = crate::support::person::Person::with_identity(&synapse, &account).await;
        let pilothouse = Pilothouse::as_the_predecessor(&synapse, &bot, &account.user_id, &namespace.name)
            .await
            .kubeconfig(&namespace.kubeconfig_for_token(&token));
        let running = pilothouse.start();
        running.line("Pilothouse runs", SOON).await;
        let room = person.create_room(&[&bot.user_id]).await;
        person.member(&room, &bot.user_id, "join", SOON).await;
        // Bare words count in every room, as the predecessor's people are used to: also in one of three.
        let third = crate::support::person::Person::with_identity(&synapse, &synapse.register("third").await).await;
        person.invite(&room, &third.user_id).await;
        third.join(&room).await;
        let sent = person.send(&room, "start 3").await;
        let answer = person.expect_reply(&sent, SOON).await;
        person.expect_text(&answer, "ready: 3/3", SOON).await;
        let sent = person.send(&room, "stop").await;
        let answer = person.expect_reply(&sent, SOON).await;
        person.expect_text(&answer, "is stopped", SOON).await;
        let sent = person.send(&room, "status").await;
        let status = person.expect_reply(&sent, SOON).await;
        assert!(status.body().contains("Not seen:"), "{}", status.body());
    })
    .await;
}
