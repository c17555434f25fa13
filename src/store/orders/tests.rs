use super::*;
use crate::store::inbox::State;
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
    assert_eq!(history[0].started_at, None, "no order is on record");
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
