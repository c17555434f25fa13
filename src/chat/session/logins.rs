//! When this device logged in: a homeserver that ends each login soon is not asked for the next one at once, over restarts
//! too. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A login that stands for so long was a good one.
const LASTS: SignedDuration = SignedDuration::from_mins(15);

/// Logins of one device, as the session file keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logins {
    /// The last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Timestamp>,
    /// How many before it in a row stood for less than [`LASTS`].
    #[serde(default)]
    short: u32,
}

impl Logins {
    /// Notes a login that is made now.
    pub(crate) fn note(&mut self, now: Timestamp) {
        let short = self.last.is_some_and(|last| now.duration_since(last) < LASTS);
        self.short = if short { self.short.saturating_add(1) } else { 0 };
        self.last = Some(now);
    }

    /// How long the next one must wait: the first not at all, and none longer than ten minutes.
    pub(crate) fn pause(&self, now: Timestamp) -> SignedDuration {
        let Some(last) = self.last else { return SignedDuration::ZERO };
        let pause = SignedDuration::from_mins(match self.short {
            0 => 0,
            1 => 1,
            2 => 5,
            _ => 10,
        });
        // A clock that was set back makes nobody wait longer.
        (pause - now.duration_since(last)).clamp(SignedDuration::ZERO, pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_that_do_not_last_are_made_ever_more_rarely() {
        let start = Timestamp::from_second(1_000_000).expect("a time");
        let mut logins = Logins::default();
        assert_eq!(logins.pause(start), SignedDuration::ZERO, "the very first");
        let mut now = start;
        for minutes in [0, 1, 5, 10, 10] {
            logins.note(now);
            let pause = SignedDuration::from_mins(minutes);
            assert_eq!(logins.pause(now), pause);
            assert_eq!(logins.pause(now + pause), SignedDuration::ZERO);
            assert_eq!(logins.pause(now - SignedDuration::from_hours(1)), pause, "a clock that was set back");
            now = now + pause + SignedDuration::from_secs(1);
        }
        logins.note(now + LASTS);
        assert_eq!(logins.pause(now + LASTS), SignedDuration::ZERO, "one that lasted begins anew");
    }
}
