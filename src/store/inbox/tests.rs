use super::*;
use crate::store::outbox::Draft;
use crate::store::tests::Place;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

async fn received(store: &Store) -> i64 {
    let arrival = Arrival {
        event: "$a".to_owned(),
        room: "!room:hs".to_owned(),
        sender: "@alice:hs".to_owned(),
        sent_at: at(0),
        payload: "{}".to_owned(),
        waiting_for: None,
    };
    store.receive(vec![arrival], None, at(0)).await.expect("written");
    store.received(1).await.expect("read")[0].id
}

fn order(id: i64, work: &str, remember: i32, words: Speech) -> Started {
    let (target, work) = ("k".to_owned(), work.to_owned());
    Started { id, target, work, remember: Some(remember), progress: Some(words), superseded: vec![] }
}

fn revise(row: i64, txn: &str) -> Speech {
    Speech::Revise { row, room: "!room:hs".to_owned(), txn: txn.to_owned(), payload: txn.to_owned() }
}

#[tokio::test]
async fn an_order_that_was_outdated_is_replaced_and_one_that_is_given_up_counts_for_nothing() {
    let place = Place::new();
    let store = place.open();
    let id = received(&store).await;
    let first = Draft { txn: "first".to_owned(), room: "!room:hs".to_owned(), payload: "first".to_owned() };
    let row = store.start(order(id, "1 → 0", 1, Speech::New(first)), at(1)).await.expect("written").expect("words");
    let again = store.start(order(id, "3 → 0", 3, revise(row, "anew")), at(2)).await.expect("written");
    assert_eq!(again, Some(row), "one answer");
    let waiting = store.outgoing(at(3), 9).await.expect("read");
    assert_eq!(waiting.iter().map(|parcel| parcel.payload.as_str()).collect::<Vec<_>>(), ["anew"]);
    let unfinished = store.unfinished().await.expect("read");
    assert_eq!(unfinished[0].work.as_deref(), Some("3 → 0"), "what a kill leaves is the last");
    assert_eq!(store.past(id, "k").await.expect("read").remembered, Some(3));

    let done = Done { given_up: true, speech: Some(revise(row, "end")), ..Done::silent(id, "failed") };
    store.finish(done, at(4)).await.expect("written");
    let history = store.history(None, 9).await.expect("read");
    assert_eq!((history[0].work.as_deref(), history[0].outcome.as_deref()), (None, Some("failed")));
    assert_eq!(store.ordered("k", None, 9).await.expect("read"), [], "no order for the guard to judge");
}

#[tokio::test]
async fn an_order_that_was_carried_out_stays_on_record() {
    let place = Place::new();
    let store = place.open();
    let id = received(&store).await;
    let words = Draft { txn: "first".to_owned(), room: "!room:hs".to_owned(), payload: "first".to_owned() };
    store.start(order(id, "1 → 0", 1, Speech::New(words)), at(1)).await.expect("written");
    store.finish(Done::silent(id, "failed: no answer"), at(2)).await.expect("written");
    assert_eq!(store.ordered("k", None, 9).await.expect("read")[0].work.as_deref(), Some("1 → 0"));
}
