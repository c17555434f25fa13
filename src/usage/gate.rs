//! When a provider may be asked again: pure.
//!
//! The usage endpoint answers about thirty questions an hour. Whoever asks more often is refused for up to an hour, and
//! `Retry-After: 0` then means "saturated", not "now". So the pause is 300 s, a refusal is waited out with a margin, and
//! no answer at all makes the pauses grow. The time and the chance are parameters; a restart begins with what the store
//! kept.

use jiff::{SignedDuration, Timestamp};

use super::bucket::Snapshot;
use super::source::SourceError;
use crate::retry;
use crate::store::usage::{Account, Asked};

/// No interval at the provider's own endpoint is shorter: it refuses whoever asks more often for long. The configuration
/// takes a shorter one only where something else is asked in its place.
pub const FLOOR: SignedDuration = SignedDuration::from_secs(180);
/// The interval where none is configured.
pub const INTERVAL: SignedDuration = SignedDuration::from_secs(300);

/// No block is believed for longer, not even one that the provider or an earlier clock named.
const LONGEST_BLOCK: SignedDuration = SignedDuration::from_secs(4_500);
/// From here on `Retry-After` counts as a block by the hour …
const HOUR_SCALE: SignedDuration = SignedDuration::from_secs(1_800);
/// … which half of the time begins anew when somebody asks in this time after its end.
const HOUR_MARGIN: SignedDuration = SignedDuration::from_secs(900);
/// The first pause after a refusal that names no time …
const REFUSED: SignedDuration = SignedDuration::from_secs(300);
/// … and the longest.
const REFUSED_LONGEST: SignedDuration = SignedDuration::from_secs(1_800);
/// The longest pause after failures of another kind.
const FAILED_LONGEST: SignedDuration = SignedDuration::from_secs(3_600);
/// So long after a reset the answer shows it.
const AFTER_RESET: SignedDuration = SignedDuration::from_secs(60);
/// Part by which an interval is shortened or lengthened at most.
const JITTER: f64 = 0.1;

/// How a question ended, as far as the next one is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer; the earliest reset in it that is still to come.
    Good {
        /// When a window begins anew.
        next_reset: Option<Timestamp>,
    },
    /// The provider wants fewer questions.
    RateLimited {
        /// What it asks to wait, where it says.
        retry_after: Option<SignedDuration>,
    },
    /// No answer, or one that cannot be used.
    Failed,
    /// The provider was not asked, because the credential is missing or refused: looking for a new one costs nothing.
    NotAsked,
}

/// What a restart takes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// When the provider was last asked.
    pub tried_at: Option<Timestamp>,
    /// Until when it wants to be left alone.
    pub blocked_until: Option<Timestamp>,
    /// Failures since the last good answer.
    pub failures: u32,
}

impl From<&Account> for Kept {
    fn from(row: &Account) -> Self {
        Self { tried_at: row.tried_at, blocked_until: row.blocked_until, failures: row.failures }
    }
}

/// The pace of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    interval: SignedDuration,
    kept: Kept,
    next: Timestamp,
}

impl Gate {
    /// Begins for account number `index` of `count`, whose questions are spread over the interval.
    #[must_use]
    pub fn begin(interval: SignedDuration, (index, count): (u32, u32), mut kept: Kept, now: Timestamp) -> Self {
        // The clock may have been set since: what lies ahead of it was no question, and no block is longer than this.
        kept.tried_at = kept.tried_at.filter(|at| *at <= now);
        kept.blocked_until = kept.blocked_until.map(|until| until.min(after(now, LONGEST_BLOCK)));
        let turn = after(now, interval * i32::try_from(index).unwrap_or(0) / i32::try_from(count.max(1)).unwrap_or(1));
        let rested = kept.tried_at.map_or(now, |at| after(at, interval.min(FLOOR)));
        let next = turn.max(rested).max(kept.blocked_until.unwrap_or(now));
        Self { interval, kept, next }
    }

    /// When the provider is asked next.
    #[must_use]
    pub fn next(&self) -> Timestamp {
        self.next
    }

