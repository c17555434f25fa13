//! What one sample says of the window that goes on: the table of everything that was seen to happen.
//!
//! | announced end | value | the end had passed | meaning |
//! |---|---|---|---|
//! | same, up to jitter | any rise | no | goes on |
//! | same or none | small drop | no | a correction |
//! | same or none | drop | no | reset before its time |
//! | moved on | no drop | no | drift: the same window ends later |
//! | moved on | drop | no | reset before its time |
//! | moved back | no drop | any | drift |
//! | moved back | drop or jump | any | another account |
//! | moved on by a window | any | yes | reset on time, late, or while nobody watched |
//! | same or none | any drop, or empty | yes | the same |
//! | same | no drop | yes | the reset is late |
//!
//! Another owner is another account, whatever else is said. What is spent by the month has no end that is announced: there a
//! month begins where the amount falls, and a limit was raised where only the percentage does.

use jiff::{SignedDuration, Timestamp};

use super::window::start_of;
use super::{Frame, Point, Sample, Shape, Turn, When, Window};
use crate::usage::bucket::Reset;

/// A window is due from so long before its announced end on: clocks differ.
const SLACK: SignedDuration = SignedDuration::from_secs(120);

/// What a sample says of the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Meaning {
    /// It goes on; the announced end may have jittered.
    Same,
    /// Its end is announced for the first time.
    Anchored,
    /// It goes on and ends at another time than was announced.
    Drifted,
    /// A little was given back.
    Corrected,
    /// The limit was raised: the same amount is a smaller part of it.
    Rebased,
    /// It should be over and is not.
    Overdue,
    /// A new window seems to have begun.
    Turn(Turn),
}

/// How the announced end relates to the one before.
enum Anchor {
    Same,
    Vanished,
    Appeared,
    Later(SignedDuration),
    Sooner,
}

fn anchor(window: &Window, sample: &Sample, jitter: SignedDuration) -> Anchor {
    match (window.ends_at, sample.resets_at) {
        (None, None) => Anchor::Same,
        (Some(_), None) => Anchor::Vanished,
        (None, Some(_)) => Anchor::Appeared,
        (Some(old), Some(new)) => {
            let moved = new.duration_since(old);
            if moved.abs() <= jitter {
                Anchor::Same
            } else if moved.is_positive() {
                Anchor::Later(moved)
            } else {
                Anchor::Sooner
            }
        }
    }
}

/// What a sample of a source that sees the whole account says. Drops are measured against such a source alone.
#[must_use]
pub fn meaning(window: &Window, sample: &Sample, frame: &Frame) -> Meaning {
    let before = window.proven;
    let drop = before.map_or(0.0, |before| before.percent - sample.percent);
    if let (Some(old), Some(new)) = (&window.owner, &sample.owner)
        && old != new
    {
        return switched(sample, frame);
    }
    let last = before.unwrap_or_else(|| window.latest());
    let seen = (last.at, sample.at);
    match frame.reset {
        Reset::OneTimeExpiry => return if drop > 0.0 { Meaning::Corrected } else { Meaning::Same },
        Reset::Calendar if window.ends_at.is_none() && sample.resets_at.is_none() => {
            return spent(window, drop, seen, sample, frame);
        }
        _ => {}
    }
    if let Some(end) = window.ends_at.filter(|end| sample.at >= minus(*end, SLACK)) {
        return due(window, end, last, sample, frame);
    }
    let fell = drop >= frame.drop;
    let same = is_same_owner(window, sample);
    match anchor(window, sample, frame.jitter) {
        Anchor::Sooner if drop.abs() >= frame.drop && !same => switched(sample, frame),
        Anchor::Later(moved) => {
            let far = frame.length.is_some_and(|length| moved >= length / 2);
            // Too little was used for a drop to show: a whole new end shows it.
            let unused = far && last.percent < frame.drop && drop >= 0.0;
            if fell || unused {
                early(Shape::EarlyMoved, seen)
            } else if far && drop <= -frame.drop {
                // Fuller than before, and in a whole new window: its beginning was missed, unless it is another's.
                if same { early(Shape::EarlyMoved, seen) } else { switched(sample, frame) }
            } else {
                Meaning::Drifted
            }
        }
        Anchor::Sooner => Meaning::Drifted,
        Anchor::Same if fell => early(Shape::EarlyUnchanged, seen),
        Anchor::Vanished if fell => early(Shape::EarlyNull, seen),
        Anchor::Appeared if fell => early(Shape::EarlyMoved, seen),
        Anchor::Appeared => Meaning::Anchored,
        Anchor::Same | Anchor::Vanished if drop > 0.0 => Meaning::Corrected,
        Anchor::Same | Anchor::Vanished => Meaning::Same,
    }
}

/// Whether the source says that it is the same account: then no value makes it another.
fn is_same_owner(window: &Window, sample: &Sample) -> bool {
    window.owner.is_some() && window.owner == sample.owner
}

