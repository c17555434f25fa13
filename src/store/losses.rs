//! What the outbox gave up, room by room, until the room was told: too much waited, or it could not be sent.
//!
//! A loss is told by a message of its own, which may itself be given up. So each room's loss goes through three cursors:
//! `lost` (to be told), `telling` (its message is in the outbox) and `refused` (the homeserver did not take that message, and
//! it is tried again after the next words that pass).

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction};

use super::outbox::{Draft, Speech, put_speech};
use super::{Store, StoreError, put_cursor};

/// Begins the transaction id of the messages that tell of a loss.
pub const TXN: &str = "loss-";

/// Cursors with what was lost; the room's id follows.
const LOST: &str = "lost/";
/// Of whom the message about it waits to go out.
const TELLING: &str = "telling/";
/// Where even that was refused.
const REFUSED: &str = "refused/";

/// What a room did not get to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Messages, and news of messages.
    pub words: usize,
    /// When the first of them was written.
    pub since: Timestamp,
}

impl Loss {
    fn and(self, other: Self) -> Self {
        Self { words: self.words + other.words, since: self.since.min(other.since) }
    }

    fn token(self) -> String {
        format!("{} {}", self.words, self.since.as_millisecond())
    }

    fn parse(token: &str) -> Option<Self> {
        let (words, since) = token.split_once(' ')?;
        let since = Timestamp::from_millisecond(since.parse().ok()?).ok()?;
        Some(Self { words: words.parse().ok()?, since })
    }
}

/// Why a row is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// There was no place or no way for it: what tells of it is tried again.
    Crowded,
    /// The homeserver does not take it: what tells of it waits for words that pass.
    Refused,
}

/// Reads and removes what one of the cursors holds for a room.
fn take(tx: &Transaction<'_>, cursor: &str, room: &str) -> Result<Option<Loss>, StoreError> {
    let sql = "DELETE FROM cursor WHERE name = ?1 || ?2 RETURNING token";
    let token: Option<String> = tx.query_row(sql, (cursor, room), |row| row.get(0)).optional()?;
    Ok(token.as_deref().and_then(Loss::parse))
}

/// Adds to what one of the cursors holds for a room; an empty id: words that had no room yet.
fn add(tx: &Transaction<'_>, cursor: &str, room: &str, loss: Loss) -> Result<(), StoreError> {
    let before = take(tx, cursor, room)?;
    let all = before.map_or(loss, |before| before.and(loss));
    put_cursor(tx, &format!("{cursor}{room}"), &all.token())
}

/// Moves what one cursor holds for a room to another.
fn shift(tx: &Transaction<'_>, from: &str, to: &str, room: &str) -> Result<(), StoreError> {
    match take(tx, from, room)? {
        Some(loss) => add(tx, to, room, loss),
        None => Ok(()),
    }
}

/// Room and transaction id of a row of the outbox, and what is lost with it: the rows that it speaks for, too.
fn row(tx: &Transaction<'_>, id: i64) -> Result<(String, String, Loss), StoreError> {
    let sql = "SELECT room, txn, 1 + joined AS words, created_at FROM outbox WHERE id = ?1";
    Ok(tx.query_row(sql, [id], |row| {
        let loss = Loss { words: row.get("words")?, since: super::time(row, "created_at")? };
        Ok((row.get("room")?, row.get("txn")?, loss))
    })?)
}

/// Notes that a row is given up. Where it told of a loss, that is not told yet.
pub(super) fn note(tx: &Transaction<'_>, id: i64, cause: Cause) -> Result<(), StoreError> {
    let (room, txn, loss) = row(tx, id)?;
    if !txn.starts_with(TXN) {
        return add(tx, LOST, &room, loss);
    }
    let to = if cause == Cause::Refused { REFUSED } else { LOST };
    shift(tx, TELLING, to, &room)
}

/// Notes that a row is in its room: the homeserver takes words for it, so a loss that it refused to tell may be told.
pub(super) fn passed(tx: &Transaction<'_>, id: i64) -> Result<(), StoreError> {
    let (room, txn, _) = row(tx, id)?;
    if txn.starts_with(TXN) {
        take(tx, TELLING, &room)?;
    }
    shift(tx, REFUSED, LOST, &room)
}

/// Gives what was lost without a room to the first room that is known.
pub(super) fn adopt(tx: &Transaction<'_>, room: &str) -> Result<(), StoreError> {
    match take(tx, LOST, "")? {
        Some(loss) => add(tx, LOST, room, loss),
        None => Ok(()),
    }
}

