//! Processes that say something, take signals, and end with the test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::control_plane::with_namespace;
use crate::support::leash::{Folder, Leashed};
use crate::support::process::Pilothouse;
use crate::support::synapse::synapse;

const DEADLINE: Duration = Duration::from_mins(2);
/// The first start makes keys and an identity.
const START: Duration = Duration::from_mins(1);

fn sleeper() -> Leashed {
    let mut command = Command::new("sh");
    command.args(["-c", "echo awake; exec sleep 1000"]);
    Leashed::start("sleeper", &command)
}

#[tokio::test]
async fn a_process_on_a_leash_speaks_and_takes_signals() {
    let mut sleeper = sleeper();
    assert_eq!(sleeper.line(DEADLINE, |line| line == "awake").await.as_deref(), Ok("awake"));
    sleeper.line(Duration::from_millis(50), |line| line == "asleep").await.expect_err("it says no such thing");
    sleeper.signal("TERM");
    assert_eq!(sleeper.end(DEADLINE).await.expect("it ends").code(), Some(128 + 15));
}

#[tokio::test]
async fn a_process_and_a_folder_end_when_the_leash_is_let_go() {
    let sleeper = sleeper();
    let process = format!("/proc/{}", sleeper.pid());
    assert!(Path::new(&process).exists());
    drop(sleeper);
    assert!(!Path::new(&process).exists());

    let folder = Folder::new("pilothouse-harness-");
    let path = folder.to_path_buf();
    std::fs::write(path.join("file"), "").expect("a file");
    drop(folder);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_binary_says_its_version_and_what_is_wrong() {
    let ended = Pilothouse::new().arguments(&["version"]).run(DEADLINE).await;
    assert!(ended.status.success() && ended.said.contains(env!("CARGO_PKG_VERSION")), "{ended:?}");

    let wrong = Pilothouse::new().configuration("[matrix]\nhomserver = \"http://127.0.0.1\"\n");
    let ended = wrong.without("RUST_BACKTRACE").run(DEADLINE).await;
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.said.contains("homserver"), "{ended:?}");
}

#[tokio::test]
async fn the_daemon_becomes_ready_is_killed_comes_back_and_stops() {
    let synapse = synapse().await;
    with_namespace(async |namespace| {
        namespace.deployment("web", "web:1", 0).await;
        let (bot, alice) = (synapse.register("bot").await, synapse.register("alice").await);
        let pilothouse = Pilothouse::new()
            .kubeconfig(&namespace.cluster.kubeconfig())
            .variable("MATRIX_HOMESERVER", synapse.url())
            .variable("MATRIX_USER", &bot.user_id)
            .variable("MATRIX_PASSWORD", &bot.password)
            .variable("ALLOWED_USERS", &alice.user_id)
            .variable("DEPLOYMENT_NAME", "web")
            .variable("DEPLOYMENT_NAMESPACE", &namespace.name);
        let mut running = pilothouse.start();
        running.ready(START).await;
        running.kill().await;

        let mut running = pilothouse.start();
        assert!(running.ready(START).await > Duration::ZERO);
        assert!(Path::new(&format!("/proc/{}", running.pid())).exists());
        assert!(pilothouse.store.path().join("store").is_dir());
        let line = running.line(&bot.localpart, DEADLINE).await;
        assert!(running.log().contains(&line));
        assert_eq!(running.stop(DEADLINE).await.code(), Some(0));

        let nobody = "apiVersion: v1\nkind: Config\ncurrent-context: none\ncontexts: [{name: none, context: {cluster: none}}]\n\
            clusters: [{name: none, cluster: {server: 'http://127.0.0.1:1'}}]\n";
        let kubeconfig = pilothouse.store.path().join("nobody.kubeconfig");
        std::fs::write(&kubeconfig, nobody).expect("a kubeconfig");
        let mut running = pilothouse.kubeconfig(&kubeconfig).start();
        running.unready("API server", START).await;
        assert_eq!(running.stop(DEADLINE).await.code(), Some(0));
    })
    .await;
}
