use super::*;
use crate::store::orders::{Done, Started};
use crate::store::outbox::Speech;
use crate::store::tests::{Place, at, draft, received, revise};

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