impl Store {
    /// Lists the rooms that were not told yet of what they lost, and have nothing waiting any more.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn losses(&self) -> Result<Vec<(String, Loss)>, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare(
                "SELECT substr(name, length(?1) + 1) AS room, token FROM cursor WHERE name > ?1 AND name < 'lost0'
                   AND NOT EXISTS (SELECT 1 FROM outbox o
                                    WHERE o.state IN ('queued', 'trying') AND o.room = substr(name, length(?1) + 1))",
            )?;
            let rooms = statement.query_map([LOST], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
            let rooms = rooms.collect::<Result<Vec<_>, _>>()?;
            Ok(rooms.into_iter().filter_map(|(room, token)| Some((room, Loss::parse(&token)?))).collect())
        })
        .await
    }

    /// Puts the words about it into the queue, unless something was lost since it was read. The transaction id begins with
    /// [`TXN`].
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn tell_loss(&self, loss: Loss, draft: Draft, now: Timestamp) -> Result<(), StoreError> {
        self.call(move |tx| {
            let sql = "DELETE FROM cursor WHERE name = ?1 || ?2 AND token = ?3";
            if tx.execute(sql, (LOST, &draft.room, loss.token()))? > 0 {
                add(tx, TELLING, &draft.room, loss)?;
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

    fn lost(room: &str, words: usize, since: i64) -> (String, Loss) {
        (room.to_owned(), Loss { words, since: at(since) })
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        (folder, store)
    }

    async fn say(store: &Store, room: &str, txn: &str, second: i64) -> i64 {
        store.say(None, Speech::New(draft(room, txn)), at(second)).await.expect("written")
    }

    async fn losses(store: &Store) -> Vec<(String, Loss)> {
        let mut rooms = store.losses().await.expect("read");
        rooms.sort_by(|(one, _), (other, _)| one.cmp(other));
        rooms
    }

    async fn waiting(store: &Store) -> Vec<String> {
        let rows = store.outgoing(at(1_000_000), u32::MAX).await.expect("read");
        rows.into_iter().map(|row| row.txn).collect()
    }

    #[tokio::test]
    async fn each_room_is_told_once_how_much_it_lost_when_nothing_waits_for_it() {
        let (_folder, store) = store();
        for (second, (room, txn)) in [("!a:x", "a1"), ("!b:x", "b1"), ("!a:x", "a2"), ("", "c1")].iter().enumerate() {
            say(&store, room, txn, i64::try_from(second).expect("small")).await;
        }
        for number in 0..CAPACITY {
            say(&store, "!a:x", &number.to_string(), 9).await;
        }
        assert_eq!(store.outbox_dropped().await.expect("read"), 4);
        assert_eq!(losses(&store).await, [lost("!b:x", 1, 1)], "much waits for the other");
        for row in store.outgoing(at(9), u32::MAX).await.expect("read") {
            store.sent(row.id, "$event:x", at(10)).await.expect("written");
        }
        assert_eq!(losses(&store).await, [lost("!a:x", 2, 0), lost("!b:x", 1, 1)]);

        let tell = async |words, txn: &str| {
            let loss = Loss { words, since: at(0) };
            store.tell_loss(loss, draft("!a:x", &format!("{TXN}{txn}")), at(11)).await.expect("written");
        };
        tell(1, "wrong").await;
        assert_eq!(waiting(&store).await, Vec::<String>::new(), "the number is another one");
        tell(2, "told").await;
        tell(2, "told again").await;
        assert_eq!(waiting(&store).await, ["loss-told"]);

        // What had no room is told in the first that is known.
        store.adopt("!b:x", at(0)).await.expect("written");
        assert_eq!(losses(&store).await, [lost("!b:x", 2, 1)]);
    }

    #[tokio::test]
    async fn what_tells_of_a_loss_is_no_loss_and_is_told_again_where_it_was_given_up() {
        let (_folder, store) = store();
        let tell = async |loss: Loss, txn: &str| {
            store.tell_loss(loss, draft("!a:x", &format!("{TXN}{txn}")), at(20)).await.expect("written");
            let [row] = &store.outgoing(at(20), 9).await.expect("read")[..] else { panic!("one row") };
            row.id
        };
        for (second, txn) in [(1, "a1"), (2, "a2")] {
            let row = say(&store, "!a:x", txn, second).await;
            store.lost(row, false).await.expect("written");
        }
        let all = Loss { words: 2, since: at(1) };
        assert_eq!(losses(&store).await, [("!a:x".to_owned(), all)]);

        // It could not be sent either, for a day.
        let row = tell(all, "one").await;
        store.lost(row, false).await.expect("written");
        assert_eq!(losses(&store).await, [("!a:x".to_owned(), all)]);

        // It is refused, and waits until something passes; what is lost meanwhile is added.
        let row = tell(all, "two").await;
        store.lost(row, true).await.expect("written");
        assert_eq!(losses(&store).await, []);
        let row = say(&store, "!a:x", "a3", 3).await;
        store.lost(row, true).await.expect("written");
        let row = tell(Loss { words: 1, since: at(3) }, "three").await;
        store.lost(row, true).await.expect("written");
        assert_eq!(losses(&store).await, []);
        let row = say(&store, "!a:x", "a4", 4).await;
        store.sent(row, "$event:x", at(5)).await.expect("written");
        let all = Loss { words: 3, since: at(1) };
        assert_eq!(losses(&store).await, [("!a:x".to_owned(), all)]);

        let row = tell(all, "four").await;
        store.sent(row, "$event:x", at(6)).await.expect("written");
        let row = say(&store, "!a:x", "a5", 7).await;
        store.sent(row, "$event:x", at(8)).await.expect("written");
        assert_eq!(losses(&store).await, [], "told once");
    }

    #[tokio::test]
    async fn a_row_that_has_no_reader_is_no_loss() {
        let (_folder, store) = store();
        let row = say(&store, "!a:x", "a1", 1).await;
        store.dropped(row).await.expect("written");
        assert_eq!((losses(&store).await, store.outbox_dropped().await.expect("read")), (vec![], 1));
    }

    #[tokio::test]
    async fn words_that_found_no_room_for_too_long_are_counted() {
        let (_folder, store) = store();
        say(&store, "", "old", 0).await;
        assert_eq!(store.adopt("!a:x", at(1)).await.expect("written"), 0);
        assert_eq!(store.outbox_dropped().await.expect("read"), 1);
        assert_eq!(losses(&store).await, [], "old news are no news");
    }
}
