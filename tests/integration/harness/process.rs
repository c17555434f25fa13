//! Processes that say something, take signals, and end with the test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::leash::{Folder, Leashed};
use crate::support::process::Pilothouse;

const DEADLINE: Duration = Duration::from_secs(30);

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
async fn the_binary_says_its_version() {
    let ended = Pilothouse::new().arguments(&["version"]).run(DEADLINE).await;
    assert!(ended.status.success(), "{ended:?}");
}
