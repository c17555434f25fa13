//! What a subscription limits, and how full it was at one time.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What a bucket limits. The words are those of the provider, so that they stay the same over restarts and versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Kind {
    /// The rolling 5-hour window.
    Session,
    /// The weekly window of everything.
    WeeklyAll,
    /// A weekly window of one model or one surface.
    WeeklyScoped,
    /// Money or credits beyond the plan.
    Extra,
    /// Whatever else a provider names.
    Other(String),
}

impl Kind {
    /// The word in configuration, store and metrics.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Session => "session",
            Self::WeeklyAll => "weekly_all",
            Self::WeeklyScoped => "weekly_scoped",
            Self::Extra => "extra",
            Self::Other(word) => word,
        }
    }

    /// Length of the window where the kind says it.
    #[must_use]
    pub fn window(&self) -> Option<SignedDuration> {
        match self {
            Self::Session => Some(SignedDuration::from_hours(5)),
            Self::WeeklyAll | Self::WeeklyScoped => Some(SignedDuration::from_hours(24 * 7)),
            Self::Extra | Self::Other(_) => None,
        }
    }

    /// Says whether the window is long enough for a forecast to be worth something.
    #[must_use]
    pub fn is_weekly(&self) -> bool {
        matches!(self, Self::WeeklyAll | Self::WeeklyScoped)
    }
}

impl From<String> for Kind {
    fn from(word: String) -> Self {
        match word.as_str() {
            "session" => Self::Session,
            "weekly_all" => Self::WeeklyAll,
            "weekly_scoped" => Self::WeeklyScoped,
            "extra" => Self::Extra,
            _ => Self::Other(word),
        }
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.word().to_owned()
    }
}

/// Which limit of which account: what stays the same from one answer of the provider to the next. Never its place in a
/// list and never its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bucket {
    /// Name of the account in the configuration.
    pub account: String,
    /// What is limited.
    pub kind: Kind,
    /// Model or surface of a scoped limit, as the provider shows it to people.
    pub scope: Option<String>,
}

impl fmt::Display for Bucket {
    /// `account/kind` or `account/kind/scope`: the key in store, metrics and files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.kind.word())?;
        self.scope.as_ref().map_or(Ok(()), |scope| write!(f, "/{scope}"))
    }
}

impl std::str::FromStr for Bucket {
    type Err = std::convert::Infallible;

    /// Reads what [`Display`](fmt::Display) writes; a text without a `/` is a kind of the account `default`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (account, rest) = text.split_once('/').unwrap_or(("default", text));
        let (kind, scope) = rest.split_once('/').map_or((rest, None), |(kind, scope)| (kind, Some(scope)));
        Ok(Self {
            account: account.to_owned(),
            kind: Kind::from(kind.to_owned()),
            scope: scope.filter(|scope| !scope.is_empty()).map(str::to_owned),
        })
    }
}

/// What a bucket counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Per cent of a limit that the provider keeps to itself, 0 to 100.
    Percent,
    /// Minor units of money: 2152 with exponent 2 is 21.52.
    Money {
        /// ISO 4217 code, or `credits`.
        currency: String,
        /// Decimal places.
        exponent: u8,
    },
    /// Requests, tokens, seats.
    Count,
}

/// How a bucket becomes empty again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// A window that begins with its first use.
    Rolling,
    /// On a day of the calendar.
    Calendar,
    /// Never: what is left expires once. Its time is no reset and nothing is forecast from it.
    OneTimeExpiry,
    /// Not known, or never.
    None,
}

/// How full a bucket was at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Which one.
    pub bucket: Bucket,
    /// What `used` and `limit` count.
    pub unit: Unit,
    /// What is used.
    pub used: f64,
    /// The most that can be used; for [`Unit::Percent`] it is 100 and left out. `None` elsewhere: no limit.
    pub limit: Option<f64>,
    /// Length of the window.
    pub window: Option<SignedDuration>,
    /// When it is empty again, as the provider says now; recomputed with each answer, so it jitters by seconds.
    pub resets_at: Option<Timestamp>,
    /// How it becomes empty again.
    pub reset: Reset,
    /// The provider says that it counts now: of several limits the one that binds, of extra usage that it is turned on.
    #[serde(default)]
    pub active: bool,
    /// The provider's own word for how bad it is.
    pub severity: Option<String>,
}

impl Reading {
    /// Used part in per cent: may be over 100. `None` where nothing limits it.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        match (&self.unit, self.limit) {
            (Unit::Percent, _) => Some(self.used),
            (_, Some(limit)) if limit > 0.0 => Some(self.used / limit * 100.0),
            _ => None,
        }
    }

    /// Says whether this is money that pays on when the plan's own limits are used up.
    #[must_use]
    pub fn pays(&self) -> bool {
        self.bucket.kind == Kind::Extra && self.active && self.limit.is_none_or(|limit| self.used < limit)
    }
}

/// One part of what was used in a window, by model or surface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Name that people read.
    pub name: String,
    /// Part of what was used, in per cent.
    pub percent: f64,
}

/// Which kind of source said it. Only [`Source::confirms`] decides what it may prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The usage endpoint, asked with an own login.
    AnthropicOauth,
    /// A workstation told its own last answer.
    Push,
    /// A configured program printed it.
    Command,
    /// Read from a file of history.
    Import,
}

