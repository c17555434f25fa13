//! Forecasts held against what came: the own record, over windows that have closed. Pure.
//!
//! A week counts once, however often it was foretold. A forecast of a window that was cut short by an early reset is not
//! scored: nobody knows how it would have ended. Scoring stops when the window is used up.

use jiff::{SignedDuration, Timestamp};

use crate::store::samples::{Closed, Foretold};

/// An alarm counts as a warning only this long ahead.
const AHEAD: SignedDuration = SignedDuration::from_hours(2);

/// How forecasts of one estimator fared.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The estimator's word.
    pub estimator: String,
    /// Closed windows with forecasts.
    pub windows: u32,
    /// Those that ran out.
    pub ran_out: u32,
    /// Those that ran out and were foretold at least two hours ahead.
    pub caught: u32,
    /// Those that lasted although an alarm was raised.
    pub false_alarms: u32,
    /// Mean squared error of the probabilities (Brier 1950), each window weighing the same: 0 is perfect.
    pub brier: f64,
    /// The same for somebody who always says the share of windows that ran out.
    pub brier_of_base_rate: f64,
}

/// Scores every estimator that has a forecast of a closed window. `threshold`: the probability that raises an alarm.
#[must_use]
pub fn accuracy(foretold: &[Foretold], closed: &[Closed], threshold: f64) -> Vec<Record> {
    let mut estimators: Vec<&str> = foretold.iter().map(|forecast| forecast.estimator.as_str()).collect();
    estimators.sort_unstable();
    estimators.dedup();
    let whole: Vec<&Closed> =
        closed.iter().filter(|window| window.exhausted_at.is_some() || !is_cut_short(&window.shape)).collect();
    estimators.into_iter().filter_map(|estimator| score(estimator, foretold, &whole, threshold)).collect()
}

fn is_cut_short(shape: &str) -> bool {
    super::cycle::Shape::of(shape).is_none_or(super::cycle::Shape::cuts_short)
}

fn score(estimator: &str, foretold: &[Foretold], closed: &[&Closed], threshold: f64) -> Option<Record> {
    let (mut windows, mut ran_out, mut caught, mut false_alarms) = (0_u32, 0_u32, 0, 0);
    let mut errors = Vec::new();
    for window in closed {
        let end = window.exhausted_at.unwrap_or(window.ended_at);
        let of = |forecast: &&Foretold| {
            forecast.estimator == estimator
                && forecast.bucket == window.bucket
                && (window.started_at..end).contains(&forecast.at)
        };
        let forecasts: Vec<&Foretold> = foretold.iter().filter(of).collect();
        if forecasts.is_empty() {
            continue;
        }
        windows += 1;
        let outcome = f64::from(u8::from(window.exhausted_at.is_some()));
        let squares: f64 = forecasts.iter().map(|forecast| (forecast.probability - outcome).powi(2)).sum();
        #[expect(clippy::cast_precision_loss, reason = "a number of forecasts in a week")]
        errors.push(squares / forecasts.len() as f64);
        let first_alarm: Option<Timestamp> =
            forecasts.iter().find(|forecast| forecast.probability >= threshold).map(|forecast| forecast.at);
        match (window.exhausted_at, first_alarm) {
            (Some(exhausted), alarm) => {
                ran_out += 1;
                caught += u32::from(alarm.is_some_and(|at| exhausted.duration_since(at) >= AHEAD));
            }
            (None, Some(_)) => false_alarms += 1,
            (None, None) => {}
        }
    }
    if windows == 0 {
        return None;
    }
    let base = f64::from(ran_out) / f64::from(windows);
    Some(Record {
        estimator: estimator.to_owned(),
        windows,
        ran_out,
        caught,
        false_alarms,
        brier: errors.iter().sum::<f64>() / f64::from(windows),
        brier_of_base_rate: base * (1.0 - base),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hour * 3600).unwrap()
    }

    fn closed(start: i64, exhausted: Option<i64>, shape: &str) -> Closed {
        Closed {
            bucket: "work/weekly_all".to_owned(),
            started_at: at(start),
            ended_at: at(start + 168),
            last: 50.0,
            exhausted_at: exhausted.map(at),
            shape: shape.to_owned(),
        }
    }

    fn foretold(hour: i64, probability: f64) -> Foretold {
        Foretold {
            bucket: "work/weekly_all".to_owned(),
            cycle: at(0),
            at: at(hour),
            estimator: "shrunken".to_owned(),
            percent: 50.0,
            probability,
            low: None,
            median: None,
            high: None,
        }
    }

    #[test]
    fn weeks_are_counted_once_and_scored_to_their_exhaustion() {
        let windows =
            [closed(0, Some(100), "scheduled"), closed(168, None, "scheduled"), closed(336, None, "early-moved")];
        // The first ran out and was foretold; what was said after it was used up does not count. The second lasted, with
        // an alarm. The third was cut short: nobody knows.
        let forecasts = [
            foretold(50, 0.9),
            foretold(90, 0.9),
            foretold(120, 0.0),
            foretold(200, 0.2),
            foretold(260, 0.8),
            foretold(400, 0.9),
        ];
        let records = accuracy(&forecasts, &windows, 0.8);
        let [record] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!((record.windows, record.ran_out, record.caught, record.false_alarms), (2, 1, 1, 1));
        let brier = f64::midpoint(0.01, f64::midpoint(0.04, 0.64));
        assert!((record.brier - brier).abs() < 1e-9, "{}", record.brier);
        assert!((record.brier_of_base_rate - 0.25).abs() < 1e-9);
    }

    #[test]
    fn an_alarm_in_the_last_two_hours_is_no_warning() {
        let records = accuracy(&[foretold(99, 0.9)], &[closed(0, Some(100), "scheduled")], 0.8);
        assert_eq!((records[0].ran_out, records[0].caught), (1, 0));
    }

    #[test]
    fn without_a_closed_window_there_is_no_record() {
        assert!(accuracy(&[foretold(1, 0.9)], &[], 0.8).is_empty());
    }
}
