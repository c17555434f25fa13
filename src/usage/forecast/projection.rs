//! How full a window will be at its end: the same law as the forecast, read the other way round.

use super::{Law, Prior, Progress};

/// Standard normal deviate that is exceeded with probability 10 %.
const TENTH: f64 = 1.281_551_565_544_600_4;

/// Used part at the reset, in per cent; over 100 where it is used up before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Projection {
    /// Exceeded with probability 90 %.
    pub low: f64,
    /// Exceeded with probability 50 %.
    pub median: f64,
    /// Exceeded with probability 10 %.
    pub high: f64,
}

impl Law {
    /// Looks at the end of the window.
    #[must_use]
    pub fn projection(&self, progress: &Progress, prior: &Prior) -> Projection {
        let rate = (progress.burned + 0.5 + prior.rate * self.weight) / (progress.elapsed + self.weight);
        let mean = rate * progress.remaining;
        let variance = self.spread / (progress.elapsed / 24.0 + self.lead) + self.grain / mean.max(1.0);
        let at = |deviate: f64| {
            let log = (deviate - self.shift) / self.slope * variance.sqrt() - variance / 2.0;
            progress.used + mean * libm::exp(log)
        };
        Projection { low: at(-TENTH), median: at(0.0), high: at(TENTH) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_and_the_time_of_exhaustion_tell_the_same_story() {
        let prior = Prior { rate: 100.0 / 168.0, weeks: 0 };
        for (used, elapsed) in [(10.0, 20.0), (40.0, 60.0), (70.0, 90.0), (95.0, 160.0)] {
            let progress = Progress { used, burned: used, elapsed, remaining: 168.0 - elapsed, length: 168.0 };
            let law = Law::COLD;
            let Projection { low, median, high } = law.projection(&progress, &prior);
            assert!(used < low && low < median && median < high, "{low} {median} {high}");
            for (end, share) in [(low, 0.9), (median, 0.5), (high, 0.1)] {
                assert_eq!(end >= 100.0, law.passage(&progress, &prior, share).is_some(), "{used} {share} {end}");
            }
        }
    }
}
