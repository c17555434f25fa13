//! The window of one bucket: where it began, how full it is, and when a new one has begun.
//!
//! What a provider says of a reset is not to be trusted by itself. The announced time is recomputed with each answer and
//! jitters; it moves without a reset, and a reset comes early, late or without moving it. So one sample only proposes a
//! new window ([`meaning`]), and a second one, some time later, has to agree before the old window is closed.

pub mod meaning;
pub mod window;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::window::{ClosedWindow, Point, Window};

use self::meaning::{Meaning, meaning, push_meaning};
use self::window::to_the_minute;
use super::bucket::{Reading, Reset, Snapshot, Source, Unit};

/// What one source said of one bucket at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was so.
    pub at: Timestamp,
    /// Used part of the limit, in per cent; may be over 100.
    pub percent: f64,
    /// When the window ends, as the source says now.
    pub resets_at: Option<Timestamp>,
    /// Who says it.
    pub source: Source,
    /// Whose it is, where the source says it: an organisation's id. Two that differ are two accounts.
    pub owner: Option<String>,
    /// What is used in the bucket's own unit, where that is money: it falls when a month begins, and not when the limit is
    /// raised.
    pub amount: Option<f64>,
}

impl Sample {
    /// Takes what a snapshot says of one bucket. `None`: nothing limits it.
    #[must_use]
    pub fn of(snapshot: &Snapshot, reading: &Reading) -> Option<Self> {
        reading.percent().map(|percent| Self {
            at: snapshot.at,
            percent,
            resets_at: reading.resets_at,
            source: snapshot.source,
            owner: snapshot.owner.clone(),
            amount: matches!(reading.unit, Unit::Money { .. }).then_some(reading.used),
        })
    }

    /// Says whether it tells of a window that was over when it was sent: a client that has not asked since goes on to push
    /// the last it heard, and nothing of that is about the window that goes on.
    #[must_use]
    pub fn is_of_a_past_window(&self) -> bool {
        self.source == Source::Push && self.resets_at.is_some_and(|end| end <= self.at)
    }

    /// An end that has passed is none: some providers go on to tell it until the next use.
    fn without_a_past_end(&self) -> Self {
        Self { resets_at: self.resets_at.filter(|end| *end > self.at), ..self.clone() }
    }

    fn point(&self) -> Point {
        Point { at: self.at, percent: self.percent }
    }
}

/// What the classifier needs to know of the bucket and of the provider's habits.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Length of a whole window, where known.
    pub length: Option<SignedDuration>,
    /// How the bucket becomes empty.
    pub reset: Reset,
    /// Announced ends that differ by no more than this are the same one. Measured jitter is below 2 s.
    pub jitter: SignedDuration,
    /// The least drop, in percentage points, that may be a reset before its time. Smaller ones are corrections.
    pub drop: f64,
    /// Two samples must be so far apart to prove a reset.
    pub apart: SignedDuration,
    /// After a longer silence nobody watched: what happened in it is told as such.
    pub offline: SignedDuration,
    /// The usage endpoint is asked for this account, so that nobody else's word proves a reset.
    pub endpoint: bool,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            length: None,
            reset: Reset::Rolling,
            jitter: SignedDuration::from_secs(60),
            drop: 5.0,
            apart: SignedDuration::from_secs(60),
            offline: SignedDuration::from_hours(1),
            endpoint: false,
        }
    }
}

impl Frame {
    fn confirms(&self, sample: &Sample) -> bool {
        sample.source.confirms(self.endpoint)
    }
}

/// In which way a window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// When it was announced.
    Scheduled,
    /// Before its time; a new end is announced.
    EarlyMoved,
    /// Before its time, and the announced end stays.
    EarlyUnchanged,
    /// Before its time, and no end is announced any more.
    EarlyNull,
    /// After its time: the old value was still told when it should have been gone.
    Late,
    /// While nobody watched.
    Offline,
    /// With the month that it counted: what is spent begins at nothing.
    Monthly,
    /// Not at all: another account is behind the name now.
    Switched,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::EarlyMoved,
        Self::EarlyUnchanged,
        Self::EarlyNull,
        Self::Late,
        Self::Offline,
        Self::Monthly,
        Self::Switched,
    ];

    /// The word in store and files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::EarlyMoved => "early-moved",
            Self::EarlyUnchanged => "early-unchanged",
            Self::EarlyNull => "early-null",
            Self::Late => "late",
            Self::Offline => "offline",
            Self::Monthly => "monthly",
            Self::Switched => "switched",
        }
    }

    /// Reads what [`word`](Self::word) says. `None`: no such word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.word() == word)
    }

    /// Says whether the window ended before its time, so that its last value is not what it would have come to.
    #[must_use]
    pub fn cuts_short(self) -> bool {
        matches!(self, Self::EarlyMoved | Self::EarlyUnchanged | Self::EarlyNull | Self::Switched)
    }
}

