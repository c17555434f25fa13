//! When which row may go out: pure, so that weeks of it can be tested in a moment.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::words;
use crate::retry::Backoff;
use crate::store::losses::TXN;
use crate::store::outbox::Parcel;

/// Progress of one message is shown no more often: the usual limit of a homeserver.
const BETWEEN_EDITS: SignedDuration = SignedDuration::from_secs(5);
/// Most rows that are told in one event.
const MERGE_ROWS: usize = 50;
/// Messages whose last edit is remembered; older ones are long past any pause.
const REMEMBERED: usize = 1000;

/// A row to try now, and what is folded into it before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) first: Parcel,
    /// Rows that the first one speaks for.
    pub(super) merged: Vec<i64>,
    /// The joined words, where there are any.
    pub(super) payload: String,
}

/// What the homeserver allowed and refused so far.
#[derive(Default)]
pub(super) struct Pace {
    rooms: HashMap<String, Room>,
    /// When each message was last sent or edited, by the row of its event.
    shown: HashMap<i64, Timestamp>,
    wake: Option<Timestamp>,
}

#[derive(Default)]
struct Room {
    held_until: Option<Timestamp>,
    /// A limit was hit and its backlog is not gone yet: untried messages are merged.
    limited: bool,
    pauses: Option<Backoff>,
}

impl Pace {
    /// Chooses at most one row per room that is not busy: the oldest that may go out now.
    pub(super) fn plan(&mut self, parcels: Vec<Parcel>, busy: &HashSet<String>, now: Timestamp) -> Vec<Plan> {
        self.wake = None;
        let mut order: Vec<String> = Vec::new();
        let mut by_room: HashMap<String, Vec<Parcel>> = HashMap::new();
        for parcel in parcels {
            if !by_room.contains_key(&parcel.room) {
                order.push(parcel.room.clone());
            }
            by_room.entry(parcel.room.clone()).or_default().push(parcel);
        }
        // Nothing waits in a room that is not listed: its limit is over.
        for (name, room) in &mut self.rooms {
            if room.held_until.is_none_or(|until| until <= now) && !by_room.contains_key(name) && !busy.contains(name) {
                room.limited = false;
            }
        }
        let mut plans = Vec::new();
        for name in order {
            if busy.contains(&name) {
                continue;
            }
            let rows = by_room.remove(&name).unwrap_or_default();
            let room = self.rooms.entry(name).or_default();
            if room.held_until.is_some_and(|until| until > now) {
                continue;
            }
            let limited = room.limited;
            if let Some(plan) = self.first_due(rows, limited, now) {
                plans.push(plan);
            }
        }
        // The rows of a held room may not be listed: the store holds them too.
        let held = self.rooms.values().filter_map(|room| room.held_until).filter(|until| *until > now).min();
        if let Some(until) = held {
            self.wake = Some(earlier(self.wake, until));
        }
        plans
    }

    fn first_due(&mut self, rows: Vec<Parcel>, limited: bool, now: Timestamp) -> Option<Plan> {
        let mut due = Vec::new();
        for row in rows {
            match self.due(&row) {
                Some(at) if at > now => self.wake = Some(earlier(self.wake, at)),
                _ => due.push(row),
            }
        }
        let mut due = due.into_iter();
        let first = due.next()?;
        let mut plan = Plan { payload: first.payload.clone(), first, merged: Vec::new() };
        if limited && mergeable(&plan.first) {
            let others: Vec<Parcel> = due.filter(mergeable).take(MERGE_ROWS - 1).collect();
            if let Some((payload, merged)) = words::join(&plan.first, &others) {
                (plan.payload, plan.merged) = (payload, merged);
            }
        }
        Some(plan)
    }

    /// When a row may go out: progress waits its turn, last words do not.
    fn due(&self, row: &Parcel) -> Option<Timestamp> {
        let edited = row.edits.as_ref()?;
        if row.last_words || row.tried {
            return None;
        }
        Some(*self.shown.get(&edited.row)? + BETWEEN_EDITS)
    }

    /// When the next held row may go out, as of the last plan.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        self.wake
    }

    /// Notes that a row is in the room.
    pub(super) fn sent(&mut self, row: &Parcel, now: Timestamp) {
        if self.shown.len() >= REMEMBERED {
            self.shown.retain(|_, at| now.duration_since(*at) < BETWEEN_EDITS);
        }
        self.shown.insert(row.edits.as_ref().map_or(row.id, |edited| edited.row), now);
        if let Some(room) = self.rooms.get_mut(&row.room) {
            room.held_until = None;
            room.pauses = None;
        }
    }

    /// Notes that the homeserver wants nothing for this room before `until`.
    pub(super) fn limited(&mut self, room: &str, until: Timestamp) {
        let room = self.rooms.entry(room.to_owned()).or_default();
        room.limited = true;
        room.held_until = Some(until);
    }

    /// Notes a failure that may pass; gives the pause before the next try in this room.
    pub(super) fn failed(&mut self, room: &str, now: Timestamp) -> Duration {
        let room = self.rooms.entry(room.to_owned()).or_default();
        let pauses =
            room.pauses.get_or_insert_with(|| Backoff::new(Duration::from_millis(500), Duration::from_mins(1)));
        let pause = pauses.next();
        room.held_until = Some(now + pause);
        pause
    }
}

