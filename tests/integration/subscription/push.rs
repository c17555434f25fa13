//! What workstations push, over real HTTP.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use jiff::{SignedDuration, Timestamp};
use pilothouse::store::Store;
use pilothouse::usage::source::push;
use pilothouse::usage::{Reset, Snapshot, Source};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::DEADLINE;

/// A listener for the account `work`, whose token is `correct horse`.
struct Listener {
    folder: tempfile::TempDir,
    address: String,
    pushed: mpsc::Receiver<Snapshot>,
    server: AbortOnDropHandle<()>,
}

/// The listener reads the clock.
#[expect(clippy::disallowed_methods, reason = "what is pushed must be of now")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn seconds(offset: i64) -> Value {
    json!((now() + SignedDuration::from_secs(offset)).as_second())
}

fn body(sent_at: &Value) -> Value {
    json!({"sent_at": sent_at, "rate_limits": {
        "five_hour": {"used_percentage": 12.5, "resets_at": 1_900_000_000},
        "seven_day": {"used_percentage": 3, "resets_at": 1_900_300_000},
    }})
}

impl Listener {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "correct horse\n").unwrap();
        Self::at(folder, 16).await
    }

    async fn at(folder: tempfile::TempDir, room: usize) -> Self {
        let (sender, pushed) = mpsc::channel(room);
        let file = |name: &str| folder.path().join(name);
        let accounts: BTreeMap<String, PathBuf> =
            [("work", "token"), ("empty", "empty")].map(|(account, name)| (account.to_owned(), file(name))).into();
        let store = Store::open(&file("store.sqlite3")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = push::router(accounts, store, sender);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { folder, address, pushed, server: AbortOnDropHandle::new(server) }
    }

    async fn restarted(self, room: usize) -> Self {
        drop(self.server);
        Self::at(self.folder, room).await
    }

    fn url(&self, account: &str) -> String {
        format!("http://{}/usage/v1/{account}", self.address)
    }

    async fn post(&self, account: &str, token: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let request = super::http().post(self.url(account)).bearer_auth(token).body(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn push(&self, sent_at: &Value) -> (u16, String) {
        self.post("work", "correct horse", body(sent_at).to_string()).await
    }
}

#[tokio::test]
async fn what_is_pushed_comes_out_as_a_snapshot_that_proves_no_reset() {
    let mut listener = Listener::start().await;
    let sent = seconds(-30);
    assert_eq!(listener.push(&sent).await, (204, String::new()));
    let snapshot = listener.pushed.recv().await.unwrap();
    assert_eq!((snapshot.account.as_str(), snapshot.source), ("work", Source::Push));
    assert_eq!(json!(snapshot.at.as_second()), sent);
    assert!(!snapshot.source.confirms(false));
    let shown: Vec<_> =
        snapshot.readings.iter().map(|reading| (reading.bucket.to_string(), reading.used, reading.reset)).collect();
    let expected = [("work/session", 12.5, Reset::Rolling), ("work/weekly_all", 3.0, Reset::Rolling)];
    assert_eq!(shown, expected.map(|(bucket, used, reset)| (bucket.to_owned(), used, reset)));
}

#[tokio::test]
async fn only_the_accounts_own_token_is_let_in() {
    let listener = Listener::start().await;
    std::fs::write(listener.folder.path().join("empty"), "\n").unwrap();
    let good = body(&seconds(0)).to_string();
    for (account, token, status) in [
        ("work", "", 401),
        ("work", "correct", 401),
        ("work", "correct horse ", 204),
        ("work", "correct horsf", 401),
        ("empty", "x", 401),
        ("private", "correct horse", 404),
        ("work/x", "correct horse", 404),
    ] {
        let (answered, said) = listener.post(account, token, good.clone()).await;
        assert_eq!(answered, status, "{account} {token:?}: {said}");
        assert!(!said.contains("horse") && said.lines().count() <= 1, "{said}");
    }
    let bare = super::http().post(listener.url("work")).body(good.clone()).send().await.unwrap();
    assert_eq!((bare.status().as_u16(), bare.headers()["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    // A new token counts at once, and the old one no more.
    std::fs::write(listener.folder.path().join("token"), "battery staple").unwrap();
    assert_eq!(listener.post("work", "correct horse", good).await.0, 401);
    let newer = body(&seconds(60)).to_string();
    assert_eq!(listener.post("work", "battery staple", newer.clone()).await.0, 204);
    std::fs::remove_file(listener.folder.path().join("token")).unwrap();
    assert_eq!(listener.post("work", "battery staple", newer).await.0, 401);
}

#[tokio::test]
async fn only_what_is_newer_and_of_now_is_taken_also_after_a_restart() {
    let listener = Listener::start().await;
    let zero = now();
    let sent = |offset: i64| json!((zero + SignedDuration::from_secs(offset)).to_string());
    for (offset, status) in [
        (-330, 400),
        (330, 400),
        (-200, 204),
        (-200, 409),
        (-201, 409),
        (-197, 429),
        (-195, 204),
        (200, 204),
        (-100, 409),
    ] {
        let (answered, said) = listener.push(&sent(offset)).await;
        assert_eq!(answered, status, "{offset}: {said}");
    }
    let listener = listener.restarted(1).await;
    assert_eq!(listener.push(&sent(200)).await.0, 409);
    assert_eq!(listener.push(&sent(210)).await.0, 204);
    // Nobody takes it out of the queue: what is refused now does not count as taken.
    let (status, said) = listener.push(&sent(220)).await;
    assert_eq!(status, 429, "{said}");
    let mut listener = listener;
    listener.pushed.recv().await.unwrap();
    assert_eq!(listener.push(&sent(220)).await.0, 204);
}

#[tokio::test]
async fn whatever_else_comes_is_refused_in_one_line() {
    let listener = Listener::start().await;
    let sent = seconds(0);
    let post = async |body: String| listener.post("work", "correct horse", body).await;
    for (body, words) in [
        (String::new(), "not JSON"),
        ("{".to_owned(), "not JSON"),
        (json!({"sent_at": sent}).to_string(), "rate_limits is missing"),
        (json!({"rate_limits": {}}).to_string(), "sent_at is missing"),
        (json!({"sent_at": sent, "rate_limits": {"two_hour": {}}}).to_string(), "none of the keys"),
    ] {
        let (status, said) = post(body.clone()).await;
        assert!(status == 400 && said.contains(words) && said.lines().count() == 1, "{body}: {status} {said}");
    }
    let padded = |length: usize| {
        let empty = format!("{}{{}}", " ".repeat(length - 2));
        assert_eq!(empty.len(), length);
        empty
    };
    assert_eq!(post(padded(16 * 1024)).await.0, 400);
    assert_eq!(post(padded(16 * 1024 + 1)).await.0, 413);
    let get = super::http().get(listener.url("work")).send().await.unwrap();
    assert_eq!(get.status().as_u16(), 405);
}

#[tokio::test]
async fn those_who_send_slowly_leave_room_for_nobody_else_and_the_rest_is_told() {
    let listener = Listener::start().await;
    let head = "POST /usage/v1/work HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer correct horse\r\nContent-Length: 100\r\n\r\n{";
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(&listener.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let full = async {
        loop {
            let (status, said) = listener.post("work", "wrong", "").await;
            if status == 429 {
                break said;
            }
            tokio::task::yield_now().await;
        }
    };
    let said = tokio::time::timeout(DEADLINE, full).await.unwrap();
    assert!(said.contains("too many"), "{said}");
    drop(slow);
    let free = async {
        while listener.push(&seconds(0)).await.0 != 204 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, free).await.unwrap();
}

/// The hook of the README, which the module's documentation repeats.
fn hook() -> String {
    let readme = include_str!("../../../README.md");
    let hook = readme.split("```sh\n").find(|block| block.starts_with("#!/bin/sh\ninput=")).unwrap();
    let hook = hook.split("```").next().unwrap().to_owned();
    let source = include_str!("../../../src/usage/source/push.rs");
    let lines = source.lines().skip_while(|line| *line != "//! ```sh").skip(1).take_while(|line| *line != "//! ```");
    let documented: Vec<_> = lines.map(|line| line.trim_start_matches("//! ")).collect();
    assert_eq!(hook.lines().collect::<Vec<_>>(), documented);
    hook
}

/// Holds the hook of the README: it is run as it stands there, but for the address.
#[tokio::test]
async fn the_documented_hook_pushes_and_leaves_the_statusline_alone() {
    let mut listener = Listener::start().await;
    // The hook runs beside the statusline; here it is waited for.
    let script = format!("{}wait", hook());
    let script = script.replace("https://pilothouse.example/usage/v1/work", &listener.url("work"));
    let home = tempfile::tempdir().unwrap();
    let claude = home.path().join(".claude");
    std::fs::create_dir(&claude).unwrap();
    std::fs::write(claude.join("pilothouse-header"), "Authorization: Bearer correct horse\n").unwrap();
    let mut input = body(&Value::Null);
    input["model"] = json!({"display_name": "Fable's \"best\" $HOME"});
    for _ in 0..2 {
        let mut shell = tokio::process::Command::new("/bin/sh");
        shell.args(["-c", &script]).env("HOME", home.path()).env("NO_PROXY", "*");
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(input.to_string().as_bytes()).await.unwrap();
        let said = shell.wait_with_output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "Fable's \"best\" $HOME\n");
        assert_eq!(String::from_utf8_lossy(&said.stderr), "");
    }
    let snapshot = tokio::time::timeout(DEADLINE, listener.pushed.recv()).await.unwrap().unwrap();
    assert_eq!(snapshot.readings.len(), 2);
    assert!(listener.pushed.try_recv().is_err(), "once a minute");
}