impl Source {
    /// Says whether this source's lower value proves a reset. The endpoint's does. A program's does where the account has
    /// no endpoint beside it (`endpoint` is false): it prints the provider's own answer, and there is nobody to ask who
    /// knows better. What is pushed is one client's own last answer, and proves nothing.
    #[must_use]
    pub fn confirms(self, endpoint: bool) -> bool {
        match self {
            Self::AnthropicOauth => true,
            Self::Command => !endpoint,
            Self::Push | Self::Import => false,
        }
    }

    /// The word in configuration, store and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::AnthropicOauth => "anthropic-oauth",
            Self::Push => "push",
            Self::Command => "command",
            Self::Import => "import",
        }
    }
}

/// Everything that one answer of a source says of one account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Name of the account in the configuration.
    pub account: String,
    /// Where it is from.
    pub source: Source,
    /// When the source answered (for `push`: when the workstation sent it).
    pub at: Timestamp,
    /// Whose it is, where the source says it: an organisation's id.
    #[serde(default)]
    pub owner: Option<String>,
    /// Every bucket that could be read.
    pub readings: Vec<Reading>,
    /// What burned the week, where the answer says so.
    pub shares: Vec<Share>,
    /// Name of the plan, where known.
    pub plan: Option<String>,
    /// Keys that this version does not know: logged and counted once each.
    pub unknown: Vec<String>,
    /// Windows that the answer has but that could not be read: the room hears of these.
    pub unreadable: Vec<String>,
}

/// Buckets of these that are used up now, the one that ends last first: that one binds.
#[must_use]
pub fn blocking<'a>(readings: impl Iterator<Item = &'a Reading>, now: Timestamp) -> Vec<&'a Reading> {
    let mut full: Vec<_> = readings
        .filter(|reading| match reading.bucket.kind {
            Kind::Session | Kind::WeeklyAll | Kind::WeeklyScoped => true,
            Kind::Extra => false,
            // Of a kind that this version does not know, the provider says whether it binds.
            Kind::Other(_) => reading.active && reading.reset == Reset::Rolling,
        })
        .filter(|reading| reading.percent().is_some_and(|percent| percent >= 100.0))
        .filter(|reading| reading.resets_at.is_none_or(|at| at > now))
        .collect();
    full.sort_by_key(|reading| std::cmp::Reverse(reading.resets_at.unwrap_or(Timestamp::MAX)));
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(kind: &str, used: f64, resets_at: Option<i64>) -> Reading {
        Reading {
            bucket: format!("work/{kind}").parse().unwrap(),
            unit: Unit::Percent,
            used,
            limit: None,
            window: None,
            resets_at: resets_at.map(|second| Timestamp::from_second(second).unwrap()),
            reset: Reset::Rolling,
            active: false,
            severity: None,
        }
    }

    #[test]
    fn a_bucket_is_read_as_it_is_written() {
        for text in ["work/weekly_scoped/Fable", "work/session", "work/weekly_scoped/a/b", "work/extra", "work/novel"] {
            let bucket: Bucket = text.parse().unwrap();
            assert_eq!(bucket.to_string(), text);
        }
        let bare: Bucket = "weekly_all".parse().unwrap();
        assert_eq!(bare.to_string(), "default/weekly_all");
    }

    #[test]
    fn money_has_a_percentage_only_where_something_limits_it() {
        let unit = Unit::Money { currency: "EUR".to_owned(), exponent: 2 };
        let mut money = Reading { unit, used: 2152.0, limit: Some(5000.0), ..reading("extra", 0.0, None) };
        assert!((money.percent().unwrap() - 43.04).abs() < 1e-9);
        money.limit = None;
        assert_eq!(money.percent(), None);
    }

    #[test]
    fn only_the_endpoint_confirms_where_it_is_and_a_program_where_it_is_not() {
        for (source, alone, beside) in [
            (Source::AnthropicOauth, true, true),
            (Source::Command, true, false),
            (Source::Push, false, false),
            (Source::Import, false, false),
        ] {
            assert_eq!((source.confirms(false), source.confirms(true)), (alone, beside), "{source:?}");
        }
    }

    #[test]
    fn the_cap_that_ends_last_binds() {
        let snapshot = Snapshot {
            account: "work".to_owned(),
            source: Source::AnthropicOauth,
            at: Timestamp::from_second(100).unwrap(),
            owner: None,
            readings: vec![
                reading("session", 100.0, Some(500)),
                reading("weekly_scoped/Fable", 100.0, Some(900)),
                reading("weekly_all", 99.0, Some(900)),
                reading("extra", 100.0, Some(900)),
            ],
            shares: vec![],
            plan: None,
            unknown: vec![],
            unreadable: vec![],
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let names =
            |now| blocking(snapshot.readings.iter(), now).iter().map(|r| r.bucket.to_string()).collect::<Vec<_>>();
        assert_eq!(names(at(100)), ["work/weekly_scoped/Fable", "work/session"]);
        assert_eq!(names(at(600)), ["work/weekly_scoped/Fable"]);
        // Of a kind that this version does not know, the provider says whether it counts.
        let novel = |active| Reading { active, ..reading("monthly_all", 100.0, Some(900)) };
        assert_eq!(blocking([novel(true)].iter(), at(100)).len(), 1);
        assert!(blocking([novel(false)].iter(), at(100)).is_empty());
    }
}
