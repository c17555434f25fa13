//! What the outbox gave up because too much waited, room by room, until the room was told.

use jiff::Timestamp;
use rusqlite::Transaction;

use super::outbox::{Draft, Speech, put_speech};
use super::{Store, StoreError};

/// Cursors with a room's number of words that were given up; the room's id follows.
const PREFIX: &str = "overflow/";

/// Adds to the number of a room; an empty id: words that had no room yet.
pub(super) fn note(tx: &Transaction<'_>, room: &str, rows: usize) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO cursor (name, token) VALUES (?1 || ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET token = token + excluded.token",
        (PREFIX, room, rows.to_string()),
    )?;
    Ok(())
}

/// Gives what was given up without a room to the first room that is known.
pub(super) fn adopt(tx: &Transaction<'_>, room: &str) -> Result<(), StoreError> {
    for rows in tx
        .prepare("DELETE FROM cursor WHERE name = ?1 RETURNING CAST(token AS INTEGER)")?
        .query_map([PREFIX], |row| row.get::<_, usize>(0))?
        .collect::<Result<Vec<_>, _>>()?
    {
        note(tx, room, rows)?;
    }
    Ok(())
}

impl Store {
    /// Lists the rooms that were not told yet how many words for them were given up, and have nothing waiting any more.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn overflowed(&self) -> Result<Vec<(String, usize)>, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare(
                "SELECT substr(name, length(?1) + 1) AS room, CAST(token AS INTEGER) FROM cursor
                 WHERE name > ?1 AND name < 'overflow0'
                   AND NOT EXISTS (SELECT 1 FROM outbox o
                                    WHERE o.state IN ('queued', 'trying') AND o.room = substr(name, length(?1) + 1))",
            )?;
            let rooms = statement.query_map([PREFIX], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rooms.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Puts the words about it into the queue and begins to count anew, unless the number has changed since it was read.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn tell_overflow(&self, given_up: usize, draft: Draft, now: Timestamp) -> Result<(), StoreError> {
        self.call(move |tx| {
            let cleared = tx.execute(
                "DELETE FROM cursor WHERE name = ?1 || ?2 AND token = ?3",
                (PREFIX, &draft.room, given_up.to_string()),
            )?;
            if cleared > 0 {
                put_speech(tx, None, &Speech::New(draft), now)?;
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::CAPACITY;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn draft(room: &str, txn: &str) -> Draft {
        Draft { txn: txn.to_owned(), room: room.to_owned(), payload: format!("words {txn}") }
    }

    async fn say(store: &Store, room: &str, txn: &str) {
        store.say(None, Speech::New(draft(room, txn)), at(0)).await.expect("written");
    }

    async fn drain(store: &Store) {
        for row in store.outgoing(at(0), u32::MAX).await.expect("read") {
            store.sent(row.id, "$event:x", at(1)).await.expect("written");
        }
    }

    #[tokio::test]
    async fn each_room_is_told_once_how_much_of_its_was_given_up_when_nothing_waits_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        for (room, txn) in [("!a:x", "a1"), ("!b:x", "b1"), ("!a:x", "a2"), ("", "c1")] {
            say(&store, room, txn).await;
        }
        for number in 0..CAPACITY {
            say(&store, "!a:x", &number.to_string()).await;
        }
        assert_eq!(store.outbox_dropped().await.expect("read"), 4);
        assert_eq!(store.overflowed().await.expect("read"), [("!b:x".to_owned(), 1)], "much waits for the other");
        drain(&store).await;
        let mut rooms = store.overflowed().await.expect("read");
        rooms.sort();
        assert_eq!(rooms, [("!a:x".to_owned(), 2), ("!b:x".to_owned(), 1)]);

        store.tell_overflow(1, draft("!a:x", "wrong"), at(2)).await.expect("written");
        assert!(store.outgoing(at(2), 9).await.expect("read").is_empty(), "the number is another one");
        store.tell_overflow(2, draft("!a:x", "told"), at(2)).await.expect("written");
        store.tell_overflow(2, draft("!a:x", "told again"), at(2)).await.expect("written");
        let waiting = store.outgoing(at(2), 9).await.expect("read");
        assert_eq!(waiting.iter().map(|row| row.txn.as_str()).collect::<Vec<_>>(), ["told"]);

        // What had no room is told in the first that is known.
        store.adopt("!b:x", at(0)).await.expect("written");
        assert_eq!(store.overflowed().await.expect("read"), [("!b:x".to_owned(), 2)]);
    }

    #[tokio::test]
    async fn words_that_found_no_room_for_too_long_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        say(&store, "", "old").await;
        assert_eq!(store.adopt("!a:x", at(1)).await.expect("written"), 0);
        assert_eq!(store.outbox_dropped().await.expect("read"), 1);
        assert!(store.overflowed().await.expect("read").is_empty(), "old news are no news");
    }
}
