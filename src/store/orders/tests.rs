use super::*;
use crate::store::tests::{Place, at, draft, received, revise};

fn order(id: i64, work: &str, remember: i32, words: Speech) -> Started {
    let (target, work) = ("k".to_owned(), work.to_owned());
    Started { id, target, work, remember: Some(remember), progress: Some(words), superseded: vec![] }
}

#[tokio::test]
async fn an_order_that_was_outdated_is_replaced_and_one_that_is_given_up_counts_for_nothing() {
    let place = Place::new();
    let store = place.open();
    let id = received(&store, "$a").await;
    let first = Speech::New(draft("first", "first"));
    let row = store.start(order(id, "1 → 0", 1, first), at(1)).await.expect("written").expect("words");
    let again = store.start(order(id, "3 → 0", 3, revise(row, "anew", "anew")), at(2)).await.expect("written");
    assert_eq!(again, Some(row), "one answer");
    let waiting = store.outgoing(at(3), 9).await.expect("read");
    assert_eq!(waiting.iter().map(|parcel| parcel.payload.as_str()).collect::<Vec<_>>(), ["anew"]);
    let unfinished = store.unfinished().await.expect("read");
    assert_eq!(unfinished[0].work.as_deref(), Some("3 → 0"), "what a kill leaves is the last");
    assert_eq!(store.past(id, "k").await.expect("read").remembered, Some(3));

    let before = Before { remembered: Some(5), watches: vec![] };
    let done = Done { given_up: Some(before), speech: Some(revise(row, "end", "end")), ..Done::silent(id, "failed") };
    store.finish(done, at(4)).await.expect("written");
    let history = store.history(None, 9).await.expect("read");
    assert_eq!((history[0].work.as_deref(), history[0].outcome.as_deref()), (None, Some("failed")));
    assert_eq!(history[0].started_at, None, "it overtakes nothing");
    assert_eq!(store.ordered("k", None, 9).await.expect("read"), [], "no order for the guard to judge");
    assert_eq!(store.past(id, "k").await.expect("read").remembered, Some(5), "what was before it holds again");
}

#[tokio::test]
async fn a_watch_goes_on_where_the_order_that_ended_it_is_given_up() {
    let place = Place::new();
    let store = place.open();
    let [older, ended, newer] =
        [received(&store, "$a").await, received(&store, "$b").await, received(&store, "$c").await];
    for id in [older, ended] {
        let watch = NewWatch { target: "k".to_owned(), payload: "{}".to_owned(), deadline: at(99) };
        let done = Done { target: Some("k".to_owned()), watch: Some(watch), ..Done::silent(id, "scaled 0 → 2") };
        store.finish(done, at(1)).await.expect("written");
    }
    let past = store.past(newer, "k").await.expect("read");
    assert_eq!(past.watches.len(), 2);
    // One comes to its end by itself just before.
    assert!(store.end_watch(ended, "scaled 0 → 2, done in 9 s".to_owned(), None, at(2)).await.expect("written"));
    let words = |id: i64| Speech::New(draft(&id.to_string(), ""));
    let superseded = vec![(older, words(older)), (ended, words(ended))];
    store.start(Started { superseded, ..order(newer, "2 → 0", 2, words(newer)) }, at(3)).await.expect("written");
    assert_eq!(store.watches().await.expect("read"), []);

    let watches = past.watches.iter().map(|watch| (watch.clone(), "scaled 0 → 2".to_owned())).collect();
    let given_up = Some(Before { remembered: None, watches });
    store.finish(Done { given_up, ..Done::silent(newer, "failed") }, at(4)).await.expect("written");
    let going_on: Vec<_> = past.watches.into_iter().filter(|watch| watch.inbox == older).collect();
    assert_eq!(store.watches().await.expect("read"), going_on, "as it was");
    let outcomes: Vec<_> = store.history(None, 9).await.expect("read").into_iter().map(|entry| entry.outcome).collect();
    let outcomes: Vec<_> = outcomes.iter().map(|outcome| outcome.as_deref().expect("an outcome")).collect();
    assert_eq!(outcomes, ["failed", "scaled 0 → 2, done in 9 s", "scaled 0 → 2"]);
    assert_eq!(store.past(newer, "k").await.expect("read").remembered, None);
}

#[tokio::test]
async fn an_order_that_was_carried_out_stays_on_record() {
    let place = Place::new();
    let store = place.open();
    let id = received(&store, "$a").await;
    let words = Speech::New(draft("first", "first"));
    store.start(order(id, "1 → 0", 1, words), at(1)).await.expect("written");
    store.finish(Done::silent(id, "failed: no answer"), at(2)).await.expect("written");
    assert_eq!(store.ordered("k", None, 9).await.expect("read")[0].work.as_deref(), Some("1 → 0"));
}