    /// Says whether it is time to ask. A next question that lies further ahead than any pause was set by a clock that has
    /// been set back since.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next <= now || self.next.duration_since(now) > LONGEST_BLOCK.max(self.interval) * 2
    }

    /// Until when the provider wants to be left alone.
    #[must_use]
    pub fn blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.kept.blocked_until.filter(|until| *until > now)
    }

    /// What a restart shall take over.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Says whether a person may have the provider asked now.
    ///
    /// # Errors
    /// The time from which on it is allowed.
    pub fn may_poll(&self, now: Timestamp) -> Result<(), Timestamp> {
        let rested = self.kept.tried_at.filter(|at| *at <= now).map(|at| after(at, self.interval.min(FLOOR)));
        match rested.max(self.blocked_until(now)) {
            Some(at) if at > now => Err(at),
            _ => Ok(()),
        }
    }

    /// Notes an answer, as [`note`](Self::note) does, and gives what the store keeps of it.
    pub fn hear(&mut self, answer: &Result<Snapshot, SourceError>, now: Timestamp, chance: f64) -> Asked {
        let outcome = match answer {
            Ok(snapshot) => Outcome::Good {
                next_reset: snapshot.readings.iter().filter_map(|r| r.resets_at).filter(|at| *at > now).min(),
            },
            Err(error) => error.outcome(),
        };
        self.note(outcome, now, chance);
        Asked {
            snapshot: answer.as_ref().ok().and_then(|snapshot| serde_json::to_string(snapshot).ok()),
            blocked_until: self.blocked_until(now),
            failures: self.kept.failures,
            trouble: answer.as_ref().err().map(ToString::to_string),
        }
    }

    /// Notes how a question at `now` ended and decides when the next one is due. `chance` is in 0..1.
    pub fn note(&mut self, outcome: Outcome, now: Timestamp, chance: f64) {
        if outcome != Outcome::NotAsked {
            self.kept.tried_at = Some(now);
        }
        let pause = match outcome {
            Outcome::Good { next_reset } => {
                self.kept.failures = 0;
                self.kept.blocked_until = None;
                let pause = stretched(self.interval, JITTER * (2.0 * chance - 1.0));
                next_reset
                    .map(|at| after(at, AFTER_RESET).duration_since(now))
                    .filter(|until| until.is_positive() && *until < pause)
                    .unwrap_or(pause)
            }
            Outcome::RateLimited { retry_after } => {
                let block = block(retry_after, self.kept.failures);
                self.kept.failures = self.kept.failures.saturating_add(1);
                self.kept.blocked_until = Some(after(now, block));
                // Never earlier: a question inside the block is wasted.
                stretched(block, JITTER / 2.0 * chance)
            }
            Outcome::Failed => {
                let pause = grown(self.interval, self.kept.failures, FAILED_LONGEST.max(self.interval));
                self.kept.failures = self.kept.failures.saturating_add(1);
                self.kept.blocked_until = None;
                stretched(pause, JITTER * (2.0 * chance - 1.0))
            }
            Outcome::NotAsked => stretched(self.interval, JITTER * (2.0 * chance - 1.0)),
        };
        self.next = after(now, pause.max(self.interval.min(FLOOR)));
    }
}

/// How long a refusal is waited out.
fn block(retry_after: Option<SignedDuration>, failures: u32) -> SignedDuration {
    match retry_after.filter(SignedDuration::is_positive) {
        Some(wait) if wait >= HOUR_SCALE => wait.saturating_add(HOUR_MARGIN).min(LONGEST_BLOCK),
        Some(wait) => stretched(wait, 0.1),
        None => grown(REFUSED, failures, REFUSED_LONGEST),
    }
}

/// `first`, longer after each failure, up to `longest`.
fn grown(first: SignedDuration, failures: u32, longest: SignedDuration) -> SignedDuration {
    let pause = retry::pause(first.unsigned_abs(), longest.unsigned_abs(), failures);
    SignedDuration::try_from(pause).unwrap_or(longest)
}

/// A duration made longer by a part of itself, to the millisecond.
fn stretched(duration: SignedDuration, part: f64) -> SignedDuration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "some hours in milliseconds")]
    let millis = (duration.as_millis() as f64 * (1.0 + part)).round() as i64;
    SignedDuration::from_millis(millis)
}

