//! Rooms of which something is still to be read. Each is a cursor: the position up to which all of the room is in the
//! inbox.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::Transaction;

use super::{Store, StoreError, put_cursor};

/// The names of these cursors begin so; the room's id follows.
const PREFIX: &str = "gap/";

/// What a room said and nobody could read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The position at which it begins: everything of the room before is in the inbox.
    pub begin: String,
    /// Since when it waits to be read.
    pub since: Timestamp,
}

/// Notes a room's gap, or that there is none any more.
pub(super) fn put(tx: &Transaction<'_>, room: &str, gap: Option<&Gap>) -> Result<(), StoreError> {
    let name = format!("{PREFIX}{room}");
    if let Some(gap) = gap {
        return put_cursor(tx, &name, &format!("{} {}", gap.since.as_millisecond(), gap.begin));
    }
    tx.execute("DELETE FROM cursor WHERE name = ?1", [name])?;
    Ok(())
}

impl Store {
    /// Lists the gaps by room.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn gaps(&self) -> Result<BTreeMap<String, Gap>, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare("SELECT name, token FROM cursor WHERE name GLOB 'gap/*'")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            let mut gaps = BTreeMap::new();
            for row in rows {
                let (name, token) = row?;
                let room = name.strip_prefix(PREFIX).unwrap_or(&name).to_owned();
                if let Some(gap) = parse(&token) {
                    gaps.insert(room, gap);
                }
            }
            Ok(gaps)
        })
        .await
    }
}

fn parse(token: &str) -> Option<Gap> {
    let (since, begin) = token.split_once(' ')?;
    let since = Timestamp::from_millisecond(since.parse().ok()?).ok()?;
    Some(Gap { begin: begin.to_owned(), since })
}
