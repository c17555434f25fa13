//! Pilothouse's own memory: one SQLite file beside the Matrix store, and the only SQL.
//!
//! Whatever came in ([`inbox`]) and must go out ([`outbox`]) survives a kill at any instant. A method that writes is one
//! transaction, and it is on the disk before the method returns (WAL, `synchronous = FULL`). Three kinds of writes are not
//! synced, because a power cut that takes them back does no harm: *arrivals* (the sync position is taken back with them, so that
//! they arrive again), what [`replay`] has sighted of them (written right before), and *answers to commands that changed nothing*
//! (such a command is answered again under the same transaction id, which the homeserver takes for the same event).
//!
//! What only reads has a connection of its own and never waits for a writer. The payloads that the queues carry are JSON of
//! their owners' types; the store does not look inside.

pub mod falls;
pub mod gaps;
pub mod guard;
pub mod history;
pub mod inbox;
pub mod losses;
pub mod memory;
pub mod orders;
pub mod outbox;
pub mod outcome;
pub mod pins;
pub mod replay;
pub mod samples;
pub mod unindexed;
pub mod usage;
pub mod watches;

use std::cmp::Ordering;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior};

use self::outbox::Speech;

/// Cursor that says since when a daemon works with the file.
const BEGUN: &str = "begun";

/// Version of the schema that this build writes.
pub const SCHEMA_VERSION: i64 = 3;

/// How long a statement waits for another process's.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// What can go wrong between Pilothouse and its memory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused: disk full, read-only.
    #[error("the store could not be read or written: {0}")]
    Sqlite(rusqlite::Error),
    /// The file is no database, or damaged.
    #[error(
        "pilothouse.sqlite3 is damaged: {0}. Put it aside with its -wal and -shm (pins, history and remembered replicas are lost then), \
         and the next start begins it anew; compare everybody's keys with `trust` after that"
    )]
    Damaged(rusqlite::Error),
    /// The file was written by a newer Pilothouse.
    #[error("the store has schema {found}, this Pilothouse knows up to {SCHEMA_VERSION}: run the newer version again")]
    TooNew {
        /// The file's version.
        found: i64,
    },
    /// The file was written by an older Pilothouse, which may still run on it.
    #[error(
        "the store has schema {found}, and this Pilothouse reads {SCHEMA_VERSION}: an older one may still run on it, so it was left \
         alone; start the daemon of this version, which brings it up, or use the older one's own subcommands"
    )]
    Older {
        /// The file's version.
        found: i64,
    },
    /// The thread that ran the statement panicked, or the process is ending.
    #[error("the store's task did not end: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged(error),
            _ => Self::Sqlite(error),
        }
    }
}

