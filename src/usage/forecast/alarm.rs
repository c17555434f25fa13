//! When a forecast becomes an alarm, and when the alarm is over.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Forecast;

/// When to speak.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Raise at this probability, 0 to 1.
    pub threshold: f64,
    /// Clear below this one.
    pub clear: f64,
    /// Only when the probability held so long, seen in two samples at least. Two in a row suffice: the law is smooth, and
    /// on simulated weeks an hour's wait cost more weeks that were caught too late than it spared false alarms.
    pub holds: SignedDuration,
    /// Never sooner after the window began.
    pub earliest: SignedDuration,
    /// Speak again when the limit probably runs out within these times, the longest first.
    pub escalate: Vec<SignedDuration>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            threshold: 0.7,
            clear: 0.5,
            holds: SignedDuration::from_mins(2),
            earliest: SignedDuration::from_hours(12),
            escalate: vec![SignedDuration::from_hours(24), SignedDuration::from_hours(6)],
        }
    }
}

/// What happened to the alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is raised, for the first time in this window.
    Raised,
    /// The time that is left has become shorter than this.
    Escalated(SignedDuration),
    /// It is over, before the window is.
    Cleared,
}

/// The alarm of one window. A new window begins with a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alarm {
    /// Since when the probability is at the threshold without a break.
    pub high_since: Option<Timestamp>,
    /// When it was raised: once in a window.
    pub raised_at: Option<Timestamp>,
    /// It is on now. Off after a raise: it was cleared.
    pub on: bool,
    /// How many steps of escalation were told.
    pub steps: usize,
}

impl Alarm {
    /// Takes a new forecast, made at `at`, `elapsed` after the window began.
    ///
    /// An alarm that was cleared does not come back as such. It comes back as an escalation, when the time is short.
    pub fn step(&mut self, forecast: &Forecast, at: Timestamp, elapsed: SignedDuration, rule: &Rule) -> Option<Change> {
        if forecast.probability >= rule.threshold {
            self.high_since.get_or_insert(at);
        } else {
            self.high_since = None;
        }
        if self.on && forecast.probability < rule.clear {
            self.on = false;
            return Some(Change::Cleared);
        }
        let holds = self.high_since.is_some_and(|since| at.duration_since(since).abs() >= rule.holds);
        let ready = holds && elapsed >= rule.earliest;
        if !(self.on || ready) {
            return None;
        }
        let left = forecast.median.map(|median| median.duration_since(at));
        let reached = rule.escalate.iter().take_while(|step| left.is_some_and(|left| left < **step)).count();
        let further = reached > self.steps;
        self.steps = self.steps.max(reached);
        if self.raised_at.is_none() {
            self.raised_at = Some(at);
            self.on = true;
            // What is told now says how short the time is: the steps that it passed are told with it.
            return Some(Change::Raised);
        }
        if further {
            self.on = true;
            return reached.checked_sub(1).and_then(|last| rule.escalate.get(last)).copied().map(Change::Escalated);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Estimator;
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn hour(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).unwrap()
    }

    /// Steps through (hour, probability, hours left in the median).
    fn changes(steps: &[(i64, f64, i64)]) -> Vec<(i64, Change)> {
        let rule = Rule { threshold: 0.8, holds: HOUR, ..Rule::default() };
        let mut alarm = Alarm::default();
        steps
            .iter()
            .filter_map(|(at, probability, left)| {
                let median = (*left > 0).then(|| hour(at + left));
                let forecast = Forecast {
                    estimator: Estimator::Shrunken,
                    probability: *probability,
                    low: None,
                    median,
                    high: None,
                };
                alarm.step(&forecast, hour(*at), HOUR * i32::try_from(*at).unwrap(), &rule).map(|c| (*at, c))
            })
            .collect()
    }

    #[test]
    fn it_is_raised_once_when_it_holds_and_cleared_below_a_half() {
        let told = changes(&[(20, 0.9, 80), (21, 0.7, 80), (22, 0.9, 80), (23, 0.9, 80), (24, 0.6, 80), (25, 0.4, 0)]);
        assert_eq!(told, [(23, Change::Raised), (25, Change::Cleared)]);
        let again = changes(&[(20, 0.9, 80), (21, 0.9, 80), (22, 0.1, 0), (40, 0.9, 80), (41, 0.9, 80), (42, 0.9, 80)]);
        assert_eq!(again, [(21, Change::Raised), (22, Change::Cleared)]);
    }

    #[test]
    fn a_young_window_raises_nothing() {
        assert_eq!(changes(&[(2, 0.99, 80), (5, 0.99, 80), (11, 0.99, 80)]), []);
        assert_eq!(changes(&[(2, 0.99, 80), (12, 0.99, 80)]), [(12, Change::Raised)]);
    }

    #[test]
    fn it_escalates_twice_and_comes_back_only_so() {
        let told = changes(&[(20, 0.9, 80), (21, 0.9, 80), (22, 0.9, 23), (23, 0.9, 22), (24, 0.9, 5), (25, 0.9, 4)]);
        let escalated = |hours| Change::Escalated(SignedDuration::from_hours(hours));
        assert_eq!(told, [(21, Change::Raised), (22, escalated(24)), (24, escalated(6))]);
        let late = changes(&[(90, 0.9, 5), (91, 0.9, 4), (92, 0.9, 3)]);
        assert_eq!(late, [(91, Change::Raised)]);
        let back = changes(&[(20, 0.9, 80), (21, 0.9, 80), (22, 0.1, 0), (40, 0.9, 20), (41, 0.9, 20)]);
        assert_eq!(back, [(21, Change::Raised), (22, Change::Cleared), (41, escalated(24))]);
    }
}