/// When something happened, as exactly as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At this time.
    At(Timestamp),
    /// After the first time and not after the second.
    Between(Timestamp, Timestamp),
}

/// The step from one window to the next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// In which way.
    pub shape: Shape,
    /// The true time of the reset.
    pub when: When,
    /// When the old window ended.
    pub ended_at: Timestamp,
    /// When the new one began.
    pub started_at: Timestamp,
}

impl Turn {
    /// Puts the new window after the old one, whatever ends were announced: no two begin at the same time.
    fn after(self, old: &Window) -> Self {
        let ended_at = self.ended_at.max(old.started_at);
        let begun = if self.shape == Shape::Switched { self.started_at } else { self.started_at.max(ended_at) };
        let clashes = to_the_minute(begun) == old.started_at;
        let started_at = if clashes { old.started_at + SignedDuration::from_mins(1) } else { begun };
        Self { ended_at, started_at, ..self }
    }
}

/// A new window that one sample proposed and none has confirmed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// What it proposes.
    pub turn: Turn,
    /// The sample that proposed it.
    pub first: Sample,
}

/// What a sample did to the windows of a bucket.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing: it is old, a repetition, or says nothing of this window.
    Ignored,
    /// The window goes on.
    GoesOn(Meaning),
    /// A new one is proposed and waits for a second sample.
    Waits(Turn),
    /// The old window is over and a new one has begun.
    Turned {
        /// The old one.
        old: Box<Window>,
        /// How and when.
        turn: Turn,
        /// Two samples of confirming sources agree on it.
        confirmed: bool,
    },
    /// A window that began without proof is now proven.
    Confirmed,
}

/// The windows of one bucket: the one that goes on, and perhaps one that is proposed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cycle {
    /// The window that goes on.
    pub window: Window,
    /// The one that may have begun.
    pub pending: Option<Pending>,
    /// How often another account came: it may be one that was here before, in the same window.
    #[serde(default)]
    pub switches: u32,
    /// The latest sample of a source that sees the whole account.
    pub heard: Option<Timestamp>,
    /// The latest push.
    pub pushed: Option<Timestamp>,
}

impl Cycle {
    /// Begins with a first sample.
    #[must_use]
    pub fn found(sample: &Sample, frame: &Frame) -> Self {
        let sample = sample.without_a_past_end();
        let window = Window::found(&sample, frame);
        let mut cycle = Self { window, pending: None, switches: 0, heard: None, pushed: None };
        cycle.hear(&sample);
        cycle
    }

    /// Takes a sample. Sources are heard in the order of their own clocks: one that is not newer than the last of its
    /// sort is ignored, so a repetition does nothing.
    pub fn take(&mut self, sample: &Sample, frame: &Frame) -> Step {
        if sample.is_of_a_past_window() {
            return Step::Ignored;
        }
        let last = if sample.source == Source::Push { self.pushed } else { self.heard };
        if last.is_some_and(|last| sample.at <= last) {
            return Step::Ignored;
        }
        let sample = &sample.without_a_past_end();
        // What was pushed counts for a reset only where nobody speaks who sees the whole account.
        let alone = self.heard.is_none_or(|heard| sample.at.duration_since(heard) >= frame.offline);
        let said = match sample.source {
            Source::Push => push_meaning(&self.window, sample, frame, alone),
            _ => Some(meaning(&self.window, sample, frame)),
        };
        self.hear(sample);
        match said {
            None => Step::Ignored,
            Some(Meaning::Turn(turn)) => self.propose(turn, sample, frame),
            Some(meaning) => self.go_on(meaning, sample, frame),
        }
    }