/// A handle to the open file; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens the file, makes it where there is none and brings an older one up to [`SCHEMA_VERSION`].
    ///
    /// # Errors
    /// [`StoreError::TooNew`] for a newer file, [`StoreError::Sqlite`] or [`StoreError::Damaged`] where it cannot be used.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        restrict(path);
        let mut writer = connect(path)?;
        migrate(&mut writer)?;
        Self::with(path, writer)
    }

    /// Opens a file that another process may be working on, and leaves its schema as it is.
    ///
    /// # Errors
    /// [`StoreError::Older`] and [`StoreError::TooNew`] for a file of another version, [`StoreError::Sqlite`] where it
    /// cannot be opened.
    pub fn open_beside(path: &Path) -> Result<Self, StoreError> {
        let writer = connect(path)?;
        let found: i64 = writer.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match found.cmp(&SCHEMA_VERSION) {
            Ordering::Less => Err(StoreError::Older { found }),
            Ordering::Greater => Err(StoreError::TooNew { found }),
            Ordering::Equal => Self::with(path, writer),
        }
    }

    fn with(path: &Path, writer: Connection) -> Result<Self, StoreError> {
        let reader = connect(path)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self { writer: Arc::new(Mutex::new(writer)), reader: Arc::new(Mutex::new(reader)) })
    }

    /// Runs one transaction that may write, on a thread that may block.
    async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let work = |writer: &mut Connection| {
            writer.pragma_update(None, "synchronous", "FULL")?;
            // Immediate: two processes (the daemon and `pilothouse trust`) never deadlock on an upgrade.
            transact(writer, TransactionBehavior::Immediate, work)
        };
        on(Arc::clone(&self.writer), work).await
    }

    /// As [`Store::call`], without waiting for the disk: a power cut may take it back until the next `call` that writes has
    /// returned, which brings both to the disk, in their order. For what means nothing without that next one.
    async fn call_unsynced<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let work = |writer: &mut Connection| {
            writer.pragma_update(None, "synchronous", "NORMAL")?;
            transact(writer, TransactionBehavior::Immediate, work)
        };
        on(Arc::clone(&self.writer), work).await
    }

    /// Runs one transaction that only reads: it sees all that was written before, and waits for no writer.
    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let work = |reader: &mut Connection| transact(reader, TransactionBehavior::Deferred, work);
        on(Arc::clone(&self.reader), work).await
    }

    /// Proves that the store can be written: `/readyz` asks.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.call(|tx| {
            tx.execute(
                "INSERT INTO cursor (name, token) VALUES ('probe', '') ON CONFLICT (name) DO UPDATE SET token = ''",
                [],
            )?;
            Ok(())
        })
        .await
    }

    /// Reads a named position: `sync` is the acknowledged sync token.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn cursor(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.read(move |tx| {
            Ok(tx.query_row("SELECT token FROM cursor WHERE name = ?1", [name], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Writes a named position.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn set_cursor(&self, name: &str, token: &str) -> Result<(), StoreError> {
        let (name, token) = (name.to_owned(), token.to_owned());
        self.call(move |tx| put_cursor(tx, &name, &token)).await
    }

    /// Replaces a position where it still is what it was seen to be.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn move_cursor(&self, name: &str, from: &str, to: &str) -> Result<(), StoreError> {
        let (name, from, to) = (name.to_owned(), from.to_owned(), to.to_owned());
        self.call(move |tx| {
            tx.execute("UPDATE cursor SET token = ?3 WHERE name = ?1 AND token = ?2", (&name, &from, &to))?;
            Ok(())
        })
        .await
    }

    /// Whether a daemon has worked with this file: see [`Store::begin`].
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn has_begun(&self) -> Result<bool, StoreError> {
        Ok(self.cursor(BEGUN).await?.is_some())
    }

    /// Notes that a daemon works with this file, the first time. `used`: its volume was in use before. Where nothing is known
    /// here of that time, the file is not the one of then: says so, and puts `words` into the outbox, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn begin(&self, used: bool, words: Speech, now: Timestamp) -> Result<bool, StoreError> {
        self.call(move |tx| {
            let is = |question: &str| tx.query_row(question, [], |row| row.get::<_, bool>(0));
            if tx.prepare("SELECT 1 FROM cursor WHERE name = ?1")?.exists([BEGUN])? {
                return Ok(false);
            }
            let lost = used && is("SELECT NOT EXISTS (SELECT 1 FROM pin) AND NOT EXISTS (SELECT 1 FROM inbox)")?;
            put_cursor(tx, BEGUN, &now.to_string())?;
            if lost {
                outbox::put_speech(tx, None, &words, now)?;
            }
            Ok(lost)
        })
        .await
    }

    /// Moves the write-ahead log into the file: the last act before the process ends.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn close(&self) -> Result<(), StoreError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

/// Has a connection to itself on a thread that may block.
async fn on<T, F>(connection: Arc<Mutex<Connection>>, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
{
    tokio::task::spawn_blocking(move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))).await?
}

fn transact<T>(
    connection: &mut Connection,
    behavior: TransactionBehavior,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = connection.transaction_with_behavior(behavior)?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Tokens that were kept for a moment do not stay behind in free pages.
    connection.pragma_update(None, "secure_delete", true)?;
    // An image from scratch has no writable folder for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// Leaves the file to its owner: it may hold a refresh token for a moment. SQLite gives its side files the same mode. Some
/// volumes know no modes; whether the file can be used at all is for SQLite to say.
#[cfg(unix)]
fn restrict(path: &Path) {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let opened = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    if let Ok(file) = opened {
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
    }
}

#[cfg(not(unix))]
fn restrict(_path: &Path) {}

fn claim(tx: &Transaction<'_>, key: &str, now: Timestamp, every: jiff::SignedDuration) -> Result<bool, StoreError> {
    let last: Option<i64> = tx.query_row("SELECT at FROM notice WHERE key = ?1", [key], |row| row.get(0)).optional()?;
    // What a clock that was ahead has noted counts as old.
    let due = last.is_none_or(|last| i128::from(now.as_millisecond().abs_diff(last)) >= every.as_millis());
    if due {
        tx.execute(
            "INSERT INTO notice (key, at) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET at = ?2",
            (key, now.as_millisecond()),
        )?;
    }
    Ok(due)
}

fn put_cursor(tx: &Transaction<'_>, name: &str, token: &str) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO cursor (name, token) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET token = ?2",
        (name, token),
    )?;
    Ok(())
}

/// Reads a stored time, in milliseconds since the epoch.
fn time(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let millis: i64 = row.get(column)?;
    Timestamp::from_millisecond(millis)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Integer, Box::new(error)))
}

/// The same for a time that may be missing.
fn moment(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    let missing = row.get::<_, Option<i64>>(column)?.is_none();
    if missing { Ok(None) } else { time(row, column).map(Some) }
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::TooNew { found });
    }
    if found < 1 {
        transaction.execute_batch(include_str!("store/schema-1.sql"))?;
    }
    if found < 2 {
        transaction.execute_batch(include_str!("store/schema-2.sql"))?;
    }
    if found < 3 {
        transaction.execute_batch(include_str!("store/schema-3.sql"))?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
