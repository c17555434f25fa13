use crate::store::tests::{Place, arrival, at};

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
