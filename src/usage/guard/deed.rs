//! What the journal says of a target: how the guard's own requests went, and what others did since. Pure.

use serde::{Deserialize, Serialize};

use crate::message::GUARD;
use crate::reply::Change;
use crate::store::inbox::{Entry, State};
use crate::store::outcome;

/// What somebody wants of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Will {
    /// Its replicas back.
    Start,
    /// None.
    Stop,
}

impl Will {
    /// The verb that people write for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// How a request of the guard went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It is not done yet.
    Open,
    /// It changed the replicas.
    Moved,
    /// Nothing had to change.
    Unmoved,
    /// It was not done, as far as is known.
    Failed {
        /// The order was written before: it may have reached the cluster all the same.
        ordered: bool,
    },
    /// It was refused, or is not wanted any more.
    Void,
}

/// What somebody other than the guard did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Full user id.
    pub who: String,
    /// What was wanted, whether or not it changed anything.
    pub will: Will,
}

/// What became of one rule's requests for one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// The last stop; `None` where there was none, or the journal has forgotten it.
    pub stop: Option<Course>,
    /// The last start.
    pub start: Option<Course>,
    /// What others did with the target since that stop, in that order.
    pub since: Vec<Deed>,
}

/// The part of an absolute order that matters here.
#[derive(Deserialize)]
struct Work {
    change: Change,
}

fn change(entry: &Entry) -> Option<Change> {
    serde_json::from_str::<Work>(entry.work.as_deref()?).ok().map(|work| work.change)
}

/// Reads how a request of the guard went.
#[must_use]
pub fn course(entry: &Entry) -> Course {
    if !matches!(entry.state, State::Done | State::Told) {
        return Course::Open;
    }
    let scaled = match change(entry) {
        Some(Change::Scale { from, to }) => Some(from != to),
        _ => None,
    };
    let said = entry.outcome.as_deref().unwrap_or_default();
    match scaled {
        ordered if outcome::may_be_tried_again(said) => Course::Failed { ordered: ordered == Some(true) },
        Some(true) => Course::Moved,
        Some(false) => Course::Unmoved,
        None => Course::Void,
    }
}

/// Reads what somebody else did; `None` for what scales nothing, and for what is the guard's.
#[must_use]
pub fn deed(entry: &Entry) -> Option<Deed> {
    let will = match change(entry)? {
        Change::Scale { to: 0, .. } => Will::Stop,
        Change::Scale { .. } => Will::Start,
        Change::Restart => return None,
    };
    (entry.sender != GUARD).then(|| Deed { who: entry.sender.clone(), will })
}
