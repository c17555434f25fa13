//! Whether a weekly limit lasts until its reset, and when it runs out where it does not.
//!
//! What is still to come in the window is taken as log-normal: its mean is the window's own rate drawn towards a prior
//! one, its spread shrinks with the time that was seen and with the amount that is to come. A limit whose percentage is
//! rounded down hardly moves in six hours, so a line through those says more about the rounding than about the week.
//!
//! One law gives everything: the probability to run out before the reset, and the times by which that has happened with
//! probability 10, 50 and 90 %. It is no oracle. Its figures against what really came are what `usage accuracy` and
//! [`backtest`](super::backtest) print.
//!
//! What it gets wrong: without closed windows it takes people for such as use up about every second week, so that it says
//! too much of those who seldom do (0.35 where 0.15 came true, where a quarter of the weeks ran out); four closed windows
//! take half of that away. It knows no nights, weekends or plans. One heavy day can end a week that looked safe.

pub mod alarm;
pub mod burn;
pub mod projection;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::cycle::{ClosedWindow, Window};

/// How a forecast is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// The window's rate, drawn towards a prior one, with a probability.
    #[default]
    Shrunken,
    /// A straight line through the last six hours, which runs out before the reset or does not. For people who are used
    /// to it: most weeks that last raise its alarm at least once.
    Ols6h,
}

impl Estimator {
    /// The word in configuration and store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Shrunken => "shrunken",
            Self::Ols6h => "ols6h",
        }
    }
}

/// How far a window has come. Times in hours, use in percentage points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What is used, in per cent of the limit.
    pub used: f64,
    /// What was used since `elapsed` began: `used` itself, less what a window already held where it began half full.
    pub burned: f64,
    /// Hours since the window began.
    pub elapsed: f64,
    /// Hours until it ends.
    pub remaining: f64,
    /// Hours of a whole window of this bucket.
    pub length: f64,
}

impl Progress {
    /// Reads it off a window, for the time of its freshest value. `None`: its end or its length is not known, or the end
    /// has passed.
    #[must_use]
    pub fn of(window: &Window, length: Option<SignedDuration>) -> Option<Self> {
        let (ends_at, length) = (window.ends_at?, length?);
        let latest = window.latest();
        let remaining = hours(ends_at.duration_since(latest.at));
        (remaining > 0.0 && length > SignedDuration::ZERO).then(|| Self {
            used: latest.percent,
            burned: (window.peak.max(latest.percent) - window.baseline).max(0.0),
            elapsed: hours(latest.at.duration_since(window.started_at)).max(0.0),
            remaining,
            length: hours(length),
        })
    }

    /// What even use from the window's begin would have used by now, in per cent of the limit.
    #[must_use]
    pub fn even(&self) -> f64 {
        (1.0 - self.remaining / self.length).clamp(0.0, 1.0) * 100.0
    }
}

/// The rate that a window is drawn towards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Percentage points per hour.
    pub rate: f64,
    /// How many closed windows it was learned from; none: even use of the whole limit.
    pub weeks: u32,
}

impl Prior {
    /// Learns the rate from windows that are over. A window that ran out counts with the rate at which it did: its final
    /// value, which is cut off at 100, would make heavy use look lighter than it is. Windows shorter than a day and those
    /// of an earlier account say nothing.
    #[must_use]
    pub fn learned(closed: &[ClosedWindow], length: f64) -> Self {
        let mut prior = Self { rate: 0.0, weeks: 0 };
        for window in closed.iter().filter(|window| window.tells_rate()) {
            let (amount, end) = window.exhausted_at.map_or((window.last, window.ended_at), |at| (100.0, at));
            prior.rate += amount / hours(end.duration_since(window.started_at)).max(1.0);
            prior.weeks += 1;
        }
        if prior.weeks == 0 {
            return Self { rate: 100.0 / length, weeks: 0 };
        }
        prior.rate /= f64::from(prior.weeks);
        prior
    }
}

/// The numbers of the law, chosen on simulated weeks (see [`backtest`](super::backtest)), none of them on those reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Law {
    /// Hours of seen use that the prior rate weighs as much as.
    pub weight: f64,
    /// Variance of the log of what is to come, before the first day.
    pub spread: f64,
    /// Days that the first day's variance is softened by.
    pub lead: f64,
    /// Variance that bursts of use add, times the percentage points still to come.
    pub grain: f64,
    /// What is to come counts as so many points at least for [`grain`](Self::grain): below some, less to come would
    /// otherwise mean more spread than it can, and a longer time a smaller probability.
    pub least: f64,
    /// Corrects how sure the law is: 1 trusts it, less draws its probabilities together.
    pub slope: f64,
    /// Corrects which way the law errs, in standard deviations: more lowers its probabilities.
    pub shift: f64,
}

