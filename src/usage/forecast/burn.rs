//! The current burn: a straight line through the last six hours.

use jiff::{SignedDuration, Timestamp};

use super::{Estimator, Forecast, after, hours};
use crate::usage::cycle::Point;

/// How far back the line looks.
pub const SPAN: SignedDuration = SignedDuration::from_hours(6);
/// Values closer together than this are one: the line does not become better, only the state longer.
const APART: SignedDuration = SignedDuration::from_mins(4);
/// The least time that the values must span.
const SHORTEST: SignedDuration = SignedDuration::from_hours(1);

/// Adds a value and forgets those older than [`SPAN`].
pub fn remember(points: &mut Vec<Point>, point: Point) {
    points.retain(|old| point.at.duration_since(old.at) <= SPAN && old.at < point.at);
    if points.len() < 2 || points.last().is_none_or(|last| point.at.duration_since(last.at) >= APART) {
        points.push(point);
    } else if let Some(last) = points.last_mut() {
        last.percent = point.percent;
    }
}

/// Slope of the least-squares line, in percentage points per hour. `None`: fewer than three values, or less than an hour.
#[must_use]
pub fn slope(points: &[Point]) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    if points.len() < 3 || last.at.duration_since(first.at) < SHORTEST {
        return None;
    }
    let (mut count, mut time, mut value) = (0.0, 0.0, 0.0);
    for point in points {
        count += 1.0;
        time += hours(point.at.duration_since(first.at));
        value += point.percent;
    }
    let (time, value) = (time / count, value / count);
    let (mut covariance, mut variance) = (0.0, 0.0);
    for point in points {
        let away = hours(point.at.duration_since(first.at)) - time;
        covariance += away * (point.percent - value);
        variance += away * away;
    }
    Some(covariance / variance)
}

/// Draws the line on: probability 1 where it meets 100 % before the reset, 0 where it does not, and the time where.
#[must_use]
pub fn forecast(points: &[Point], resets_at: Timestamp) -> Option<Forecast> {
    let (slope, last) = (slope(points)?, points.last()?);
    let meets = (slope > 0.0).then(|| after(last.at, (100.0 - last.percent) / slope)).flatten();
    let meets = meets.filter(|at| *at < resets_at);
    let probability = if meets.is_some() { 1.0 } else { 0.0 };
    Some(Forecast { estimator: Estimator::Ols6h, probability, low: meets, median: meets, high: meets })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(i64, f64)]) -> Vec<Point> {
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        let mut points = Vec::new();
        for (minute, percent) in values {
            remember(&mut points, Point { at: at(*minute), percent: *percent });
        }
        points
    }

    #[test]
    fn a_steady_burn_is_a_steady_slope() {
        let steady = points(&[(0, 10.0), (30, 11.0), (60, 12.0), (90, 13.0)]);
        assert!((slope(&steady).unwrap() - 2.0).abs() < 1e-9);
        let forecast = forecast(&steady, Timestamp::from_second(3600 * 100).unwrap()).unwrap();
        assert_eq!(forecast.median, Some(Timestamp::from_second(90 * 60 + 87 * 1800).unwrap()));
        assert!((forecast.probability - 1.0).abs() < 1e-9);
    }

    #[test]
    fn too_little_is_no_line() {
        assert_eq!(slope(&points(&[(0, 1.0), (90, 2.0)])), None);
        assert_eq!(slope(&points(&[(0, 1.0), (10, 2.0), (20, 3.0)])), None);
        let flat = points(&[(0, 5.0), (60, 5.0), (120, 5.0)]);
        assert!(forecast(&flat, Timestamp::MAX).unwrap().median.is_none());
    }

    #[test]
    fn only_six_hours_are_kept() {
        let many: Vec<_> = (0..2000).map(|minute| (minute, 1.0)).collect();
        let kept = points(&many);
        assert!(kept.len() <= 92, "{}", kept.len());
        assert!(kept[0].at >= Timestamp::from_second((1999 - 360) * 60).unwrap());
    }
}
