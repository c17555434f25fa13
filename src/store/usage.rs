//! What asking for the subscription must not forget: how it went, and refresh tokens that are not written back yet.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, Row};

use super::{Store, StoreError, moment, time};

/// A push this much older than the newest one is no replay: the clock here was ahead when that came.
const CLOCK_SET_BACK: SignedDuration = SignedDuration::from_mins(11);

/// How asking for one account went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// JSON of the answer that is kept: the last good one, or what somebody else told ([`Store::note_told`]).
    pub snapshot: Option<String>,
    /// When the source that is asked for this row last answered well; what is told unasked does not move it.
    pub good_at: Option<Timestamp>,
    /// When the provider was last asked.
    pub tried_at: Option<Timestamp>,
    /// Until when the provider wants to be left alone.
    pub blocked_until: Option<Timestamp>,
    /// Failures since the last good answer.
    pub failures: u32,
    /// Why the last one failed, for people; `None` after a good answer.
    pub trouble: Option<String>,
    /// `sent_at` of the newest push that was taken.
    pub pushed_at: Option<Timestamp>,
}

/// One question and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// JSON of a good answer; `None` keeps the earlier one.
    pub snapshot: Option<String>,
    /// Until when the provider wants to be left alone.
    pub blocked_until: Option<Timestamp>,
    /// Failures since the last good answer, this one included.
    pub failures: u32,
    /// Why it failed, for people.
    pub trouble: Option<String>,
}

/// What becomes of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is the newest, and noted as such.
    Taken,
    /// One that was sent then or later was taken before.
    NotNewer,
    /// It is newer, but the one before was sent shortly ago.
    TooSoon,
}

/// The tokens that followed a refresh token which the provider takes no more.
#[derive(Clone, PartialEq, Eq)]
pub struct Successor {
    /// SHA-256 of the refresh token that was used up, in hexadecimal digits.
    pub parent: String,
    /// JSON of the owner's type: secret.
    pub successor: String,
    /// When the provider gave it out.
    pub at: Timestamp,
}

