//! What a sample changes, and what is to be told of it. Pure: the time is passed in, and nothing is sent or stored here.
//!
//! The caller stores the [`BucketState`] in the same transaction as what follows from the events. After a crash before
//! it, the same sample gives the same events under the same names; after it, none.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, Reading, Reset};
use super::cycle::meaning::Meaning;
use super::cycle::{ClosedWindow, Cycle, Frame, Point, Sample, Shape, Step, When, Window};
use super::forecast::alarm::{Alarm, Change, Rule};
use super::forecast::projection::Projection;
use super::forecast::{self, Estimator, Forecast, Law, Outlook, Prior, Progress, burn};
use super::threshold::{Crossed, Thresholds};

/// A sample that is further ahead of the own clock than this is of a clock that errs.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// How to decide.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// At which percentages to speak.
    pub thresholds: Thresholds,
    /// Which estimator raises the alarm.
    pub estimator: Estimator,
    /// When a forecast becomes an alarm.
    pub alarm: Rule,
    /// Announced ends that differ by no more than this are the same one.
    pub jitter: SignedDuration,
    /// The least drop, in percentage points, that may be a reset before its time.
    pub drop: f64,
    /// Two samples so far apart prove a reset.
    pub apart: SignedDuration,
    /// A pause in which so much time passes without a sample is one in which nobody watched.
    pub offline: SignedDuration,
    /// A forecast is put on record so often.
    pub record: SignedDuration,
    /// The usage endpoint is asked for this account, so that nobody else's word proves a reset.
    pub endpoint: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let Frame { jitter, drop, apart, offline, .. } = Frame::default();
        Self {
            thresholds: Thresholds::default(),
            estimator: Estimator::default(),
            alarm: Rule::default(),
            jitter,
            drop,
            apart,
            offline,
            record: SignedDuration::from_hours(1),
            endpoint: false,
        }
    }
}

/// All that is known of one bucket between two samples: what `store` keeps of it over a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BucketState {
    /// Which one.
    pub bucket: Bucket,
    /// How it becomes empty again.
    pub reset: Reset,
    /// Length of a whole window, where known.
    pub length: Option<SignedDuration>,
    /// Its windows; none before the first sample.
    pub cycle: Option<Cycle>,
    /// Which thresholds were told in this window.
    #[serde(default)]
    pub crossed: Crossed,
    /// How often the limit was raised: what is crossed under another limit is another crossing.
    #[serde(default)]
    pub raises: u32,
    /// The alarm of this window.
    #[serde(default)]
    pub alarm: Alarm,
    /// What was seen in the last six hours.
    #[serde(default)]
    pub burn: Vec<Point>,
    /// When a forecast was last put on record.
    pub recorded_at: Option<Timestamp>,
}

impl BucketState {
    /// A bucket of which nothing was seen yet.
    #[must_use]
    pub fn new(bucket: Bucket, reset: Reset, length: Option<SignedDuration>) -> Self {
        let length = length.or_else(|| bucket.kind.window());
        Self {
            bucket,
            reset,
            length,
            cycle: None,
            crossed: Crossed::default(),
            raises: 0,
            alarm: Alarm::default(),
            burn: Vec::new(),
            recorded_at: None,
        }
    }

    /// A bucket as a source describes it.
    #[must_use]
    pub fn of(reading: &Reading) -> Self {
        Self::new(reading.bucket.clone(), reading.reset, reading.window)
    }

    /// The window that goes on. `None` before the first sample.
    #[must_use]
    pub fn window(&self) -> Option<&Window> {
        self.cycle.as_ref().map(|cycle| &cycle.window)
    }

    /// The forecast of an estimator, as of the freshest value. Only weekly windows have one: a shorter one is over before
    /// a forecast is worth something. `closed`: the bucket's closed windows.
    #[must_use]
    pub fn outlook(&self, estimator: Estimator, closed: &[ClosedWindow]) -> Outlook {
        let forecast = self.bucket.kind.is_weekly() && self.reset != Reset::OneTimeExpiry;
        let Some(window) = self.window().filter(|_| forecast) else { return Outlook::NoResetKnown };
        let outlook = forecast::outlook(window, self.length, closed);
        match (estimator, &outlook, window.ends_at) {
            (Estimator::Ols6h, Outlook::Known(_) | Outlook::TooEarly, Some(ends_at)) => {
                burn::forecast(&self.burn, ends_at).map_or(Outlook::TooEarly, Outlook::Known)
            }
            _ => outlook,
        }
    }

    /// How full it will be at the reset. `None`: its end or its length is not known.
    #[must_use]
    pub fn projection(&self, closed: &[ClosedWindow]) -> Option<Projection> {
        let progress = Progress::of(self.window()?, self.length)?;
        let prior = Prior::learned(closed, progress.length);
        Some(Law::for_prior(&prior).projection(&progress, &prior))
    }

