//! Saying that a limit is so and so full: once for each step in each window.

use serde::{Deserialize, Serialize};

use super::bucket::Kind;

/// At which percentages to speak, for each kind of bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// The 5-hour window. Only 100 unless configured: it fills several times a day, and what one can do about it is to
    /// wait, for which the time of the reset is enough.
    pub session: Vec<f64>,
    /// Weekly windows, all and scoped.
    pub weekly: Vec<f64>,
    /// Money or credits beyond the plan, and whatever else a provider names.
    pub extra: Vec<f64>,
    /// A new window that begins with a part already used tells a threshold only if it begins so far below it, in
    /// percentage points: what was just given back is not told again at once.
    pub hysteresis: f64,
    /// After one crossing, the next is told only so much further on, in percentage points. 100 % is always told.
    pub step: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            session: vec![100.0],
            weekly: vec![50.0, 80.0, 95.0, 100.0],
            extra: vec![80.0, 100.0],
            hysteresis: 2.0,
            step: 2.0,
        }
    }
}

impl Thresholds {
    /// The list of a kind.
    #[must_use]
    pub fn of(&self, kind: &Kind) -> &[f64] {
        match kind {
            Kind::Session => &self.session,
            Kind::WeeklyAll | Kind::WeeklyScoped => &self.weekly,
            Kind::Extra | Kind::Other(_) => &self.extra,
        }
    }
}

/// What was told in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Crossed {
    /// The highest threshold that was told, or that the window began at or above: nothing up to it is told again.
    pub highest: Option<f64>,
    /// How full it was when one was last told.
    pub told_at: Option<f64>,
}

impl Crossed {
    /// Goes on from a window before that has told what this one begins above. Where nothing was told before, a window
    /// begins with the default, so that the highest threshold that it is found above is told.
    #[must_use]
    pub fn beginning(percent: f64, list: &[f64], hysteresis: f64) -> Self {
        let near = |threshold: &f64| percent > 0.0 && *threshold - hysteresis < percent && *threshold < 100.0;
        let passed = |threshold: &f64| *threshold <= percent || near(threshold);
        Self { highest: highest(list, passed), told_at: None }
    }

    /// Takes a new value and gives the threshold that it crosses: the highest, once.
    pub fn step(&mut self, percent: f64, list: &[f64], step: f64) -> Option<f64> {
        let crossed = highest(list, |threshold| *threshold <= percent)?;
        let known = self.highest.is_some_and(|told| crossed <= told);
        let close = self.told_at.is_some_and(|told| percent < told + step) && crossed < 100.0;
        if known || close {
            return None;
        }
        *self = Self { highest: Some(crossed), told_at: Some(percent) };
        Some(crossed)
    }
}

fn highest(list: &[f64], is: impl Fn(&f64) -> bool) -> Option<f64> {
    list.iter().filter(|threshold| is(threshold)).copied().max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WEEKLY: [f64; 4] = [50.0, 80.0, 95.0, 100.0];

    fn told(start: f64, values: &[f64], list: &[f64]) -> Vec<f64> {
        let mut crossed = Crossed::beginning(start, list, 2.0);
        values.iter().filter_map(|value| crossed.step(*value, list, 2.0)).collect()
    }

    #[test]
    fn each_is_told_once_and_only_the_highest_of_several() {
        assert_eq!(told(0.0, &[10.0, 49.0, 50.0, 51.0, 49.0, 50.0, 96.0, 100.0, 100.0], &WEEKLY), [50.0, 95.0, 100.0]);
        assert_eq!(told(0.0, &[100.0], &WEEKLY), [100.0]);
    }

    #[test]
    fn a_window_that_begins_high_is_silent_about_what_it_passed() {
        assert_eq!(told(82.0, &[82.0, 83.0, 95.0], &WEEKLY), [95.0]);
        assert_eq!(told(79.0, &[79.0, 80.0, 95.0], &WEEKLY), [95.0]);
        assert_eq!(told(77.0, &[77.0, 80.0], &WEEKLY), [80.0]);
        assert_eq!(told(99.0, &[99.0, 100.0], &WEEKLY), [100.0]);
    }

    #[test]
    fn a_small_step_waits_and_the_end_does_not() {
        assert_eq!(told(0.0, &[80.0, 81.0, 82.0], &[80.0, 81.0]), [80.0, 81.0]);
        assert_eq!(told(0.0, &[99.0, 100.0], &[99.0, 100.0]), [99.0, 100.0]);
    }

    proptest! {
        #[test]
        fn thresholds_are_told_upwards_and_each_at_most_once(
            start in 0.0..120.0_f64, values in prop::collection::vec(0.0..120.0_f64, 0..60),
            list in prop::collection::vec(1.0..101.0_f64, 0..6),
        ) {
            let told = told(start, &values, &list);
            prop_assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "{told:?}");
            prop_assert!(told.iter().all(|threshold| *threshold > start));
        }

        #[test]
        fn a_value_said_again_says_nothing(start in 0.0..100.0_f64, values in prop::collection::vec(0.0..101.0_f64, 1..40)) {
            let twice: Vec<f64> = values.iter().flat_map(|value| [*value, *value]).collect();
            prop_assert_eq!(told(start, &values, &WEEKLY), told(start, &twice, &WEEKLY));
        }
    }
}
