use super::*;
use crate::store::inbox::Arrival;
use crate::store::orders::{Done, Started};
use crate::store::tests::{Place, arrival, at, received};

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
async fn a_command_is_overtaken_by_a_newer_one_that_had_its_turn_whatever_came_of_it() {
    for (came_of_it, overtaken) in [
        (outcome::UNCHANGED, true),
        ("failed: the ServiceAccount may not", true),
        ("scaled 0 → 1", true),
        (outcome::LEFT_ALONE, false),
    ] {
        let place = Place::new();
        let store = place.open();
        let late = received(&store, "$late").await;
        let newer = received(&store, "$newer").await;
        assert!(!store.past(late, "k").await.unwrap().overtaken, "nothing was looked at");
        let done = Done { target: Some("k".to_owned()), ..Done::silent(newer, came_of_it) };
        store.finish(done, at(1)).await.unwrap();
        assert_eq!(store.past(late, "k").await.unwrap().overtaken, overtaken, "{came_of_it}");
        assert!(!store.past(newer, "k").await.unwrap().overtaken);
        assert!(!store.past(late, "another").await.unwrap().overtaken);
    }
}

#[tokio::test]
async fn a_command_out_of_a_gap_is_overtaken_by_what_was_said_after_it() {
    // (the newer's sender, said and arrived at; then this one's sender, said at) -> whether it is overtaken
    for (newer, this, overtaken) in [
        (("@bert:hs", 60, 61), ("@anna:hs", 0), true),
        (("@bert:hs", 60, 61), ("@anna:hs", 55), false),
        (("@bert:hs", 60, 61), ("@anna:hs", 70), false),
        // A clock that is ahead: nothing was said after it arrived.
        (("@bert:hs", 10_000, 61), ("@anna:hs", 70), false),
        // The guard's clock is another, and it comes out of no gap.
        (("usage guard", 60, 61), ("@anna:hs", 0), false),
        (("@bert:hs", 60, 61), ("usage guard", 0), false),
    ] {
        let place = Place::new();
        let store = place.open();
        let said = async |event: &str, sender: &str, sent: i64, received: i64| {
            let arrival = Arrival { sent_at: at(sent), sender: sender.to_owned(), ..arrival(event) };
            store.receive(vec![arrival], None, at(received)).await.unwrap();
            store.received(10).await.unwrap().into_iter().find(|entry| entry.event == event).unwrap().id
        };
        let first = said("$newer", newer.0, newer.1, newer.2).await;
        let done = Done { target: Some("k".to_owned()), ..Done::silent(first, "scaled 0 → 1") };
        store.finish(done, at(newer.2)).await.unwrap();
        let id = said("$this", this.0, this.1, 100).await;
        assert_eq!(store.past(id, "k").await.unwrap().overtaken, overtaken, "{newer:?} {this:?}");
    }
}
