//! Steps on a real store: one transaction each, and the journal as the operator writes it.

use crate::chat::LAST_ROOM;
use crate::store::inbox::Entry;
use crate::store::orders::{Done, Started};
use crate::store::outcome;
use crate::store::tests::{Place, arrival};

use super::*;

fn guard() -> Guard {
    Guard::new(settings(vec![rule("night", "weekly_all", 90.0)]))
}

fn message(entry: &Entry) -> Message {
    serde_json::from_str(&entry.payload).unwrap()
}

async fn said(store: &Store) -> Vec<String> {
    let parcels = store.outgoing(at(1_000_000), 100).await.unwrap();
    parcels.into_iter().map(|parcel| serde_json::from_str::<Outgoing>(&parcel.payload).unwrap().plain).collect()
}

/// Does an order as the operator does.
async fn perform(store: &Store, entry: &Entry, from: i32, to: i32) {
    let work = serde_json::json!({ "change": { "scale": { "from": from, "to": to } } }).to_string();
    let target = "Deployment/apps/llama".to_owned();
    if from == to {
        let done = Done { target: Some(target), work: Some(work), ..Done::silent(entry.id, outcome::UNCHANGED) };
        store.finish(done, at(0)).await.unwrap();
        return;
    }
    let started = Started { id: entry.id, target, work, remember: None, progress: None, superseded: vec![] };
    store.start(started, at(0)).await.unwrap();
    store.finish(Done::silent(entry.id, "scaled"), at(0)).await.unwrap();
}

/// Something that a person says, in the inbox.
async fn hear(store: &Store, event: &str) -> Entry {
    let arrival = Arrival { sent_at: at(0), payload: "{}".to_owned(), ..arrival(event) };
    store.receive(vec![arrival], None, at(0)).await.unwrap();
    store.received(10).await.unwrap().pop().unwrap()
}

async fn step(store: &Store, cycle: i64, percent: f64, minute: i64) -> Stepped {
    guard().step(store, vec![view(WEEK, cycle, percent, minute)], at(minute)).await.unwrap()
}

#[tokio::test]
async fn a_step_writes_request_words_and_state_at_once_and_a_restart_goes_on() {
    let place = Place::new();
    let mut store = place.open();
    store.set_cursor(LAST_ROOM, "!room:hs").await.unwrap();
    assert_eq!(step(&store, 0, 95.0, 5).await, Stepped::default());
    // Each reopening stands for a kill.
    drop(store);
    store = place.open();
    assert_eq!(step(&store, 0, 95.0, 10).await, Stepped { requests: 1, notices: 1 });
    assert_eq!(step(&store, 0, 95.0, 10).await, Stepped::default());
    drop(store);
    store = place.open();
    let [entry] = store.received(10).await.unwrap().try_into().unwrap();
    assert!(entry.event.starts_with("guard/") && entry.sender == GUARD && entry.room == "!room:hs", "{entry:?}");
    let message = message(&entry);
    assert_eq!((message.who.as_str(), message.text.as_str()), (GUARD, "stop llama"));
    assert!(said(&store).await[0].contains("Stopping LLAMA until the reset"), "{:?}", said(&store).await);

    perform(&store, &entry, 2, 0).await;
    assert_eq!(step(&store, 0, 96.0, 15).await, Stepped::default());
    assert_eq!(step(&store, 100, 0.0, 20).await, Stepped { requests: 1, notices: 1 });
    let [start] = store.received(10).await.unwrap().try_into().unwrap();
    assert_eq!(self::message(&start).text, "start llama");
    perform(&store, &start, 0, 2).await;
    step(&store, 100, 0.0, 25).await;
    assert_eq!(store.guard(|ledger| Ok(ledger.states()?.len())).await.unwrap(), 0);
}

#[tokio::test]
async fn a_persons_word_in_the_journal_counts_from_the_guards_stop_on() {
    for (before, from, to, news) in [
        (false, 0, 2, Some("@alice:hs has started LLAMA")),
        (false, 0, 0, Some("@alice:hs has stopped LLAMA, too")),
        (true, 0, 2, None),
    ] {
        let place = Place::new();
        let store = place.open();
        store.set_cursor(LAST_ROOM, "!room:hs").await.unwrap();
        step(&store, 0, 95.0, 5).await;
        // What was said before the stop says nothing of it, even if it was split in parts after.
        let earlier = hear(&store, "$all").await;
        step(&store, 0, 95.0, 10).await;
        let stop = store.received(10).await.unwrap().into_iter().find(|entry| entry.sender == GUARD).unwrap();
        store.split(earlier.id, vec![("llama".to_owned(), "{}".to_owned())], at(10)).await.unwrap();
        let part = store.received(10).await.unwrap().into_iter().find(|entry| entry.event == "$all/llama").unwrap();
        let entry = if before { part } else { hear(&store, "$now").await };
        perform(&store, &stop, 2, 0).await;
        perform(&store, &entry, from, to).await;
        step(&store, 0, 95.0, 15).await;
        let told = said(&store).await;
        match news {
            Some(news) => assert!(told.last().unwrap().contains(news), "{told:?}"),
            None => assert_eq!(told.len(), 1, "{told:?}"),
        }
    }
}

#[tokio::test]
async fn without_a_room_the_limit_is_no_less_near() {
    let place = Place::new();
    let store = place.open();
    step(&store, 0, 95.0, 5).await;
    assert_eq!(step(&store, 0, 95.0, 10).await, Stepped { requests: 1, notices: 1 });
    assert_eq!(store.outbox_depth().await.unwrap(), 0);
    // The reason waits for the first room.
    assert_eq!(store.adopt("!room:hs", at(0)).await.unwrap(), 1);
    assert!(said(&store).await[0].contains("Stopping LLAMA until the reset"), "{:?}", said(&store).await);
}

#[tokio::test]
async fn what_is_done_is_told_at_once_and_what_is_not_lets_people_sleep() {
    let night = Hours::of("00:00-23:59").unwrap();
    let (fresh, old) = (view(WEEK, 0, 95.0, 10), view(WEEK, 0, 50.0, 10));
    // (acts, asked, muted, views at minute 5 and 10, minute of the look) -> how many words go out now, and later
    for (acts, asked, muted, view, minute, now, later) in [
        (true, true, false, &fresh, 10, 1, 1),
        (true, true, true, &fresh, 10, 1, 1),
        (false, true, false, &fresh, 10, 0, 1),
        (false, true, true, &fresh, 10, 0, 0),
        // Whoever is asked and does not answer leaves the guard blind: that is urgent, but no deed.
        (true, true, false, &old, 60, 1, 1),
        (true, true, true, &old, 60, 0, 0),
        (true, false, false, &old, 60, 0, 0),
    ] {
        let place = Place::new();
        let store = place.open();
        store.set_cursor(LAST_ROOM, "!room:hs").await.unwrap();
        if muted {
            store.mute(at(100_000)).await.unwrap();
        }
        let mut settings = settings(vec![Rule { acts, ..rule("night", "weekly_all", 90.0) }]);
        settings.quiet = Some(night);
        settings.pushed = if asked { vec![] } else { vec!["work".to_owned()] };
        let guard = Guard::new(settings);
        for view in [View { at: at(5), ..view.clone() }, view.clone()] {
            guard.step(&store, vec![view], at(minute)).await.unwrap();
        }
        let counted = (store.outgoing(at(minute), 9).await.unwrap().len(), said(&store).await.len());
        assert_eq!(counted, (now, later), "acts {acts}, asked {asked}, muted {muted}, minute {minute}");
    }
}
