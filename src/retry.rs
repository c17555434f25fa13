//! The one home of waiting before the next try: exponential, with jitter, for as long as it takes.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

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
        Self { inner: endless(min, max) }
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

/// The pause after so many failures, without jitter: for whoever keeps their number over a restart, and the chance apart.
#[must_use]
pub fn pause(min: Duration, max: Duration, failures: u32) -> Duration {
    let mut pauses = endless(min, max);
    pauses.randomization_factor = 0.0;
    // The longest is reached long before.
    let mut row = std::iter::from_fn(|| pauses.next_backoff());
    row.nth(failures.min(64) as usize).unwrap_or(max)
}

fn endless(min: Duration, max: Duration) -> ExponentialBackoff {
    let mut pauses = ExponentialBackoff {
        initial_interval: min,
        max_interval: max,
        // Without this the crate gives up after 15 minutes; an outage may last a day.
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    pauses.reset();
    pauses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_known_by_the_failures_before_it() {
        let pause = |failures| pause(Duration::from_mins(5), Duration::from_mins(30), failures).as_secs();
        assert_eq!([0, 1, 2, 4, 5, 1000, u32::MAX].map(pause), [300, 450, 675, 1518, 1800, 1800, 1800]);
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