/// A later time; the end of time where there is none.
fn after(at: Timestamp, wait: SignedDuration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn secs(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    fn fresh(interval: i64) -> Gate {
        Gate::begin(secs(interval), (0, 1), Kept::default(), at(0))
    }

    const GOOD: Outcome = Outcome::Good { next_reset: None };

    fn limited(retry_after: Option<i64>) -> Outcome {
        Outcome::RateLimited { retry_after: retry_after.map(secs) }
    }

    #[test]
    fn an_interval_has_jitter_and_a_floor() {
        for (interval, chance, next) in [
            (300, 0.5, 300),
            (300, 0.0, 270),
            (300, 0.999_999, 330),
            (190, 0.0, 180),
            // Something else is asked in the provider's place.
            (60, 0.5, 60),
            (3_600, 0.5, 3_600),
        ] {
            let mut gate = fresh(interval);
            assert_eq!(gate.next(), at(0));
            gate.note(GOOD, at(0), chance);
            let wait = gate.next().duration_since(at(0)) + SignedDuration::from_millis(1);
            assert_eq!(wait.as_secs(), next, "{interval} {chance}");
        }
    }

    #[test]
    fn accounts_take_turns() {
        let turns: Vec<_> =
            (0..3).map(|index| Gate::begin(secs(300), (index, 3), Kept::default(), at(0)).next()).collect();
        assert_eq!(turns, [at(0), at(100), at(200)]);
    }

    #[test]
    fn a_refusal_is_waited_out_with_a_margin() {
        // What the provider says, and how long nobody asks.
        for (retry_after, block) in [
            (Some(3_600), 4_500),
            (Some(3_242), 4_142),
            (Some(86_400), 4_500),
            (Some(1_800), 2_700),
            (Some(100), 110),
            (Some(10), 11),
        ] {
            let mut gate = fresh(300);
            gate.note(limited(retry_after), at(0), 0.0);
            assert_eq!(gate.blocked_until(at(0)), Some(at(block)), "{retry_after:?}");
            assert!(gate.next() >= at(block));
            assert_eq!(gate.may_poll(at(1)), Err(at(block.max(180))));
            assert_eq!(gate.may_poll(at(block.max(180))), Ok(()));
        }
    }

    #[test]
    fn a_refusal_without_a_time_grows() {
        for zero in [Some(0), None] {
            let mut gate = fresh(300);
            let mut now = at(0);
            let mut waits = Vec::new();
            for _ in 0..7 {
                gate.note(limited(zero), now, 0.0);
                waits.push(gate.next().duration_since(now).as_secs());
                now = gate.next();
            }
            assert_eq!(waits, [300, 450, 675, 1_012, 1_518, 1_800, 1_800]);
            gate.note(GOOD, now, 0.5);
            assert_eq!((gate.blocked_until(now), gate.kept().failures), (None, 0));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_end_the_questions() {
        let mut gate = fresh(300);
        gate.note(GOOD, at(100_000), 0.5);
        assert!(!gate.is_due(at(100_299)) && gate.is_due(at(100_300)));
        assert!(gate.is_due(at(0)));
        gate.note(Outcome::RateLimited { retry_after: Some(secs(3_600)) }, at(100_300), 0.5);
        assert!(!gate.is_due(at(100_301)), "a block is waited out");
    }

    #[test]
    fn a_reset_is_seen_soon_but_never_below_the_floor() {
        for (reset, next) in [(200, 260), (1, 180), (270, 300), (-10, 180), (-100, 300), (9_000, 300)] {
            let mut gate = fresh(300);
            gate.note(Outcome::Good { next_reset: Some(at(reset)) }, at(0), 0.5);
            assert_eq!(gate.next(), at(next), "{reset}");
        }
    }

    #[test]
    fn failures_grow_to_an_hour_and_a_missing_credential_does_not() {
        let mut gate = fresh(300);
        let (mut now, mut waits) = (at(0), Vec::new());
        for _ in 0..9 {
            gate.note(Outcome::Failed, now, 0.5);
            waits.push(gate.next().duration_since(now).as_secs());
            now = gate.next();
        }
        assert_eq!(waits, [300, 450, 675, 1_012, 1_518, 2_278, 3_417, 3_600, 3_600]);
        gate.note(Outcome::NotAsked, now, 0.5);
        assert_eq!(gate.next().duration_since(now).as_secs(), 300);
        assert_ne!(gate.kept().tried_at, Some(now));
    }

    #[test]
    fn a_block_survives_a_restart_and_a_clock_that_was_set() {
        let mut gate = fresh(300);
        gate.note(limited(Some(3_600)), at(0), 0.0);
        let again = Gate::begin(secs(300), (0, 1), gate.kept(), at(10));
        assert_eq!((again.next(), again.may_poll(at(10))), (at(4_500), Err(at(4_500))));
        // Restarted over and over it asks no more often.
        let kept = Kept { tried_at: Some(at(0)), ..Kept::default() };
        assert_eq!(Gate::begin(secs(300), (0, 1), kept, at(10)).next(), at(180));
        // The clock was a year ahead when this was noted.
        let ahead = Kept { tried_at: Some(at(31_000_000)), blocked_until: Some(at(31_000_000)), failures: 1 };
        assert_eq!(Gate::begin(secs(300), (0, 1), ahead, at(0)).next(), at(4_500));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_ask_too_often(
            outcomes in proptest::collection::vec((0_u8..5, -100_i64..100_000, 0.0_f64..1.0), 1..60),
            interval in 180_i64..10_000,
        ) {
            let mut gate = fresh(interval);
            let mut now = at(0);
            for (which, number, chance) in outcomes {
                let outcome = match which {
                    0 => Outcome::Good { next_reset: Some(after(now, secs(number))) },
                    1 => limited(Some(number)),
                    2 => limited(None),
                    3 => Outcome::Failed,
                    _ => GOOD,
                };
                gate.note(outcome, now, chance);
                let wait = gate.next().duration_since(now);
                proptest::prop_assert!(wait >= FLOOR, "{outcome:?} {wait:?}");
                proptest::prop_assert!(wait <= secs(11_000), "{outcome:?} {wait:?}");
                proptest::prop_assert!(gate.may_poll(gate.next()).is_ok());
                now = gate.next();
            }
        }
    }
}
