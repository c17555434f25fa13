//! The chart's data, from what the store has of a bucket. Pure.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::chart::{Chart, Outlook, Point, Projection, Window};
use super::cycle::ClosedWindow;
use super::decide::BucketState;
use super::forecast::{Estimator, Forecast};
use crate::store::samples::Sample;

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What is decided of the bucket.
    pub state: &'a BucketState,
    /// Its name for people.
    pub title: &'a str,
    /// Its samples, oldest first.
    pub samples: &'a [Sample],
    /// Its closed windows.
    pub closed: &'a [ClosedWindow],
    /// Which estimator looks ahead.
    pub estimator: Estimator,
    /// At which percentages the room hears of it.
    pub thresholds: &'a [f64],
    /// Between two polls.
    pub interval: SignedDuration,
}

impl View<'_> {
    /// Puts the picture of so much time together, with what is to come.
    #[must_use]
    pub fn chart(&self, span: SignedDuration, zone: &TimeZone, now: Timestamp) -> Chart {
        let window = self.state.window().and_then(|window| {
            Some(Window { start: window.started_at, end: window.ends_at.filter(|end| *end > now)? })
        });
        let outlook = self.state.outlook(self.estimator, self.closed);
        let projection = window.as_ref().zip(outlook.forecast()).and_then(|(window, forecast)| {
            let latest = self.state.window()?.latest();
            let from = Point { at: latest.at, percent: latest.percent };
            Some(projection(self.state.projection(self.closed), forecast, from, window.end))
        });
        let from = now - span;
        Chart {
            title: self.title.to_owned(),
            label: self.state.bucket.account.clone(),
            from,
            to: window.as_ref().map_or(now, |window| window.end),
            now,
            zone: zone.clone(),
            interval: self.interval,
            points: points(self.samples, self.state),
            resets: self.closed.iter().map(|window| window.ended_at).filter(|at| *at > from).collect(),
            window,
            even_pace: self.state.bucket.kind.is_weekly(),
            thresholds: self.thresholds.iter().copied().filter(|percent| *percent < 100.0).collect(),
            projection,
        }
    }
}

/// The samples as the picture wants them, and the freshest value, which may be older than any that was stored.
fn points(samples: &[Sample], state: &BucketState) -> Vec<Point> {
    let mut points: Vec<Point> =
        samples.iter().map(|sample| Point { at: sample.at, percent: sample.percent }).collect();
    if let Some(latest) = state.window().map(super::cycle::Window::latest)
        && points.last().is_none_or(|last| last.at < latest.at)
    {
        points.push(Point { at: latest.at, percent: latest.percent });
    }
    points
}

fn projection(
    end: Option<super::forecast::projection::Projection>,
    forecast: &Forecast,
    from: Point,
    to: Timestamp,
) -> Projection {
    let of = |full: Option<Timestamp>, percent: Option<f64>| match full {
        Some(at) => Outlook::Full(at),
        // A straight line knows no percentage at the end: where it does not run out, it stays.
        None => Outlook::Percent(percent.unwrap_or(from.percent).min(100.0)),
    };
    // Much use is full early.
    Projection {
        from,
        to,
        low: of(forecast.high, end.map(|end| end.low)),
        median: of(forecast.median, end.map(|end| end.median)),
        high: of(forecast.low, end.map(|end| end.high)),
    }
}

/// The bucket that a picture says most about: of the weekly ones the fullest, else the fullest of all.
#[must_use]
pub fn foremost(states: &[BucketState]) -> Option<&BucketState> {
    let rank = |state: &&BucketState| {
        let used = state.window().map_or(0.0, |window| window.latest().percent);
        (state.bucket.kind.is_weekly(), used)
    };
    states.iter().max_by(|one, other| {
        let (one, other) = (rank(one), rank(other));
        one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
    })
}

#[cfg(test)]
mod tests;
