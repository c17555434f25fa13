//! One window, while it goes on and when it is over.

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit as TimeUnit};
use serde::{Deserialize, Serialize};

use super::{Frame, Sample, Shape, Turn};
use crate::usage::bucket::{Bucket, Source};

/// How full a bucket was at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// Used part of the limit, in per cent.
    pub percent: f64,
}

/// A window that is going on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// When it began, to the minute. It stays the same over jitter, drift and restarts: the id of the cycle.
    pub started_at: Timestamp,
    /// When it ends, as last announced.
    pub ends_at: Option<Timestamp>,
    /// How full it was when it began: more than 0 after a part was given back.
    #[serde(default)]
    pub baseline: f64,
    /// The latest of a source that sees the whole account.
    pub proven: Option<Point>,
    /// The fullest that was pushed.
    pub pushed: Option<Point>,
    /// The fullest it was.
    #[serde(default)]
    pub peak: f64,
    /// When it was first seen used up.
    pub exhausted_at: Option<Timestamp>,
    /// When it was last seen full although its end had passed.
    pub overdue_at: Option<Timestamp>,
    /// Two confirming samples have seen it, or it was there from the first.
    #[serde(default)]
    pub confirmed: bool,
    /// It began because another account came, and not by a reset.
    #[serde(default)]
    pub switched: bool,
    /// How full the window before was, where a part of it was given back and the end stayed: until more than that is
    /// proven, a push up to it may be from before.
    pub given_back: Option<f64>,
    /// What is spent, in the bucket's own unit, as last proven.
    pub amount: Option<f64>,
    /// The first confirming sample in it.
    pub confirming_since: Option<Timestamp>,
    /// Whose it is, where a source said it.
    pub owner: Option<String>,
}

impl Window {
    /// The window that a first sample is found in.
    pub(super) fn found(sample: &Sample, frame: &Frame) -> Self {
        let start = start_of(sample.resets_at, frame.length).filter(|start| *start <= sample.at);
        let mut window = Self::begun(start.unwrap_or(sample.at), sample, frame);
        window.baseline = if start.is_some() { 0.0 } else { sample.percent };
        window.confirmed = true;
        window
    }

    pub(super) fn begun(started_at: Timestamp, sample: &Sample, frame: &Frame) -> Self {
        let mut window = Self {
            started_at: to_the_minute(started_at),
            ends_at: sample.resets_at,
            baseline: 0.0,
            proven: None,
            pushed: None,
            peak: sample.percent,
            exhausted_at: None,
            overdue_at: None,
            confirmed: false,
            switched: false,
            given_back: None,
            amount: None,
            confirming_since: None,
            owner: sample.owner.clone(),
        };
        window.see(sample, frame);
        window
    }

    /// The freshest value: of what is pushed the fullest, and never less than what was proven before it.
    #[must_use]
    pub fn latest(&self) -> Point {
        match (self.proven, self.pushed) {
            (Some(proven), Some(pushed)) if pushed.at > proven.at => {
                Point { at: pushed.at, percent: pushed.percent.max(proven.percent) }
            }
            (Some(point), _) | (None, Some(point)) => point,
            // A window begins with a sample, so there is one; a state made by hand may lack it.
            (None, None) => Point { at: self.started_at, percent: self.baseline },
        }
    }

    pub(super) fn see(&mut self, sample: &Sample, frame: &Frame) {
        if sample.source == Source::Push {
            let fullest = self.pushed.map_or(sample.percent, |pushed| pushed.percent.max(sample.percent));
            self.pushed = Some(Point { at: sample.at, percent: fullest });
        } else {
            self.proven = Some(sample.point());
            self.amount = sample.amount;
        }
        let latest = self.latest();
        self.peak = self.peak.max(latest.percent);
        if latest.percent >= 100.0 {
            self.exhausted_at.get_or_insert(latest.at);
        }
        if self.owner.is_none() {
            self.owner.clone_from(&sample.owner);
        }
        if frame.confirms(sample) {
            let since = *self.confirming_since.get_or_insert(sample.at);
            self.confirming_since = Some(since.min(sample.at));
        }
    }

    /// Closes it.
    #[must_use]
    pub fn close(&self, bucket: Bucket, turn: &Turn) -> ClosedWindow {
        ClosedWindow {
            bucket,
            started_at: self.started_at,
            ended_at: turn.ended_at.max(self.started_at),
            last: self.latest().percent,
            exhausted_at: self.exhausted_at,
            shape: turn.shape,
        }
    }

    /// Goes on under a limit that was raised: how full it was before says nothing any more.
    pub(super) fn rebase(&mut self, sample: &Sample) {
        self.peak = sample.percent;
        self.exhausted_at = None;
        self.pushed = None;
    }

    /// Says whether a push of so much may be from before a part was given back.
    pub(super) fn may_be_of_before(&self, percent: f64) -> bool {
        let proven = self.proven.map_or(0.0, |proven| proven.percent);
        self.given_back.is_some_and(|before| percent <= before && proven < before)
    }

    /// Takes an end that is newly announced at `at`. A window that waited for its first use begins with it, and not after
    /// it was seen, however far ahead its end is.
    pub(super) fn anchor(&mut self, ends_at: Timestamp, length: Option<SignedDuration>, at: Timestamp) {
        if self.ends_at.is_none() && self.peak < 1.0 {
            let start = start_of(Some(ends_at), length).map(|start| to_the_minute(start.min(at)));
            self.started_at = start.unwrap_or(self.started_at).max(self.started_at);
        }
        self.ends_at = Some(ends_at);
    }
}

/// A window that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClosedWindow {
    /// Whose it was.
    pub bucket: Bucket,
    /// When it began: the id of the cycle.
    pub started_at: Timestamp,
    /// When it ended: its announced end, or the first sample of the next one.
    pub ended_at: Timestamp,
    /// The last value seen in it, in per cent.
    pub last: f64,
    /// When it was first seen used up, if it was.
    pub exhausted_at: Option<Timestamp>,
    /// How it ended.
    pub shape: Shape,
}

impl ClosedWindow {
    /// Says whether a rate of use can be read off it: it is a day long at least, and of the same account.
    #[must_use]
    pub fn tells_rate(&self) -> bool {
        let end = self.exhausted_at.unwrap_or(self.ended_at);
        let long = self.ended_at.duration_since(self.started_at) >= SignedDuration::from_hours(24);
        long && end > self.started_at && self.shape != Shape::Switched
    }
}

/// When a window that ends then began.
pub(super) fn start_of(ends_at: Option<Timestamp>, length: Option<SignedDuration>) -> Option<Timestamp> {
    ends_at?.checked_sub(length?).ok()
}

/// Rounds away the jitter of what a provider announces: the ends lie on whole minutes, or close to them.
pub(super) fn to_the_minute(time: Timestamp) -> Timestamp {
    time.round(TimestampRound::new().smallest(TimeUnit::Minute)).unwrap_or(time)
}