    /// Forgets times that a wrong clock left behind: what is further ahead of `now` than `ahead` would silence every
    /// sample until then.
    pub fn forget_the_future(&mut self, now: Timestamp, ahead: SignedDuration) {
        let wrong = |at: Timestamp| at.duration_since(now) > ahead;
        self.heard = self.heard.filter(|at| !wrong(*at));
        self.pushed = self.pushed.filter(|at| !wrong(*at));
        self.pending.take_if(|pending| wrong(pending.first.at));
        let window = &mut self.window;
        window.overdue_at = window.overdue_at.filter(|at| !wrong(*at));
        window.confirming_since = window.confirming_since.filter(|at| !wrong(*at));
        for point in [&mut window.proven, &mut window.pushed].into_iter().flatten() {
            point.at = if wrong(point.at) { now } else { point.at };
        }
    }

    fn hear(&mut self, sample: &Sample) {
        let last = if sample.source == Source::Push { &mut self.pushed } else { &mut self.heard };
        *last = Some(sample.at);
    }

    fn go_on(&mut self, meaning: Meaning, sample: &Sample, frame: &Frame) -> Step {
        if sample.source != Source::Push {
            // A source that does not say whose it is does not contradict one that says it is another's.
            let unheard = |pending: &mut Pending| pending.turn.shape != Shape::Switched || sample.owner.is_some();
            self.pending.take_if(unheard);
        }
        let window = &mut self.window;
        match (&meaning, sample.resets_at) {
            (Meaning::Anchored | Meaning::Drifted, Some(ends_at)) => window.anchor(ends_at, frame.length, sample.at),
            (Meaning::Overdue, _) => window.overdue_at = Some(sample.at),
            (Meaning::Rebased, _) => window.rebase(sample),
            _ => {}
        }
        window.see(sample, frame);
        let proven = window.confirming_since.is_some_and(|since| sample.at.duration_since(since) >= frame.apart);
        if !window.confirmed && proven && frame.confirms(sample) {
            window.confirmed = true;
            return Step::Confirmed;
        }
        Step::GoesOn(meaning)
    }

    fn propose(&mut self, turn: Turn, sample: &Sample, frame: &Frame) -> Step {
        let agrees = |pending: &Pending| {
            let weightier = pending.first.source == Source::Push && sample.source != Source::Push;
            let same = match (pending.first.resets_at, sample.resets_at) {
                (Some(one), Some(other)) => one.duration_since(other).abs() <= frame.jitter,
                _ => true,
            };
            let owners = pending.first.owner.as_ref().zip(sample.owner.as_ref());
            same && !weightier && owners.is_none_or(|(one, other)| one == other)
        };
        let Some(pending) = self.pending.take_if(|pending| agrees(pending)) else {
            self.pending = Some(Pending { turn, first: sample.clone() });
            return Step::Waits(turn);
        };
        if sample.at.duration_since(pending.first.at) < frame.apart {
            let turn = pending.turn;
            self.pending = Some(pending);
            return Step::Waits(turn);
        }
        let Pending { mut turn, first } = pending;
        if turn.shape == Shape::Switched {
            // An account that comes back goes on with its window; what is told of it then is told anew.
            self.switches += 1;
            turn.started_at += SignedDuration::from_mins(self.switches.into());
        }
        let turn = turn.after(&self.window);
        let mut window = Window::begun(turn.started_at, &first, frame);
        // An announced time says since when it counts from nothing; without one it counts from what was seen.
        if matches!(turn.shape, Shape::EarlyUnchanged | Shape::EarlyNull) {
            window.baseline = first.percent;
            // The end is the old one, so nothing else tells a push of before from one of after.
            window.given_back = Some(self.window.latest().percent);
        }
        window.switched = turn.shape == Shape::Switched;
        if let (None, Some(ends_at)) = (window.ends_at, sample.resets_at) {
            window.anchor(ends_at, frame.length, sample.at);
        }
        window.see(sample, frame);
        window.confirmed = frame.confirms(&first) && frame.confirms(sample);
        let confirmed = window.confirmed;
        let old = Box::new(std::mem::replace(&mut self.window, window));
        Step::Turned { old, turn, confirmed }
    }
}

#[cfg(test)]
mod tests;