impl Law {
    /// Without closed windows.
    pub const COLD: Self =
        Self { weight: 60.0, spread: 2.0, lead: 0.7, grain: 3.0, least: 6.0, slope: 0.8, shift: -0.3 };
    /// With closed windows of one's own.
    pub const LEARNED: Self = Self { weight: 80.0, shift: -0.1, ..Self::COLD };

    /// The law for a prior that was learned from so many windows.
    #[must_use]
    pub fn for_prior(prior: &Prior) -> &'static Self {
        if prior.weeks == 0 { &Self::COLD } else { &Self::LEARNED }
    }

    /// Probability that the limit is used up within so many hours.
    #[must_use]
    pub fn runs_out_within(&self, progress: &Progress, prior: &Prior, horizon: f64) -> f64 {
        if progress.used >= 100.0 {
            return 1.0;
        }
        if horizon <= 0.0 {
            return 0.0;
        }
        // Half a point more, because what the provider says is rounded down.
        let rate = (progress.burned + 0.5 + prior.rate * self.weight) / (progress.elapsed + self.weight);
        let mean = rate * horizon;
        let variance = self.spread / (progress.elapsed / 24.0 + self.lead) + self.grain / mean.max(self.least);
        let deviation = variance.sqrt();
        let distance = (libm::log((100.0 - progress.used) / mean) + variance / 2.0) / deviation;
        (1.0 - normal(self.slope * distance + self.shift)).clamp(0.0, 1.0)
    }

    /// Hours until the limit has been used up with probability `share`. `None`: not before the reset.
    #[must_use]
    pub fn passage(&self, progress: &Progress, prior: &Prior, share: f64) -> Option<f64> {
        let by = |horizon| self.runs_out_within(progress, prior, horizon) >= share;
        if !by(progress.remaining) {
            return None;
        }
        let (mut before, mut after) = (0.0, progress.remaining);
        // 2^-24 of a week is less than a second.
        for _ in 0..24 {
            let middle = f64::midpoint(before, after);
            if by(middle) { after = middle } else { before = middle }
        }
        Some(after)
    }
}

/// Probability to run out before the reset, and when.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// How it was made.
    pub estimator: Estimator,
    /// That the limit is used up before it resets, 0 to 1. [`Estimator::Ols6h`] knows only 0 and 1.
    pub probability: f64,
    /// By then it has run out with probability 10 %. `None`: after the reset.
    pub low: Option<Timestamp>,
    /// By then it has run out with probability 50 %. `None`: after the reset.
    pub median: Option<Timestamp>,
    /// By then it has run out with probability 90 %. `None`: after the reset.
    pub high: Option<Timestamp>,
}

/// What can be said of the rest of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outlook {
    /// The provider does not say when it resets, or how long it is.
    NoResetKnown,
    /// The window is young and unused: anything may come.
    TooEarly,
    /// It is used up.
    Exhausted,
    /// A forecast.
    Known(Forecast),
}

impl Outlook {
    /// How probably the limit is used up before it resets: what is used up has been. `None`: nothing can be said.
    #[must_use]
    pub fn probability(&self) -> Option<f64> {
        match self {
            Self::Exhausted => Some(1.0),
            Self::Known(forecast) => Some(forecast.probability),
            Self::NoResetKnown | Self::TooEarly => None,
        }
    }

    /// The forecast, where there is one.
    #[must_use]
    pub fn forecast(&self) -> Option<&Forecast> {
        match self {
            Self::Known(forecast) => Some(forecast),
            _ => None,
        }
    }
}

/// Looks ahead from a window's freshest value. `length` is that of a whole window of the bucket, `closed` its closed
/// windows, if any.
#[must_use]
pub fn outlook(window: &Window, length: Option<SignedDuration>, closed: &[ClosedWindow]) -> Outlook {
    if window.latest().percent >= 100.0 {
        return Outlook::Exhausted;
    }
    let Some(progress) = Progress::of(window, length) else { return Outlook::NoResetKnown };
    if progress.used < 1.0 && progress.elapsed < 12.0 {
        return Outlook::TooEarly;
    }
    let prior = Prior::learned(closed, progress.length);
    let law = Law::for_prior(&prior);
    let now = window.latest().at;
    let time = |share| law.passage(&progress, &prior, share).and_then(|hours| after(now, hours));
    Outlook::Known(Forecast {
        estimator: Estimator::Shrunken,
        probability: law.runs_out_within(&progress, &prior, progress.remaining),
        low: time(0.1),
        median: time(0.5),
        high: time(0.9),
    })
}

/// A span in hours.
pub(super) fn hours(span: SignedDuration) -> f64 {
    span.as_secs_f64() / 3600.0
}

/// The time so many hours later, to the second. `None`: beyond what a time can say.
pub(super) fn after(time: Timestamp, hours: f64) -> Option<Timestamp> {
    let span = SignedDuration::try_from_secs_f64((hours * 3600.0).round()).ok()?;
    time.checked_add(span).ok()
}

/// Distribution function of the normal distribution.
fn normal(deviations: f64) -> f64 {
    0.5 * libm::erfc(-deviations / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests;