    /// How used and even use compare. `None`: end or length is not known.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        let progress = Progress::of(self.window()?, self.length)?;
        Some(Pace { used: progress.used, even: progress.even() })
    }

    /// The current burn in percentage points per hour: the line through the last six hours.
    #[must_use]
    pub fn burn(&self) -> Option<f64> {
        burn::slope(&self.burn)
    }

    fn frame(&self, settings: &Settings) -> Frame {
        Frame {
            length: self.length,
            reset: self.reset,
            jitter: settings.jitter,
            drop: settings.drop,
            apart: settings.apart,
            offline: settings.offline,
            endpoint: settings.endpoint,
        }
    }

    /// Goes on, so full, after a window of the same account: what that has told is not told again at once.
    fn told_before(&self, percent: f64, settings: &Settings) -> Crossed {
        Crossed::beginning(percent, settings.thresholds.of(&self.bucket.kind), settings.thresholds.hysteresis)
    }

    /// Begins a window, of which so much was told already.
    fn begin(&mut self, crossed: Crossed) {
        self.crossed = crossed;
        self.alarm = Alarm::default();
        self.burn.clear();
        self.recorded_at = None;
    }
}

/// Use against even use, both in per cent of the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// What is used.
    pub used: f64,
    /// What even use would have used by now.
    pub even: f64,
}

impl Pace {
    /// Percentage points ahead of even use; less than 0 behind it.
    #[must_use]
    pub fn ahead(&self) -> f64 {
        self.used - self.even
    }
}

/// Something happened that is to be told or stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The window it belongs to: when that began. For a reset, the one that ended.
    pub cycle: Timestamp,
    /// What happened.
    pub news: News,
}

impl Event {
    /// What the event is called within its account, bucket and cycle. It is there once under this name, so that the four
    /// together are its id.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.news {
            News::Armed { .. } => "armed".to_owned(),
            News::Crossed { threshold, raises: 0, .. } => format!("crossed-{threshold}"),
            News::Crossed { threshold, raises, .. } => format!("crossed-{threshold}-raised-{raises}"),
            News::Raised { raises } => format!("raised-{raises}"),
            News::Reset { shape: Shape::Switched, .. } => "switched".to_owned(),
            News::Reset { .. } => "reset".to_owned(),
            News::ResetConfirmed => "reset-confirmed".to_owned(),
            News::Alarm { .. } => "alarm".to_owned(),
            News::Escalated { within, .. } => format!("escalated-{}h", within.as_hours()),
            // It may come back as an escalation, and be cleared again.
            News::Cleared { at, .. } => format!("cleared-{}", at.as_millisecond()),
            News::Closed(_) => "closed".to_owned(),
            News::Predicted { at, forecast, .. } => {
                format!("predicted-{}-{}", forecast.estimator.word(), at.as_millisecond())
            }
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The watch of this bucket, or of the account behind it, has begun.
    Armed {
        /// How full it is.
        percent: f64,
        /// When it ends, as announced.
        resets_at: Option<Timestamp>,
    },
    /// A threshold was crossed.
    Crossed {
        /// The threshold, in per cent; of several the highest.
        threshold: f64,
        /// How full it is.
        percent: f64,
        /// When it ends, as announced.
        resets_at: Option<Timestamp>,
        /// How often the limit was raised before.
        raises: u32,
    },
    /// The limit was raised: what was crossed under the old one is over.
    Raised {
        /// How often, with this time.
        raises: u32,
    },
    /// The window has ended and a new one has begun, or another account has come.
    Reset {
        /// In which way.
        shape: Shape,
        /// The true time of it.
        when: When,
        /// How full the old window was.
        before: f64,
        /// How full the new one is.
        percent: f64,
        /// When the new one ends, as announced.
        resets_at: Option<Timestamp>,
        /// When the new one began: its id.
        next: Timestamp,
        /// Two samples of sources that see the whole account agree.
        confirmed: bool,
    },
    /// The reset with which this window began is now proven; it was told without proof.
    ResetConfirmed,
    /// The limit will probably not last: said once in a window.
    Alarm {
        /// How full it is.
        percent: f64,
        /// How probably, and when.
        forecast: Forecast,
    },
    /// The time that is probably left has become short.
    Escalated {
        /// It is less than this.
        within: SignedDuration,
        /// How full it is.
        percent: f64,
        /// How probably, and when.
        forecast: Forecast,
    },
    /// The alarm is over and the window is not.
    Cleared {
        /// When.
        at: Timestamp,
        /// How full it is.
        percent: f64,
        /// How probably it still runs out.
        forecast: Forecast,
    },
    /// A window is over, for the record.
    Closed(ClosedWindow),
    /// A forecast, for the record.
    Predicted {
        /// When.
        at: Timestamp,
        /// How full it was.
        percent: f64,
        /// What was foretold.
        forecast: Forecast,
    },
}

