//! The process as its surroundings see it: probes, signals, what it says of its rights at the start, how it ends when a
//! part of it cannot go on, and a subcommand of another version beside it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pilothouse::chat::Lock;

use crate::support::control_plane::{control_plane, with_namespace};
use crate::support::house::{House, Plan, SOON, daemon};
use crate::support::http;
use crate::support::manifests::Manifests;
use crate::support::process::Pilothouse;
use crate::support::synapse::synapse;

const RUN: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_its_missing_rights_answers_probes_and_ends_well_when_interrupted() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        namespace.apply(&Manifests::minimal_role(&namespace.name)).await;
        let token = namespace.service_account_token("minimal").await;
        let kubeconfig = Some(namespace.kubeconfig_for_token(&token));
        let mut house = House::build(&namespace, Plan { kubeconfig, ..Plan::of(&["web"]) }).await;
        let said = house.running.line(&format!("list pods in {}", namespace.name), SOON).await;
        assert!(said.contains("a permission is not given"), "{said}");
        let needed = house.running.log().into_iter().find(|line| line.contains("a permission is missing"));
        assert_eq!(needed, None, "the main job has all that it needs");

        let live = http().get(house.pilothouse.admin("/livez")).send().await.expect("an answer");
        assert_eq!((live.status().as_u16(), live.text().await.expect("text").as_str()), (200, "live\n"));
        let checked = house.beside(&["connectivity-test"]).run(RUN).await;
        assert_eq!(checked.status.code(), Some(0), "{}", checked.said);

        house.ask("version").await;
        house.running.signal("INT");
        assert!(house.running.end(SOON).await.success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_right_it_says_what_it_cannot_do() {
    with_namespace(async |namespace| {
        namespace.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody}}").await;
        let token = namespace.service_account_token("nobody").await;
        let synapse = synapse().await;
        let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
        let toml = Plan::of(&["web"]).toml(&synapse, &bot, &account.user_id, &namespace.name);
        let running = daemon(&toml, &namespace.kubeconfig_for_token(&token)).start();
        for missing in ["get deployments", "patch deployments/scale"] {
            let said = running.line(&format!("{missing} in {}", namespace.name), SOON).await;
            assert!(said.contains("a permission is missing"), "{said}");
        }
    })
    .await;
}

/// A daemon that finds no homeserver: what it does before it would is the same.
async fn alone() -> Pilothouse {
    let toml = "[matrix]\nhomeserver = \"http://127.0.0.1:1\"\nuser = \"@bot:nowhere\"\npassword = \"secret\"\n\
                [policy]\nusers = [\"@alice:nowhere\"]\n[[targets]]\nname = \"web\"\nnamespace = \"apps\"\n";
    daemon(toml, &control_plane().await.kubeconfig())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anything_said_the_kubeconfig_of_the_home_folder_is_used() {
    let pilothouse = alone().await.without("KUBECONFIG");
    let missing = pilothouse.run_with(&["check"], RUN).await;
    assert!(missing.said.contains("set KUBECONFIG or run inside a cluster"), "{}", missing.said);
    let folder = pilothouse.store.path().join(".kube");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::copy(control_plane().await.kubeconfig(), folder.join("config")).expect("a kubeconfig");
    let found = pilothouse.run_with(&["check"], RUN).await;
    assert!(found.said.contains("v1."), "{}", found.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_ends_ends_the_process_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut running = alone().await.variable("PILOTHOUSE__ADMIN__LISTEN", &address).start();
    assert_eq!(running.end(SOON).await.code(), Some(1));
    let log = running.log().join("\n");
    assert!(log.contains("the part `admin` failed") && log.contains(&format!("admin.listen = {address}")), "{log}");
}

/// Puts the journal of an older version into the store's folder, and gives both.
fn older(pilothouse: &Pilothouse) -> (PathBuf, PathBuf) {
    let folder = pilothouse.store.path().join("store");
    std::fs::create_dir(&folder).expect("a folder");
    let file = folder.join(pilothouse::daemon::DATABASE);
    let older = format!("{}/tests/fixtures/store-1.sqlite3", env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(older, &file).expect("a store");
    (folder, file)
}

fn schema(file: &Path) -> i64 {
    let database = rusqlite::Connection::open(file).expect("the store");
    database.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_a_daemon_that_goes_on_is_not_brought_up_by_the_next() {
    let pilothouse = alone().await;
    let (folder, file) = older(&pilothouse);
    let lock = Lock::take(&folder, SOON).await.expect("nobody has it");
    let mut next = pilothouse.start();
    assert_eq!(next.end(RUN).await.code(), Some(1), "the other one does not let go");
    assert_eq!(schema(&file), 1);
    drop(lock);
    let next = pilothouse.start();
    next.line("probes and metrics", SOON).await;
    assert_eq!(schema(&file), pilothouse::store::SCHEMA_VERSION);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subcommand_does_not_bring_up_the_store_of_an_older_daemon() {
    let pilothouse = alone().await;
    let (_, file) = older(&pilothouse);
    for subcommand in ["check", "trust"] {
        let ended = pilothouse.run_with(&[subcommand], RUN).await;
        assert!(ended.said.contains("the store has schema 1"), "{subcommand}: {}", ended.said);
    }
    assert_eq!(schema(&file), 1);
    // Nor has it anything to offer for a newer one but that.
    let newer = pilothouse::store::SCHEMA_VERSION + 1;
    rusqlite::Connection::open(&file).expect("the store").pragma_update(None, "user_version", newer).expect("written");
    let ended = pilothouse.run_with(&["check"], RUN).await;
    assert!(ended.said.contains("run the newer version, or set matrix.store"), "{}", ended.said);
    assert!(!ended.said.contains("mount a writable volume"), "{}", ended.said);
}
