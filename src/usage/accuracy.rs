//! Forecasts held against what came: the own record, over windows that have closed. Pure.
//!
//! Only weeks of accounts that are watched count, each once, however often it was foretold. A forecast of a window that was
//! cut short by an early reset is not scored: nobody knows how it would have ended. Scoring stops when the window is used
//! up. An alarm is one that the room would have read: the record is run through the same [`Alarm`] as the samples were.
//! It has one forecast an hour, so that an alarm of the record may be an hour later than that of the room.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::bucket::Bucket;
use super::forecast::alarm::{Alarm, Change, Rule};
use super::forecast::{Estimator, Forecast};
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
    /// Those that lasted although the room read an alarm, or would have if this estimator spoke.
    pub false_alarms: u32,
    /// Mean squared error of the probabilities (Brier 1950), each window weighing the same: 0 is perfect.
    pub brier: f64,
    /// The same for somebody who always says the share of windows that ran out.
    pub brier_of_base_rate: f64,
}

/// Scores every estimator that has a forecast of a closed week of one of these accounts. `rule`: when the room hears.
#[must_use]
pub fn accuracy(foretold: &[Foretold], closed: &[Closed], accounts: &[String], rule: &Rule) -> Vec<Record> {
    let is_scored = |window: &&Closed| {
        let bucket: Bucket = window.bucket.parse().unwrap_or_else(|never| match never {});
        let whole = window.exhausted_at.is_some() || !is_cut_short(&window.shape);
        whole && bucket.kind.is_weekly() && accounts.contains(&bucket.account)
    };
    let weeks: Vec<&Closed> = closed.iter().filter(is_scored).collect();
    let mut record: BTreeMap<&str, BTreeMap<&str, Vec<&Foretold>>> = BTreeMap::new();
    for forecast in foretold {
        record.entry(&forecast.estimator).or_default().entry(&forecast.bucket).or_default().push(forecast);
    }
    for forecasts in record.values_mut().flat_map(BTreeMap::values_mut) {
        forecasts.sort_by_key(|forecast| forecast.at);
    }
    record.into_iter().filter_map(|(estimator, of)| score(estimator, &of, &weeks, rule)).collect()
}

fn is_cut_short(shape: &str) -> bool {
    super::cycle::Shape::of(shape).is_none_or(super::cycle::Shape::cuts_short)
}

fn score(estimator: &str, of: &BTreeMap<&str, Vec<&Foretold>>, weeks: &[&Closed], rule: &Rule) -> Option<Record> {
    let (mut windows, mut ran_out, mut caught, mut false_alarms) = (0_u32, 0_u32, 0, 0);
    let mut errors = Vec::new();
    for window in weeks {
        let end = window.exhausted_at.unwrap_or(window.ended_at);
        let forecasts = of.get(window.bucket.as_str()).map_or(&[][..], |all| within(all, window.started_at, end));
        if forecasts.is_empty() {
            continue;
        }
        windows += 1;
        let outcome = f64::from(u8::from(window.exhausted_at.is_some()));
        let squares: f64 = forecasts.iter().map(|forecast| (forecast.probability - outcome).powi(2)).sum();
        #[expect(clippy::cast_precision_loss, reason = "a number of forecasts in a week")]
        errors.push(squares / forecasts.len() as f64);
        match (window.exhausted_at, alarm(forecasts, window.started_at, rule)) {
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

/// Those of forecasts in the order of time that lie from `start` on and before `end`.
fn within<'a>(all: &'a [&'a Foretold], start: Timestamp, end: Timestamp) -> &'a [&'a Foretold] {
    let from = all.partition_point(|forecast| forecast.at < start);
    let to = all.partition_point(|forecast| forecast.at < end);
    all.get(from..to).unwrap_or_default()
}

/// When the room read that the window will not last, if it did.
fn alarm(forecasts: &[&Foretold], started_at: Timestamp, rule: &Rule) -> Option<Timestamp> {
    let mut alarm = Alarm::default();
    forecasts.iter().find_map(|foretold| {
        let Foretold { at, probability, low, median, high, .. } = **foretold;
        // What the alarm makes of a forecast does not depend on who made it.
        let forecast = Forecast { estimator: Estimator::default(), probability, low, median, high };
        let change = alarm.step(&forecast, at, at.duration_since(started_at), rule);
        (change == Some(Change::Raised)).then_some(at)
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

    fn scored(foretold: &[Foretold], closed: &[Closed]) -> Vec<Record> {
        accuracy(foretold, closed, &["work".to_owned()], &Rule { threshold: 0.8, ..Rule::default() })
    }

    #[test]
    fn an_alarm_counts_only_where_the_room_would_have_read_it() {
        let lasted = [closed(0, None, "scheduled")];
        let alarms = |forecasts: &[Foretold]| scored(forecasts, &lasted)[0].false_alarms;
        assert_eq!(alarms(&[foretold(2, 0.99), foretold(5, 0.99), foretold(14, 0.1)]), 0, "the window was too young");
        assert_eq!(alarms(&[foretold(40, 0.9), foretold(41, 0.2), foretold(42, 0.9)]), 0, "never two in a row");
        assert_eq!(alarms(&[foretold(40, 0.9), foretold(41, 0.9), foretold(42, 0.9)]), 1);
    }

    #[test]
    fn only_weeks_of_watched_accounts_count() {
        for (bucket, counts) in [
            ("work/weekly_all", true),
            ("work/weekly_scoped/Fable", true),
            ("work/session", false),
            ("old/weekly_all", false),
        ] {
            let window = Closed { bucket: bucket.to_owned(), ..closed(0, None, "scheduled") };
            let forecast = Foretold { bucket: bucket.to_owned(), ..foretold(20, 0.5) };
            assert_eq!(!scored(&[forecast], &[window]).is_empty(), counts, "{bucket}");
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
            foretold(261, 0.8),
            foretold(400, 0.9),
        ];
        let records = scored(&forecasts, &windows);
        let [record] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!((record.windows, record.ran_out, record.caught, record.false_alarms), (2, 1, 1, 1));
        let brier = f64::midpoint(0.01, (0.04 + 2.0 * 0.64) / 3.0);
        assert!((record.brier - brier).abs() < 1e-9, "{}", record.brier);
        assert!((record.brier_of_base_rate - 0.25).abs() < 1e-9);
    }

    #[test]
    fn an_alarm_in_the_last_two_hours_is_no_warning() {
        let forecasts = [foretold(98, 0.9), foretold(99, 0.9)];
        let records = scored(&forecasts, &[closed(0, Some(100), "scheduled")]);
        assert_eq!((records[0].ran_out, records[0].caught), (1, 0));
    }

    #[test]
    fn without_a_closed_window_there_is_no_record() {
        assert!(scored(&[foretold(1, 0.9)], &[]).is_empty());
    }
}