/// Money by the month, whose end is not announced.
fn spent(window: &Window, drop: f64, seen: (Timestamp, Timestamp), sample: &Sample, frame: &Frame) -> Meaning {
    let began = |(before, now): (f64, f64)| now < before && (drop >= frame.drop || now <= before / 2.0);
    match window.amount.zip(sample.amount) {
        Some(amounts) if began(amounts) => early(Shape::Monthly, seen),
        _ if drop >= frame.drop => Meaning::Rebased,
        _ if drop > 0.0 => Meaning::Corrected,
        _ => Meaning::Same,
    }
}

/// The announced end has come.
fn due(window: &Window, end: Timestamp, last: Point, sample: &Sample, frame: &Frame) -> Meaning {
    let drop = last.percent - sample.percent;
    match anchor(window, sample, frame.jitter) {
        Anchor::Sooner if drop.abs() >= frame.drop && !is_same_owner(window, sample) => switched(sample, frame),
        Anchor::Sooner => Meaning::Drifted,
        // Put off, shortly before or after its time.
        Anchor::Later(moved) if drop <= 0.0 && frame.length.is_some_and(|length| moved < length / 2) => {
            Meaning::Drifted
        }
        Anchor::Later(_) => turned(window, end, last, sample, frame),
        // The end itself has not come, so only a real drop says that the window is over; it then is, by the schedule.
        _ if sample.at < end && drop < frame.drop => {
            if drop > 0.0 {
                Meaning::Corrected
            } else {
                Meaning::Same
            }
        }
        _ if drop > 0.0 || sample.percent < 1.0 => turned(window, end, last, sample, frame),
        _ if sample.at.duration_since(end) > SLACK => Meaning::Overdue,
        _ => Meaning::Same,
    }
}

fn turned(window: &Window, end: Timestamp, last: Point, sample: &Sample, frame: &Frame) -> Meaning {
    let moved = matches!(anchor(window, sample, frame.jitter), Anchor::Later(_));
    let start = if moved { start_of(sample.resets_at, frame.length) } else { None };
    let turn = if let Some(late) = window.overdue_at {
        let started_at = start.filter(|start| *start > late).unwrap_or(sample.at).min(sample.at);
        let when = When::Between(late, sample.at);
        Turn { shape: Shape::Late, when, ended_at: started_at, started_at }
    } else if let Some(start) = start.filter(|start| *start < minus(end, SLACK)) {
        // The new window began before the old one was to end, and nobody watched.
        let started_at = start.max(last.at).min(sample.at);
        let when = When::Between(last.at, started_at);
        Turn { shape: Shape::Offline, when, ended_at: started_at, started_at }
    } else {
        let watched = sample.at.duration_since(last.at) <= frame.offline;
        let shape = if watched { Shape::Scheduled } else { Shape::Offline };
        // A rolling window waits for its first use: it may begin later than the old one ended.
        let began = start.filter(|start| start.duration_since(end) > frame.jitter);
        let started_at = began.map_or(end, |began| began.min(sample.at));
        Turn { shape, when: When::At(end), ended_at: end, started_at }
    };
    Meaning::Turn(turn)
}

/// What a push says: one client's own last answer. `alone`: no better source has spoken for a while. `None`: nothing.
#[must_use]
pub fn push_meaning(window: &Window, sample: &Sample, frame: &Frame, alone: bool) -> Option<Meaning> {
    if window.may_be_of_before(sample.percent) {
        return None;
    }
    let last = window.latest();
    let due = frame.reset != Reset::OneTimeExpiry && window.ends_at.is_some_and(|end| sample.at >= end);
    match anchor(window, sample, frame.jitter) {
        Anchor::Same | Anchor::Vanished if !due => Some(Meaning::Same),
        Anchor::Appeared if alone => Some(Meaning::Anchored),
        Anchor::Later(_) if due && alone => Some(due_push(window, last, sample, frame)),
        Anchor::Later(_) if alone && sample.percent >= last.percent => Some(Meaning::Drifted),
        _ => None,
    }
}

fn due_push(window: &Window, last: Point, sample: &Sample, frame: &Frame) -> Meaning {
    window.ends_at.map_or(Meaning::Same, |end| due(window, end, last, sample, frame))
}

fn early(shape: Shape, (before, at): (Timestamp, Timestamp)) -> Meaning {
    Meaning::Turn(Turn { shape, when: When::Between(before, at), ended_at: at, started_at: at })
}

fn switched(sample: &Sample, frame: &Frame) -> Meaning {
    let start = start_of(sample.resets_at, frame.length).filter(|start| *start <= sample.at);
    let started_at = start.unwrap_or(sample.at);
    Meaning::Turn(Turn { shape: Shape::Switched, when: When::At(sample.at), ended_at: sample.at, started_at })
}

fn minus(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_sub(span).unwrap_or(Timestamp::MIN)
}
