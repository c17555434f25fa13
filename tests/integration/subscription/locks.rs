//! Several programs at one directory.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};

use super::{DEADLINE, Machine, at, login, tokens};
use crate::support::provider::{Provider, Reply};

fn locks(config: &Path) -> [PathBuf; 2] {
    [config.join(".oauth_refresh.lock"), config.with_extension("lock")]
}

/// Takes a lock as the CLI does, `age` seconds ago.
fn take(lock: &Path, age: i64) {
    fs::create_dir(lock).unwrap();
    let times = FileTimes::new().set_modified(at(-age).into());
    File::open(lock).unwrap().set_times(times).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_renews_and_both_go_on() {
    let (provider, machine, other) = (Provider::start().await, Machine::with_login(10), Machine::new());
    let first = login(&provider, machine.place(), machine.store());
    // Another store stands for another process.
    let second = login(&provider, machine.place(), other.store());
    provider.on_token(Reply::Held);
    let both = tokio::spawn(async move { tokio::join!(first.current(at(0)), second.current(at(0))) });
    provider.until_token_asked(1).await;
    assert!(locks(&machine.config()).iter().all(|lock| lock.is_dir()), "the CLI sees that somebody renews");
    provider.let_go();
    let (first, second) = tokio::time::timeout(DEADLINE, both).await.unwrap().unwrap();
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.access_token.expose(), "access-1");
    assert_eq!(first.access_token, second.access_token);
    assert_eq!(provider.token_asked().len(), 1);
    assert!(provider.takes("access-1", "refresh-1"));
    assert!(!locks(&machine.config()).iter().any(|lock| lock.exists()));
}

#[tokio::test]
async fn what_the_cli_renews_meanwhile_is_taken_over() {
    for which in 0..2 {
        let (provider, machine) = (Provider::start().await, Machine::with_login(10));
        let lock = locks(&machine.config())[which].clone();
        take(&lock, 1);
        let login = login(&provider, machine.place(), machine.store());
        let waiting = tokio::spawn(async move { login.current(at(0)).await });
        machine.log_in("access-cli", "refresh-cli", 28_800);
        let taken = tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap();
        assert_eq!(taken.access_token.expose(), "access-cli");
        assert!(provider.token_asked().is_empty());
        assert!(lock.is_dir(), "it is the CLI's to give back");
    }
}

#[tokio::test]
async fn locks_of_the_dead_are_taken() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(10));
    for lock in locks(&machine.config()) {
        take(&lock, 61);
    }
    login(&provider, machine.place(), machine.store()).current(at(0)).await.unwrap();
    assert_eq!(tokens(&machine.stored()), ("access-1", "refresh-1"));
    assert!(!locks(&machine.config()).iter().any(|lock| lock.exists()));
}
