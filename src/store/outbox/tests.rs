use super::*;

mod queue;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

fn new(txn: &str) -> Speech {
    Speech::New(Draft { txn: txn.to_owned(), room: "!room:x".to_owned(), payload: format!("words {txn}") })
}

fn revise(row: i64, txn: &str) -> Speech {
    Speech::Revise { row, room: "!room:x".to_owned(), txn: txn.to_owned(), payload: format!("words {txn}") }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    (folder, store)
}

#[tokio::test]
async fn an_untried_text_is_replaced_in_place_and_a_tried_one_is_edited_once_it_is_sent() {
    let (_folder, store) = store();
    let row = store.say(None, new("a"), at(0)).await.expect("written");
    assert_eq!(store.say(None, revise(row, "b"), at(1)).await.expect("written"), row);
    assert_eq!(store.try_parcel(row, false).await.expect("written").expect("it waits").payload, "words b");
    store.say(None, revise(row, "c"), at(2)).await.expect("written");
    store.say(None, revise(row, "d"), at(3)).await.expect("written");
    assert_eq!(store.outgoing(at(4), 9).await.expect("read").len(), 1, "an edit waits for its event");
    store.sent(row, "$event:x", at(5)).await.expect("written");
    let [edit] = &store.outgoing(at(6), 9).await.expect("read")[..] else { panic!("one edit") };
    assert_eq!((edit.payload.as_str(), edit.txn.as_str()), ("words d", "c"));
    assert_eq!(edit.edits, Some(Edited { row, event: Some("$event:x".to_owned()) }));
}

#[tokio::test]
async fn beyond_its_capacity_the_queue_drops_the_oldest_edits_first_and_counts_them() {
    let (_folder, store) = store();
    let root = store.say(None, new("root"), at(0)).await.expect("written");
    store.try_parcel(root, false).await.expect("written");
    for number in 1..CAPACITY - 1 {
        store.say(None, new(&number.to_string()), at(number)).await.expect("written");
    }
    store.say(None, revise(root, "edit"), at(0)).await.expect("written");
    assert_eq!(store.outbox_dropped().await.expect("read"), 0);
    let planned = store.outgoing(at(0), 2).await.expect("read").pop().expect("the oldest that was not tried");
    store.say(None, new("more"), at(0)).await.expect("written");
    store.say(None, new("and more"), at(0)).await.expect("written");
    assert_eq!(store.outbox_dropped().await.expect("read"), 2);
    assert_eq!(store.outbox_depth().await.expect("read"), CAPACITY.unsigned_abs());
    store.sent(root, "$event:x", at(0)).await.expect("written");
    let waiting = store.outgoing(at(0), u32::MAX).await.expect("read");
    assert!(waiting.iter().all(|parcel| parcel.edits.is_none()), "the edit went first");
    assert_eq!(waiting[0].txn, "2", "then the oldest message");
    let tried = store.try_parcel(planned.id, false).await.expect("written");
    assert_eq!((planned.txn.as_str(), tried), ("1", None), "what was given up is not sent, though it was planned");
}

#[tokio::test]
async fn old_rows_are_forgotten_unless_something_refers_to_them() {
    let (_folder, store) = store();
    let old = store.say(None, new("old"), at(0)).await.expect("written");
    let edited = store.say(None, new("edited"), at(0)).await.expect("written");
    let waiting = store.say(None, new("waiting"), at(0)).await.expect("written");
    for row in [old, edited] {
        store.try_parcel(row, false).await.expect("written");
        store.sent(row, "$event:x", at(1)).await.expect("written");
    }
    store.say(None, revise(edited, "edit"), at(2)).await.expect("written");
    assert_eq!(store.prune_outbox(at(10)).await.expect("written"), 1);
    let rows: Vec<i64> = store.outgoing(at(10), 9).await.expect("read").iter().map(|row| row.id).collect();
    assert_eq!(rows[0], waiting);
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn words_are_as_old_as_their_last_revision_and_what_speaks_for_others_is_lost_with_them() {
    let (_folder, store) = store();
    let row = store.say(None, new("a"), at(0)).await.expect("written");
    store.say(None, revise(row, "b"), at(90)).await.expect("written");
    let others = [("c", 100), ("d", 110)];
    let mut rows = Vec::new();
    for (txn, second) in others {
        rows.push(store.say(None, new(txn), at(second)).await.expect("written"));
    }
    assert_eq!(store.outgoing(at(200), 9).await.expect("read")[0].created_at, at(90));
    store.merge(row, rows, "all".to_owned()).await.expect("written");
    let [joined] = &store.outgoing(at(200), 9).await.expect("read")[..] else { panic!("one row") };
    assert_eq!((joined.payload.as_str(), joined.created_at), ("all", at(110)));
    let fixed = store.try_parcel(row, false).await.expect("written").expect("it waits");
    assert_eq!(
        fixed,
        Fixed { txn: "am2".to_owned(), payload: "all".to_owned() },
        "not the event that the first was to be"
    );
    assert_eq!(store.say(None, new("a"), at(120)).await.expect("written"), row, "what is said once is said once");
    store.lost(row, true).await.expect("written");
    assert_eq!(store.losses().await.expect("read")[0].1.words, 3);

    // What was given up meanwhile takes nothing with it.
    let (gone, stays) = (store.say(None, new("e"), at(1)).await.expect("written"), new("f"));
    let stays = store.say(None, stays, at(1)).await.expect("written");
    store.dropped(gone).await.expect("written");
    store.merge(gone, vec![stays], "both".to_owned()).await.expect("written");
    let [left] = &store.outgoing(at(200), 9).await.expect("read")[..] else { panic!("one row") };
    assert_eq!(left.id, stays);
}
