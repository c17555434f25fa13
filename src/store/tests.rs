//! The queues' promises, on real files.

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::inbox::{Arrival, Done, Started, State};
use super::outbox::{Draft, Speech};
use super::watches::NewWatch;
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
    folder: tempfile::TempDir,
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
async fn an_event_arrives_once_and_the_position_with_it() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(store.receive(vec![arrival("$a"), arrival("$b")], Some("s1".to_owned()), at(1)).await.unwrap(), 2);
    assert_eq!(store.receive(vec![arrival("$b"), arrival("$c")], Some("s2".to_owned()), at(2)).await.unwrap(), 1);
    drop(store);
    let store = place.open();
    assert_eq!(store.cursor("sync").await.unwrap().as_deref(), Some("s2"));
    let events: Vec<_> = store.received(10).await.unwrap().into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["$a", "$b", "$c"]);
}

#[tokio::test]
async fn a_command_goes_from_received_to_told_and_survives_each_step() {
    let place = Place::new();
    let mut store = place.open();
    let id = received(&store, "$a").await;
    let started = Started {
        id,
        target: "Deployment/apps/web".to_owned(),
        work: "{}".to_owned(),
        remember: Some(3),
        progress: Some(Speech::New(draft("t1", "stopping"))),
        superseded: vec![],
    };
    let row = store.start(started, at(1)).await.unwrap().unwrap();
    // Each reopening stands for a kill.
    drop(store);
    store = place.open();
    assert_eq!(store.unfinished().await.unwrap()[0].state, State::Started);
    assert_eq!(store.past(0, "Deployment/apps/web").await.unwrap().remembered, Some(3));
    assert_eq!(store.answer_row(id).await.unwrap(), Some(row));
    let watch = NewWatch { target: "Deployment/apps/web".to_owned(), payload: "{}".to_owned(), deadline: at(600) };
    let done = Done { message: Some(row), watch: Some(watch), ..Done::silent(id, "scaled") };
    store.finish(done, at(2)).await.unwrap();
    drop(store);
    store = place.open();
    assert!(store.unfinished().await.unwrap().is_empty());
    let watches = store.watches().await.unwrap();
    assert_eq!((watches[0].inbox, watches[0].outbox), (id, Some(row)));
    let parcel = store.outgoing(at(3), 10).await.unwrap().remove(0);
    assert_eq!(store.try_parcel(parcel.id, false).await.unwrap().unwrap().payload, "stopping");
    drop(store);
    store = place.open();
    assert!(store.outgoing(at(3), 10).await.unwrap()[0].tried);
    store.sent(parcel.id, "$answer", at(4)).await.unwrap();
    assert_eq!(store.history(None, 10).await.unwrap()[0].state, State::Told);
}

