//! The queues' promises, on real files.

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::inbox::Arrival;
use super::outbox::{Draft, Speech};
use super::{SCHEMA_VERSION, Store, StoreError};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub(crate) fn arrival(event: &str) -> Arrival {
    Arrival {
        event: event.to_owned(),
        room: "!room:hs".to_owned(),
        sender: "@alice:hs".to_owned(),
        sent_at: at(0),
        payload: format!("{{\"text\":\"{event}\"}}"),
        waiting_for: None,
    }
}

pub(crate) fn draft(txn: &str, payload: &str) -> Draft {
    Draft { txn: txn.to_owned(), room: "!room:hs".to_owned(), payload: payload.to_owned() }
}

pub(crate) fn revise(row: i64, txn: &str, payload: &str) -> Speech {
    Speech::Revise { row, room: "!room:hs".to_owned(), txn: txn.to_owned(), payload: payload.to_owned() }
}

/// A folder with a store in it, which may be opened again and again.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(&self.folder.path().join("store.sqlite3")).unwrap()
    }
}

pub(crate) async fn received(store: &Store, event: &str) -> i64 {
    store.receive(vec![arrival(event)], None, at(0)).await.unwrap();
    store.received(10).await.unwrap().into_iter().find(|entry| entry.event == event).unwrap().id
}

#[tokio::test]
async fn a_notice_is_due_once_in_its_time() {
    let place = Place::new();
    let store = place.open();
    let say = async |key: &str, second: i64| {
        let draft = Draft { txn: format!("{key}{second}"), room: "!room:hs".to_owned(), payload: "{}".to_owned() };
        store.say_once(key, SignedDuration::from_mins(10), draft, None, at(second)).await.unwrap()
    };
    assert!(say("k", 0).await);
    assert!(!say("k", 599).await);
    assert!(say("other", 599).await);
    assert!(say("k", 600).await);
    assert_eq!(store.outbox_depth().await.unwrap(), 3, "what is not due is not said");
    // The clock was ahead, and is set back: what it noted counts as old.
    assert!(!say("k", 590).await);
    assert!(say("k", -600).await);
}

#[tokio::test]
async fn a_subcommand_leaves_a_file_of_another_version_as_it_is() {
    let place = Place::new();
    let path = place.folder.path().join("store.sqlite3");
    std::fs::copy(format!("{}/tests/fixtures/store-1.sqlite3", env!("CARGO_MANIFEST_DIR")), &path).unwrap();
    assert!(matches!(Store::open_beside(&path), Err(StoreError::Older { found: 1 })));
    let version = |path: &std::path::Path| -> i64 {
        Connection::open(path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(version(&path), 1);
    drop(Store::open(&path).unwrap());
    assert_eq!(version(&path), SCHEMA_VERSION);
    assert!(Store::open_beside(&path).is_ok());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    assert!(matches!(Store::open_beside(&path), Err(StoreError::TooNew { .. })));
}

#[test]
fn a_file_that_is_no_database_says_so_and_what_to_do() {
    let place = Place::new();
    let path = place.folder.path().join("pilothouse.sqlite3");
    std::fs::write(&path, "not a database, but long enough to be taken for the header of one: ".repeat(20)).unwrap();
    let refused = Store::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged(_)), "{refused:?}");
    assert!(refused.to_string().contains("Put it aside"), "{refused}");
}

