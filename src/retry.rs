//! The one home of waiting before the next try: exponential, with jitter, for as long as it takes.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use backoff::default::MULTIPLIER;

/// Growing pauses between tries: `min`, then 1.5 times longer each time, up to `max`; each is shortened or lengthened by
/// up to half, so that many clients of one server that came back do not come at once. It never gives up.
#[derive(Debug)]
pub struct Backoff {
    inner: ExponentialBackoff,
}

impl Backoff {
    /// Begins with pauses around `min`, which grow to around `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        let mut inner = ExponentialBackoff {
            initial_interval: min,
            max_interval: max,
            // Without this the crate gives up after 15 minutes; an outage may last a day.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        inner.reset();
        Self { inner }
    }

    /// Gives the pause before the next try.
    #[expect(clippy::should_implement_trait, reason = "an endless row of pauses is not read with iterator adapters")]
    pub fn next(&mut self) -> Duration {
        self.inner.next_backoff().unwrap_or(self.inner.max_interval)
    }

    /// Begins again with the shortest pause: the last try went well.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

/// The same law without its chance, for whoever counts failures over restarts: the pause after so many in a row.
#[must_use]
pub fn pause(min: Duration, max: Duration, failures: u32) -> Duration {
    // From 32 failures on it is longer than every limit.
    let factor = MULTIPLIER.powi(i32::try_from(failures.min(32)).unwrap_or(32));
    Duration::try_from_secs_f64(min.as_secs_f64() * factor).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_is_counted_grows_by_the_same_law() {
        let (min, max) = (Duration::from_mins(5), Duration::from_mins(30));
        let pauses = [0, 1, 2, 5, 1_000, u32::MAX].map(|failures| pause(min, max, failures).as_secs());
        assert_eq!(pauses, [300, 450, 675, 1_800, 1_800, 1_800]);
    }

    #[test]
    fn pauses_grow_to_the_limit_and_never_end() {
        let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let first = pauses.next();
        assert!((50..=150).contains(&first.as_millis()), "{first:?}");
        let late = (0..10_000).map(|_| pauses.next()).last().expect("it never ends");
        assert!((5_000..=15_000).contains(&late.as_millis()), "{late:?}");
    }

    #[test]
    fn a_good_try_begins_with_the_shortest_pause_again() {
        let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        for _ in 0..50 {
            pauses.next();
        }
        pauses.reset();
        assert!(pauses.next().as_millis() <= 150);
    }
}
