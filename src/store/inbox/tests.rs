use super::*;
use crate::store::orders::{Done, Started};
use crate::store::outbox::Speech;
use crate::store::tests::{Place, arrival, at, draft, received};

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
async fn the_depth_counts_what_can_be_looked_at_until_something_came_of_it() {
    let place = Place::new();
    let store = place.open();
    let sealed = Arrival { waiting_for: Some("session".to_owned()), ..arrival("$sealed") };
    store.receive(vec![sealed], None, at(0)).await.expect("written");
    assert_eq!(store.inbox_depth().await.expect("read"), 0, "its key is missing");
    let id = received(&store, "$a").await;
    assert_eq!(store.inbox_depth().await.expect("read"), 1);
    let started = Started {
        id,
        target: "k".to_owned(),
        work: "0 → 1".to_owned(),
        remember: None,
        progress: Some(Speech::New(draft("a", "a"))),
        superseded: vec![],
    };
    store.start(started, at(1)).await.expect("written");
    assert_eq!(store.inbox_depth().await.expect("read"), 1, "it is in work");
    store.finish(Done::silent(id, "scaled 0 → 1"), at(2)).await.expect("written");
    let sealed = store.waiting().await.expect("read")[0].id;
    store.revive(sealed, "{}".to_owned()).await.expect("written");
    assert_eq!(store.inbox_depth().await.expect("read"), 1, "its key has come");
}