/// Files as each earlier schema left them: `tests/fixtures/store-N.sqlite3`.
#[tokio::test]
async fn a_file_of_every_earlier_version_is_read_and_brought_up() {
    for version in 1..SCHEMA_VERSION {
        let place = Place::new();
        let path = place.folder.path().join("store.sqlite3");
        let fixture = format!("{}/tests/fixtures/store-{version}.sqlite3", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(&fixture, &path).unwrap_or_else(|error| panic!("{fixture}: {error}"));
        let store = Store::open(&path).unwrap();
        let waiting = store.received(10).await.unwrap();
        assert_eq!(waiting.iter().map(|entry| entry.event.as_str()).collect::<Vec<_>>(), ["$two"], "{version}");
        assert_eq!(store.past(0, "Deployment/apps/web").await.unwrap().remembered, Some(2));
        assert_eq!(store.cursor("sync").await.unwrap().as_deref(), Some("s72594_4483_1934"));
        // What came with later versions works on it.
        store.mute(at(100)).await.unwrap();
        assert_eq!(store.muted_until(at(50)).await.unwrap(), Some(at(100)));
        store.note_violation("@a:hs", true, at(100)).await.unwrap();
        assert!(store.keys("@a:hs").await.unwrap().violated);
        store.close().unwrap();
        drop(store);
        let file = rusqlite::Connection::open(&path).unwrap();
        let now: i64 = file.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(now, SCHEMA_VERSION);
    }
}

#[test]
fn a_newer_file_is_refused_with_a_sentence() {
    let place = Place::new();
    drop(place.open());
    let path = place.folder.path().join("store.sqlite3");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    drop(file);
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found } if found == SCHEMA_VERSION + 1));
    assert!(error.to_string().contains("run the newer version again"), "{error}");
}

#[tokio::test]
async fn a_position_is_moved_only_where_it_is_what_it_was_seen_to_be() {
    let place = Place::new();
    let store = place.open();
    store.set_cursor("last", "!new").await.expect("written");
    store.move_cursor("last", "!old", "!upgraded").await.expect("written");
    assert_eq!(
        store.cursor("last").await.expect("read").as_deref(),
        Some("!new"),
        "somebody spoke elsewhere meanwhile"
    );
    store.move_cursor("last", "!new", "!newer").await.expect("written");
    assert_eq!(store.cursor("last").await.expect("read").as_deref(), Some("!newer"));
}

#[tokio::test]
async fn what_only_reads_waits_for_no_writer_and_writes_nothing() {
    let place = Place::new();
    let store = place.open();
    store.set_cursor("sync", "s1").await.expect("written");
    let other = rusqlite::Connection::open(place.folder.path().join("store.sqlite3")).expect("a connection");
    other.execute_batch("BEGIN IMMEDIATE; UPDATE cursor SET token = 's2'").expect("held");
    let read = tokio::time::timeout(std::time::Duration::from_secs(4), store.cursor("sync")).await;
    assert_eq!(read.expect("at once").expect("read").as_deref(), Some("s1"));
    let refused = store.read(|tx| Ok(tx.execute("DELETE FROM cursor", [])?)).await;
    assert!(matches!(refused, Err(StoreError::Sqlite(_))), "{refused:?}");
}

#[tokio::test]
async fn two_processes_share_the_file() {
    let place = Place::new();
    let (one, two) = (place.open(), place.open());
    let writes = (0..50).map(|n| {
        let store = if n % 2 == 0 { one.clone() } else { two.clone() };
        async move { store.receive(vec![arrival(&format!("$e{n}"))], None, at(n)).await }
    });
    for result in futures_util::future::join_all(writes).await {
        assert_eq!(result.unwrap(), 1);
    }
    assert_eq!(one.inbox_depth().await.unwrap(), 50);
}

#[tokio::test]
async fn a_file_that_knows_nothing_of_a_volume_in_use_says_so_once() {
    let words = || Speech::New(draft("forgotten", "words"));
    for (used, known, lost) in [(false, false, false), (true, false, true), (true, true, false)] {
        let place = Place::new();
        let store = place.open();
        if known {
            received(&store, "$a").await;
        }
        assert_eq!(store.begin(used, words(), at(1)).await.unwrap(), lost, "{used} {known}");
        assert_eq!(store.outbox_depth().await.unwrap(), u64::from(lost));
        // Who has begun with it once knows it.
        assert!(!store.begin(true, words(), at(2)).await.unwrap());
    }
}