/// Takes one sample of a bucket: changes its state, and gives what is to be told and stored, in the order in which it
/// happened. `closed`: the bucket's closed windows, of which the forecast learns; `now`: the own clock.
pub fn decide(
    state: &mut BucketState,
    sample: &Sample,
    closed: &[ClosedWindow],
    settings: &Settings,
    now: Timestamp,
) -> Vec<Event> {
    if sample.at.duration_since(now) > AHEAD || !sample.percent.is_finite() {
        return Vec::new();
    }
    let frame = state.frame(settings);
    let Some(cycle) = &mut state.cycle else {
        if sample.is_of_a_past_window() {
            return Vec::new();
        }
        let cycle = Cycle::found(sample, &frame);
        let event = Event {
            cycle: cycle.window.started_at,
            news: News::Armed { percent: sample.percent, resets_at: sample.resets_at },
        };
        state.cycle = Some(cycle);
        let mut events = vec![event];
        cross(state, settings, &mut events);
        look_ahead(state, closed, settings, &mut events);
        return events;
    };
    cycle.forget_the_future(now, AHEAD);
    let mut events = Vec::new();
    let mut learned = Vec::new();
    match cycle.take(sample, &frame) {
        Step::Ignored | Step::Waits(_) => return events,
        Step::GoesOn(Meaning::Rebased) => {
            let window = &cycle.window;
            let begun = window.started_at;
            state.raises += 1;
            // What was told is over; what still holds under the new limit is told of that one.
            state.crossed = Crossed::default();
            events.push(Event { cycle: begun, news: News::Raised { raises: state.raises } });
        }
        Step::GoesOn(_) => {}
        Step::Confirmed => {
            events.push(Event { cycle: cycle.window.started_at, news: News::ResetConfirmed });
        }
        Step::Turned { old, turn, confirmed } => {
            let new = &cycle.window;
            let (next, percent, resets_at) = (new.started_at, new.latest().percent, new.ends_at);
            let baseline = new.baseline;
            let before = old.latest().percent;
            let over = old.close(state.bucket.clone(), &turn);
            events.push(Event { cycle: old.started_at, news: News::Closed(over.clone()) });
            let (shape, when) = (turn.shape, turn.when);
            let news = News::Reset { shape, when, before, percent, resets_at, next, confirmed };
            events.push(Event { cycle: old.started_at, news });
            // Of another account nothing was told yet.
            let switched = shape == Shape::Switched;
            state.begin(if switched { Crossed::default() } else { state.told_before(baseline, settings) });
            // The window that has just closed teaches too, whether or not the caller has stored it already.
            learned = closed.iter().filter(|window| window.started_at != over.started_at).cloned().collect();
            learned.push(over);
        }
    }
    cross(state, settings, &mut events);
    look_ahead(state, if learned.is_empty() { closed } else { &learned }, settings, &mut events);
    events
}

fn cross(state: &mut BucketState, settings: &Settings, events: &mut Vec<Event>) {
    let Some(window) = state.cycle.as_ref().map(|cycle| &cycle.window) else { return };
    let (percent, resets_at, raises) = (window.latest().percent, window.ends_at, state.raises);
    let list = settings.thresholds.of(&state.bucket.kind);
    if let Some(threshold) = state.crossed.step(percent, list, settings.thresholds.step) {
        events.push(Event { cycle: window.started_at, news: News::Crossed { threshold, percent, resets_at, raises } });
    }
}

/// Foretells, raises and clears the alarm, and puts on record.
fn look_ahead(state: &mut BucketState, closed: &[ClosedWindow], settings: &Settings, events: &mut Vec<Event>) {
    let Some(window) = state.window() else { return };
    let (cycle, elapsed_from, Point { at, percent }) = (window.started_at, window.started_at, window.latest());
    burn::remember(&mut state.burn, Point { at, percent });
    let spoken = state.outlook(settings.estimator, closed);
    if let Outlook::Known(forecast) = spoken {
        let elapsed = at.duration_since(elapsed_from);
        let news = match state.alarm.step(&forecast, at, elapsed, &settings.alarm) {
            Some(Change::Raised) => Some(News::Alarm { percent, forecast }),
            Some(Change::Escalated(within)) => Some(News::Escalated { within, percent, forecast }),
            Some(Change::Cleared) => Some(News::Cleared { at, percent, forecast }),
            None => None,
        };
        events.extend(news.map(|news| Event { cycle, news }));
    }
    if state.recorded_at.is_some_and(|last| at.duration_since(last).abs() < settings.record) {
        return;
    }
    for estimator in [Estimator::Shrunken, Estimator::Ols6h] {
        if let Outlook::Known(forecast) = state.outlook(estimator, closed) {
            state.recorded_at = Some(at);
            events.push(Event { cycle, news: News::Predicted { at, percent, forecast } });
        }
    }
}

#[cfg(test)]
mod tests;