impl std::fmt::Debug for Successor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Successor").field("parent", &self.parent).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Store {
    /// Reads how asking for an account went; everything is empty where nobody has asked yet.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn account(&self, account: &str) -> Result<Account, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            let row = tx
                .query_row(
                    "SELECT snapshot, good_at, tried_at, blocked_until, failures, trouble, pushed_at
                       FROM usage_account WHERE account = ?1",
                    [account],
                    |row| {
                        Ok(Account {
                            snapshot: row.get("snapshot")?,
                            good_at: moment(row, "good_at")?,
                            tried_at: moment(row, "tried_at")?,
                            blocked_until: moment(row, "blocked_until")?,
                            failures: row.get("failures")?,
                            trouble: row.get("trouble")?,
                            pushed_at: moment(row, "pushed_at")?,
                        })
                    },
                )
                .optional()?;
            Ok(row.unwrap_or_default())
        })
        .await
    }

    /// Notes that the provider was asked, and how that ended.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn note_asked(&self, account: &str, asked: Asked, now: Timestamp) -> Result<(), StoreError> {
        let account = account.to_owned();
        self.call(move |tx| {
            let now = now.as_millisecond();
            let good_at = asked.snapshot.as_ref().map(|_| now);
            let blocked = asked.blocked_until.map(Timestamp::as_millisecond);
            tx.execute(
                "INSERT INTO usage_account (account, snapshot, good_at, tried_at, blocked_until, failures, trouble)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT (account) DO UPDATE SET
                     snapshot = coalesce(?2, snapshot), good_at = coalesce(?3, good_at), tried_at = ?4,
                     blocked_until = ?5, failures = ?6, trouble = ?7",
                (account, asked.snapshot, good_at, now, blocked, asked.failures, asked.trouble),
            )?;
            Ok(())
        })
        .await
    }

    /// Notes a push if it was sent later than every one before, and at least `gap` after the last.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written: it is not taken.
    pub async fn note_pushed(
        &self,
        account: &str,
        sent_at: Timestamp,
        gap: SignedDuration,
    ) -> Result<Pushed, StoreError> {
        let account = account.to_owned();
        self.call(move |tx| {
            let last: Option<i64> = tx
                .query_row("SELECT pushed_at FROM usage_account WHERE account = ?1", [&account], |row| row.get(0))
                .optional()?
                .flatten();
            let sent = sent_at.as_millisecond();
            // Both are within minutes of the clock here: a time far ahead is of a clock that was set back since.
            match last.filter(|last| i128::from(last - sent) < CLOCK_SET_BACK.as_millis()) {
                Some(last) if sent <= last => return Ok(Pushed::NotNewer),
                Some(last) if i128::from(sent - last) < gap.as_millis() => return Ok(Pushed::TooSoon),
                _ => {}
            }
            tx.execute(
                "INSERT INTO usage_account (account, pushed_at) VALUES (?1, ?2)
                   ON CONFLICT (account) DO UPDATE SET pushed_at = ?2",
                (account, sent),
            )?;
            Ok(Pushed::Taken)
        })
        .await
    }

    /// Keeps what followed a refresh token: on the disk before this returns.
    ///
    /// # Errors
    /// [`StoreError`]: it is not kept.
    pub async fn keep_successor(&self, account: &str, kept: Successor) -> Result<(), StoreError> {
        let account = account.to_owned();
        self.call(move |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO usage_successor (account, parent, successor, at) VALUES (?1, ?2, ?3, ?4)",
                (account, kept.parent, kept.successor, kept.at.as_millisecond()),
            )?;
            Ok(())
        })
        .await
    }

    /// Reads what was kept and not dropped.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn successor(&self, account: &str) -> Result<Option<Successor>, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            let read =
                |row: &Row<'_>| Ok(Successor { parent: row.get(0)?, successor: row.get(1)?, at: time(row, "at")? });
            let sql = "SELECT parent, successor, at FROM usage_successor WHERE account = ?1";
            Ok(tx.query_row(sql, [account], read).optional()?)
        })
        .await
    }

    /// Forgets what followed the refresh token `parent`: it is written back, or a newer login has come.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn drop_successor(&self, account: &str, parent: &str) -> Result<(), StoreError> {
        let (account, parent) = (account.to_owned(), parent.to_owned());
        self.call(move |tx| {
            tx.execute("DELETE FROM usage_successor WHERE account = ?1 AND parent = ?2", (account, parent))?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn open(folder: &tempfile::TempDir) -> Store {
        Store::open(&folder.path().join("store.sqlite3")).unwrap()
    }

    #[tokio::test]
    async fn the_last_good_answer_outlives_failures_and_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        assert_eq!(store.account("work").await.unwrap(), Account::default());
        let good = Asked { snapshot: Some("{}".to_owned()), ..Asked::default() };
        store.note_asked("work", good, at(0)).await.unwrap();
        let blocked = Asked {
            blocked_until: Some(at(4_500)),
            failures: 1,
            trouble: Some("asked too often".to_owned()),
            ..Asked::default()
        };
        store.note_asked("work", blocked, at(300)).await.unwrap();
        store.note_pushed("work", at(310), SignedDuration::ZERO).await.unwrap();
        // The clock was set back: what comes later is no replay.
        store.note_pushed("desk", at(3_600), SignedDuration::ZERO).await.unwrap();
        assert_eq!(store.note_pushed("desk", at(3_590), SignedDuration::ZERO).await.unwrap(), Pushed::NotNewer);
        assert_eq!(store.note_pushed("desk", at(600), SignedDuration::ZERO).await.unwrap(), Pushed::Taken);
        drop(store);
        let account = open(&folder).account("work").await.unwrap();
        let expected = Account {
            snapshot: Some("{}".to_owned()),
            good_at: Some(at(0)),
            tried_at: Some(at(300)),
            blocked_until: Some(at(4_500)),
            failures: 1,
            trouble: Some("asked too often".to_owned()),
            pushed_at: Some(at(310)),
        };
        assert_eq!(account, expected);
    }

    #[tokio::test]
    async fn a_push_is_taken_once_and_never_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let gap = SignedDuration::from_secs(5);
        for (sent, becomes) in [
            (10, Pushed::Taken),
            (10, Pushed::NotNewer),
            (9, Pushed::NotNewer),
            (14, Pushed::TooSoon),
            (15, Pushed::Taken),
        ] {
            assert_eq!(store.note_pushed("work", at(sent), gap).await.unwrap(), becomes, "{sent}");
        }
        assert_eq!(store.note_pushed("private", at(1), gap).await.unwrap(), Pushed::Taken);
        assert_eq!(store.account("work").await.unwrap().pushed_at, Some(at(15)));
    }

    #[tokio::test]
    async fn a_successor_is_kept_until_exactly_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let kept = |parent: &str| Successor { parent: parent.to_owned(), successor: "secret".to_owned(), at: at(0) };
        store.keep_successor("work", kept("a")).await.unwrap();
        drop(store);
        let store = open(&folder);
        assert_eq!(store.successor("work").await.unwrap(), Some(kept("a")));
        assert!(!format!("{:?}", kept("a")).contains("secret"));
        store.keep_successor("work", kept("b")).await.unwrap();
        store.drop_successor("work", "a").await.unwrap();
        assert_eq!(store.successor("work").await.unwrap(), Some(kept("b")));
        store.drop_successor("work", "b").await.unwrap();
        assert_eq!(store.successor("work").await.unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_but_the_owner_reads_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite3");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        drop(open(&folder));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