#[tokio::test]
async fn only_answers_to_what_ordered_nothing_may_be_made_again() {
    let place = Place::new();
    let store = place.open();
    let (asked, ordered) = (received(&store, "$a").await, received(&store, "$b").await);
    let answer = Done { speech: Some(Speech::New(draft("t1", "version"))), ..Done::silent(asked, "told") };
    store.finish_repeatable(answer, at(1)).await.unwrap();
    let progress = Some(Speech::New(draft("t2", "starting")));
    let started = Started {
        id: ordered,
        target: "k".to_owned(),
        work: "{}".to_owned(),
        remember: None,
        progress,
        superseded: vec![],
    };
    store.start(started, at(1)).await.unwrap();
    store.say(None, Speech::New(draft("t3", "an alert")), at(1)).await.unwrap();
    let parcels = store.outgoing(at(2), 10).await.unwrap();
    let repeatable: Vec<_> = parcels.iter().map(|parcel| (parcel.txn.as_str(), parcel.repeatable)).collect();
    assert_eq!(repeatable, [("t1", true), ("t2", false), ("t3", false)]);
    // A kill takes nothing back, whatever waited for the disk.
    assert_eq!(store.try_parcel(parcels[0].id, true).await.unwrap().unwrap().payload, "version");
    drop(store);
    let store = place.open();
    assert!(store.outgoing(at(2), 10).await.unwrap()[0].tried && store.received(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn stop_never_remembers_zero_and_keeps_what_it_remembered() {
    let place = Place::new();
    let store = place.open();
    for (event, remember) in [("$a", Some(4)), ("$b", Some(0)), ("$c", None)] {
        let id = received(&store, event).await;
        let started =
            Started { id, target: "k".to_owned(), work: "{}".to_owned(), remember, progress: None, superseded: vec![] };
        store.start(started, at(1)).await.unwrap();
    }
    assert_eq!(store.past(0, "k").await.unwrap().remembered, Some(4));
}

#[tokio::test]
async fn a_revision_replaces_untried_words_and_edits_tried_ones() {
    let place = Place::new();
    let store = place.open();
    let row = store.say(None, Speech::New(draft("t1", "starting")), at(0)).await.unwrap();
    assert_eq!(store.say(None, revise(row, "t2", "ready"), at(1)).await.unwrap(), row);
    let out = store.outgoing(at(1), 10).await.unwrap();
    assert_eq!((out.len(), out[0].payload.as_str(), out[0].txn.as_str()), (1, "ready", "t1"));
    // Once tried, the words of this transaction id are fixed: a change is an edit, which waits for the event.
    store.try_parcel(row, false).await.unwrap();
    store.say(None, revise(row, "t3", "1/2"), at(2)).await.unwrap();
    assert_eq!(store.outgoing(at(2), 10).await.unwrap().len(), 1);
    store.sent(row, "$root", at(3)).await.unwrap();
    store.say(None, revise(row, "t4", "2/2"), at(4)).await.unwrap();
    let out = store.outgoing(at(4), 10).await.unwrap();
    assert_eq!((out.len(), out[0].payload.as_str(), out[0].txn.as_str()), (1, "2/2", "t3"));
    assert_eq!(out[0].edits.as_ref().and_then(|edited| edited.event.as_deref()), Some("$root"));
}

#[tokio::test]
async fn the_same_transaction_id_is_the_same_row() {
    let place = Place::new();
    let store = place.open();
    let row = store.say(None, Speech::New(draft("t1", "one")), at(0)).await.unwrap();
    assert_eq!(store.say(None, Speech::New(draft("t1", "two")), at(1)).await.unwrap(), row);
    assert_eq!(store.outgoing(at(1), 10).await.unwrap()[0].payload, "one");
}

#[tokio::test]
async fn merged_rows_go_out_once_and_later_news_of_them_is_new() {
    let place = Place::new();
    let store = place.open();
    let mut rows = Vec::new();
    for n in 0..3 {
        let id = received(&store, &format!("$e{n}")).await;
        let speech = Some(Speech::New(draft(&format!("t{n}"), &format!("words {n}"))));
        let done = Done { speech, ..Done::silent(id, "told") };
        rows.push(store.finish(done, at(1)).await.unwrap().unwrap());
    }
    store.merge(rows[0], rows[1..].to_vec(), "all".to_owned()).await.unwrap();
    let out = store.outgoing(at(2), 10).await.unwrap();
    assert_eq!((out.len(), out[0].payload.as_str()), (1, "all"));
    // Neither news of a folded row nor of the one that carries all may replace what the others said.
    for (row, txn) in [(rows[2], "t8"), (rows[0], "t9")] {
        store.say(None, revise(row, txn, txn), at(3)).await.unwrap();
    }
    let out = store.outgoing(at(3), 10).await.unwrap();
    let words: Vec<_> = out.iter().map(|parcel| (parcel.edits.is_none(), parcel.payload.as_str())).collect();
    assert_eq!(words, [(true, "all"), (true, "t8"), (true, "t9")]);
}

#[tokio::test]
async fn a_held_room_waits_until_its_time() {
    let place = Place::new();
    let store = place.open();
    store.say(None, Speech::New(draft("t1", "one")), at(0)).await.unwrap();
    store.hold_room("!room:hs", at(10)).await.unwrap();
    assert!(store.outgoing(at(9), 10).await.unwrap().is_empty());
    assert_eq!(store.next_outgoing_at().await.unwrap(), Some(at(10)));
    assert_eq!(store.outgoing(at(10), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_watch_ends_once() {
    let place = Place::new();
    let store = place.open();
    let id = received(&store, "$a").await;
    let watch = NewWatch { target: "k".to_owned(), payload: "{}".to_owned(), deadline: at(600) };
    let speech = Some(Speech::New(draft("t1", "starting")));
    store.finish(Done { speech, watch: Some(watch), ..Done::silent(id, "x") }, at(1)).await.unwrap();
    assert!(store.end_watch(id, "done".to_owned(), None, at(2)).await.unwrap());
    assert!(!store.end_watch(id, "again".to_owned(), Some(Speech::New(draft("t2", "x"))), at(3)).await.unwrap());
    assert_eq!(store.outgoing(at(3), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_command_for_several_targets_becomes_one_for_each() {
    let place = Place::new();
    let store = place.open();
    let id = received(&store, "$a").await;
    let parts = ["web", "db"].map(|part| (part.to_owned(), format!("{{\"{part}\":1}}"))).to_vec();
    store.split(id, parts.clone(), at(1)).await.unwrap();
    // A kill after the split: the whole is told, so it is not split again; and if it were, nothing doubles.
    store.split(id, parts, at(1)).await.unwrap();
    let events: Vec<_> = store.received(10).await.unwrap().into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["$a/web", "$a/db"]);
}

#[tokio::test]
async fn parts_stand_in_the_place_of_their_whole() {
    let place = Place::new();
    let store = place.open();
    let whole = received(&store, "$all").await;
    let later = received(&store, "$later").await;
    store.split(whole, vec![("web".to_owned(), "{}".to_owned())], at(1)).await.unwrap();
    let entries = store.received(10).await.unwrap();
    let events: Vec<_> = entries.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["$all/web", "$later"]);
    // And so what came after the whole is newer than its parts, whatever their rows are.
    let started = Started {
        id: entries[0].id,
        target: "k".to_owned(),
        work: "{}".to_owned(),
        remember: None,
        progress: None,
        superseded: vec![],
    };
    store.start(started.clone(), at(2)).await.unwrap();
    assert!(!store.past(later, "k").await.unwrap().overtaken);
    store.start(Started { id: later, ..started }, at(3)).await.unwrap();
    assert!(store.past(entries[0].id, "k").await.unwrap().overtaken);
}

#[tokio::test]
async fn progress_is_silent_once_the_watch_has_ended() {
    let place = Place::new();
    let store = place.open();
    let id = received(&store, "$a").await;
    let watch = NewWatch { target: "k".to_owned(), payload: "{}".to_owned(), deadline: at(600) };
    let speech = Some(Speech::New(draft("t1", "starting")));
    let row = store.finish(Done { speech, watch: Some(watch), ..Done::silent(id, "x") }, at(1)).await.unwrap().unwrap();
    assert!(store.progress(id, revise(row, "t2", "1/2"), at(2)).await.unwrap());
    // A newer order of the target ends it, in the transaction that writes the order.
    let newer = received(&store, "$b").await;
    assert_eq!(store.past(newer, "k").await.unwrap().watches.len(), 1);
    let superseded = vec![(id, revise(row, "t3", "superseded"))];
    let (target, work) = ("k".to_owned(), "{}".to_owned());
    store.start(Started { id: newer, target, work, remember: None, progress: None, superseded }, at(3)).await.unwrap();
    assert!(store.past(newer, "k").await.unwrap().watches.is_empty());
    assert!(!store.progress(id, revise(row, "t4", "2/2"), at(4)).await.unwrap());
    assert_eq!(store.outgoing(at(5), 10).await.unwrap()[0].payload, "superseded");
}

#[tokio::test]
async fn a_refusal_is_told_once_in_its_time_and_with_its_outcome() {
    let place = Place::new();
    let store = place.open();
    for (event, second, told) in [("$a", 0, true), ("$b", 1, false), ("$c", 700, true)] {
        let id = received(&store, event).await;
        let speech = Some(Speech::New(draft(event, "no")));
        let once = Some(("refusal".to_owned(), SignedDuration::from_mins(10)));
        let row = store.finish(Done { speech, once, ..Done::silent(id, "refused") }, at(second)).await.unwrap();
        assert_eq!(row.is_some(), told, "{event}");
    }
}

#[tokio::test]
async fn an_edit_of_what_was_given_up_goes_out_as_an_event_of_its_own() {
    let place = Place::new();
    let store = place.open();
    let row = store.say(None, Speech::New(draft("t1", "starting")), at(0)).await.unwrap();
    store.try_parcel(row, false).await.unwrap();
    store.say(None, revise(row, "t2", "ready"), at(1)).await.unwrap();
    store.dropped(row).await.unwrap();
    let out = store.outgoing(at(2), 10).await.unwrap();
    assert_eq!((out.len(), out[0].payload.as_str(), out[0].edits.is_none()), (1, "ready", true));
    assert_eq!(store.say(None, revise(999, "t3", "of nothing"), at(3)).await.unwrap(), out[0].id + 1);
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
async fn the_first_pin_stays_and_only_repin_moves_it() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(store.pin_first("@a:hs", "one", at(0)).await.unwrap(), "one");
    assert_eq!(store.pin_first("@a:hs", "two", at(1)).await.unwrap(), "one");
    store.repin("@a:hs", None, "two", "@b:hs", at(2)).await.unwrap();
    let pin = store.keys("@a:hs").await.unwrap().pin.unwrap();
    assert_eq!((pin.master.as_str(), pin.by.as_str()), ("two", "@b:hs"));
}

#[tokio::test]
async fn what_is_old_and_told_is_pruned_and_nothing_else() {
    let place = Place::new();
    let store = place.open();
    let old = received(&store, "$old").await;
    store.ignore(old, at(0)).await.unwrap();
    received(&store, "$unseen").await;
    assert_eq!(store.prune(at(100)).await.unwrap(), 1);
    assert_eq!(store.received(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn words_without_a_room_wait_for_the_first_that_is_known() {
    let place = Place::new();
    let store = place.open();
    for (txn, second) in [("old", 0), ("new", 90_000)] {
        let draft = Draft { txn: txn.to_owned(), room: String::new(), payload: "{}".to_owned() };
        store.say(None, Speech::New(draft), at(second)).await.unwrap();
    }
    assert!(store.outgoing(at(90_001), 10).await.unwrap().is_empty());
    assert_eq!(store.next_outgoing_at().await.unwrap(), None);
    assert_eq!(store.adopt("!room:hs", at(90_001 - 86_400)).await.unwrap(), 1);
    let waiting = store.outgoing(at(90_001), 10).await.unwrap();
    assert_eq!(
        waiting.iter().map(|row| (row.txn.as_str(), row.room.as_str())).collect::<Vec<_>>(),
        [("new", "!room:hs")]
    );
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

#[tokio::test]
async fn what_the_configuration_pins_stands_above_what_was_met_or_accepted() {
    let place = Place::new();
    let store = place.open();
    store.pin_first("@a:hs", "one", at(0)).await.unwrap();
    store.repin("@a:hs", None, "two", "@b:hs", at(1)).await.unwrap();
    store.pin_configured("@a:hs", "three", at(2)).await.unwrap();
    let pin = store.keys("@a:hs").await.unwrap().pin.unwrap();
    assert_eq!((pin.master.as_str(), pin.by.as_str(), pin.since), ("three", "configuration", at(2)));
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

fn sights(session: &str, from: u32, to: u32) -> Vec<(String, String, String)> {
    (from..to).map(|n| (session.to_owned(), format!("digest {n}"), format!("${session}-{n}"))).collect()
}

#[tokio::test]
async fn a_silent_session_shrinks_to_a_mark_and_still_refuses_what_was_seen() {
    let place = Place::new();
    let store = place.open();
    let note = async |session: &str, from, to| {
        store.sighted_all(sights(session, from, to)).await.unwrap();
        for n in from..to {
            assert_eq!(store.indexed(session, &format!("${session}-{n}"), n).await.unwrap(), None, "{session} {n}");
        }
    };
    note("silent", 0, 20).await;
    note("spoken", 0, 20).await;
    store.receive(vec![arrival("$spoken-3")], None, at(0)).await.unwrap();
    // Never read: its index could be any.
    store.sighted_all(sights("unread", 0, 2)).await.unwrap();
    store.sighted_all(sights("new", 0, 10_000)).await.unwrap();
    let rows = |session: &str| {
        let database = rusqlite::Connection::open(place.folder.path().join("store.sqlite3")).unwrap();
        let count = "SELECT count(*) FROM replay WHERE session = ?1";
        database.query_row(count, [session], |row| row.get::<_, i64>(0)).unwrap()
    };
    store.prune(at(100)).await.unwrap();
    assert_eq!(["silent", "spoken", "unread", "new"].map(rows), [1, 20, 2, 10_000]);

    // The same text, and another one: what came before is asked for either way.
    for (digest, event) in [("digest 7", "$again"), ("another", "$other")] {
        let sight = vec![("silent".to_owned(), digest.to_owned(), event.to_owned())];
        let earlier = store.sighted_all(sight).await.unwrap().remove(0);
        assert_eq!(earlier.iter().map(|seen| seen.message_index).collect::<Vec<_>>(), [Some(19)]);
        assert!(store.indexed("silent", event, 7).await.unwrap().is_some(), "{digest}");
    }
    // Whoever goes on with the session after all is heard, and what was refused raises nothing.
    note("silent", 20, 22).await;
    store.sighted_all(sights("later", 0, 10_000)).await.unwrap();
    store.prune(at(100)).await.unwrap();
    assert_eq!(rows("silent"), 1);
    store.sighted_all(vec![("silent".to_owned(), "x".to_owned(), "$x".to_owned())]).await.unwrap();
    assert!(store.indexed("silent", "$x", 21).await.unwrap().is_some());
    store.sighted_all(vec![("silent".to_owned(), "y".to_owned(), "$y".to_owned())]).await.unwrap();
    assert_eq!(store.indexed("silent", "$y", 22).await.unwrap(), None);
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
