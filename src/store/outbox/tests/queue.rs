use super::*;
use crate::store::orders::{Done, Started};
use crate::store::tests::{Place, at, draft, received, revise};

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
async fn later_news_of_a_merged_row_is_one_event_however_much_comes() {
    let place = Place::new();
    let store = place.open();
    let (one, other) = (received(&store, "$one").await, received(&store, "$other").await);
    let mut rows = Vec::new();
    for (id, txn) in [(one, "t1"), (other, "t2")] {
        let speech = Some(Speech::New(draft(txn, txn)));
        rows.push(store.finish(Done { speech, ..Done::silent(id, "x") }, at(1)).await.unwrap().unwrap());
    }
    store.merge(rows[0], rows[1..].to_vec(), "all".to_owned()).await.unwrap();
    // What nobody has read yet is replaced, what is in the room is edited.
    for (id, row) in [(one, rows[0]), (other, rows[1])] {
        let say = async |n: i64| store.say(Some(id), revise(row, &format!("{id}/{n}"), &format!("{n}")), at(n)).await;
        let own = say(2).await.unwrap();
        assert_eq!(say(3).await.unwrap(), own);
        store.try_parcel(own, false).await.unwrap();
        store.sent(own, "$event", at(3)).await.unwrap();
        assert_eq!(say(4).await.unwrap(), own);
        assert_eq!(say(5).await.unwrap(), own);
        let waiting = store.outgoing(at(5), 10).await.unwrap();
        let edits: Vec<_> =
            waiting.iter().filter(|parcel| parcel.inbox == Some(id) && parcel.edits.is_some()).collect();
        assert_eq!(edits.len(), 1, "{waiting:#?}");
        assert_eq!((edits[0].edits.as_ref().unwrap().row, edits[0].payload.as_str()), (own, "5"));
    }
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