/// Whether a row may be told together with others: a new message whose words are not fixed yet. What tells of a loss stays
/// by itself, because the store follows it by its transaction id.
fn mergeable(row: &Parcel) -> bool {
    row.edits.is_none() && !row.tried && !row.txn.starts_with(TXN)
}

fn earlier(one: Option<Timestamp>, other: Timestamp) -> Timestamp {
    one.map_or(other, |one| one.min(other))
}

#[cfg(test)]
mod tests {
    use super::super::row;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn ids(plans: &[Plan]) -> Vec<i64> {
        plans.iter().map(|plan| plan.first.id).collect()
    }

    #[test]
    fn each_room_sends_its_oldest_row_and_waits_for_its_answer() {
        let mut pace = Pace::default();
        let rows =
            || vec![row(1, "a", None, false, true), row(2, "b", None, false, true), row(3, "a", None, false, true)];
        assert_eq!(ids(&pace.plan(rows(), &HashSet::new(), at(0))), [1, 2]);
        assert_eq!(ids(&pace.plan(rows(), &HashSet::from(["a".to_owned()]), at(0))), [2]);
    }

    #[test]
    fn without_a_limit_nothing_is_merged() {
        let mut pace = Pace::default();
        let rows = vec![row(1, "a", None, false, true), row(2, "a", None, false, true)];
        assert!(pace.plan(rows, &HashSet::new(), at(0))[0].merged.is_empty());
    }

    #[test]
    fn under_a_limit_untried_messages_are_told_together_until_the_backlog_is_gone() {
        let mut pace = Pace::default();
        pace.limited("a", at(10));
        let rows = || {
            vec![
                row(1, "a", None, true, true),
                row(2, "a", None, false, true),
                row(3, "a", Some(9), false, true),
                row(4, "a", None, false, true),
            ]
        };
        assert!(pace.plan(rows(), &HashSet::new(), at(9)).is_empty());
        assert_eq!(pace.wake(), Some(at(10)));
        assert!(pace.plan(Vec::new(), &HashSet::new(), at(9)).is_empty());
        assert_eq!(pace.wake(), Some(at(10)), "the store does not list what it holds");
        let first = pace.plan(rows(), &HashSet::new(), at(10));
        assert_eq!((ids(&first), first[0].merged.len()), (vec![1], 0), "what was tried keeps its words");
        pace.sent(&first[0].first, at(10));
        let second = pace.plan(rows()[1..].to_vec(), &HashSet::new(), at(11));
        assert_eq!((ids(&second), second[0].merged.clone()), (vec![2], vec![4]), "an edit is not merged");
        pace.plan(Vec::new(), &HashSet::new(), at(12));
        let third =
            pace.plan(vec![row(5, "a", None, false, true), row(6, "a", None, false, true)], &HashSet::new(), at(13));
        assert!(third[0].merged.is_empty(), "the limit is over");
    }

    #[test]
    fn progress_waits_five_seconds_and_last_words_do_not() {
        let mut pace = Pace::default();
        pace.sent(&row(1, "a", None, false, false), at(100));
        let progress = || vec![row(2, "a", Some(1), false, false)];
        assert!(pace.plan(progress(), &HashSet::new(), at(104)).is_empty());
        assert_eq!(pace.wake(), Some(at(105)));
        assert_eq!(ids(&pace.plan(progress(), &HashSet::new(), at(105))), [2]);
        assert_eq!(ids(&pace.plan(vec![row(2, "a", Some(1), false, true)], &HashSet::new(), at(101))), [2]);
    }

    #[test]
    fn a_held_edit_does_not_hold_what_comes_after_it() {
        let mut pace = Pace::default();
        pace.sent(&row(1, "a", None, false, false), at(100));
        let rows = vec![row(2, "a", Some(1), false, false), row(3, "a", None, false, true)];
        assert_eq!(ids(&pace.plan(rows, &HashSet::new(), at(101))), [3]);
    }

    #[test]
    fn failures_pause_their_room_and_a_success_ends_that() {
        let mut pace = Pace::default();
        let pause = pace.failed("a", at(0));
        assert!(!pause.is_zero());
        let rows = || vec![row(1, "a", None, true, true), row(2, "b", None, false, true)];
        assert_eq!(ids(&pace.plan(rows(), &HashSet::new(), at(0))), [2]);
        pace.sent(&row(1, "a", None, true, true), at(1));
        assert_eq!(ids(&pace.plan(rows(), &HashSet::new(), at(1))), [1, 2]);
    }
}
