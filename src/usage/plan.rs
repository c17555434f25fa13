//! What is watched and what is told of it: made from the configuration, anew when that is read again.

use std::collections::BTreeMap;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use super::bucket::{Bucket, Source};
use super::decide::Settings;
use super::forecast::Estimator;
use super::guard;
use crate::config;

/// Hours of the day, local; they may span midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// They begin then,
    pub from: Time,
    /// and end then.
    pub to: Time,
}

impl Hours {
    /// Reads `23:00-07:00`.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        config::quiet_hours(text).map(|(from, to)| Self { from, to })
    }

    /// When they end, if it is one of them now.
    #[must_use]
    pub fn until(self, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        let Self { from, to } = self;
        let local = now.to_zoned(zone.clone());
        let time = local.time();
        let within = if from <= to { (from..to).contains(&time) } else { time >= from || time < to };
        if !within {
            return None;
        }
        let date = if time < to { local.date() } else { local.date().checked_add(1.day()).ok()? };
        Some(date.to_datetime(to).to_zoned(zone.clone()).ok()?.timestamp())
    }
}

/// What is watched and what is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Names of the accounts, each once, in the order of the configuration.
    pub accounts: Vec<String>,
    /// Those of them for which the usage endpoint is asked.
    pub endpoints: Vec<String>,
    /// Between two polls of one account.
    pub interval: SignedDuration,
    /// How to decide.
    pub settings: Settings,
    /// The zone for times.
    pub zone: TimeZone,
    /// Says at the first sample what is watched.
    pub armed: bool,
    /// What is not urgent waits for the end of these hours.
    pub quiet: Option<Hours>,
    /// Whom an alert of a severity notifies, by the severity's word.
    pub mention: BTreeMap<String, String>,
    /// Room for alerts: an id or an alias.
    pub home_room: Option<String>,
    /// What a limit may stop.
    pub guard: guard::Settings,
}

impl Plan {
    /// Makes it from the section of the configuration, and the room for what nobody asked for.
    #[must_use]
    pub fn new(usage: &config::Usage, home_room: Option<String>, guard: guard::Settings) -> Self {
        let mut accounts: Vec<String> = Vec::new();
        for account in &usage.accounts {
            if !accounts.contains(&account.name) {
                accounts.push(account.name.clone());
            }
        }
        let asked = usage.accounts.iter().filter(|account| account.source == config::UsageSource::AnthropicOauth);
        let estimator = match usage.forecast {
            config::Estimator::Shrunken => Estimator::Shrunken,
            config::Estimator::Ols6h => Estimator::Ols6h,
        };
        let mut settings = Settings { estimator, jitter: usage.reset_tolerance, ..Settings::default() };
        // Whoever asks once an hour has watched all the same.
        settings.offline = settings.offline.max(usage.interval * guard::STALE_AFTER);
        settings.alarm.threshold = usage.probability;
        settings.thresholds.session.clone_from(&usage.thresholds.session);
        settings.thresholds.weekly.clone_from(&usage.thresholds.weekly);
        settings.thresholds.extra.clone_from(&usage.thresholds.extra);
        Self {
            accounts,
            endpoints: asked.map(|account| account.name.clone()).collect(),
            interval: usage.interval,
            settings,
            zone: guard.zone.clone(),
            armed: usage.armed,
            quiet: usage.quiet_hours.as_deref().and_then(Hours::of),
            mention: usage.mention.clone(),
            home_room,
            guard,
        }
    }

    /// How to decide what is said of an account.
    #[must_use]
    pub fn settings_of(&self, account: &str) -> Settings {
        Settings { endpoint: self.endpoints.iter().any(|name| name == account), ..self.settings.clone() }
    }

    /// Says whether more than one account is watched, so that their names say something.
    #[must_use]
    pub fn several(&self) -> bool {
        self.accounts.len() > 1
    }

    /// Says whether a bucket is one of a watched account: what is stored of others does not count any more.
    #[must_use]
    pub fn watches(&self, bucket: &Bucket) -> bool {
        self.accounts.contains(&bucket.account)
    }

    /// Says whether what one source has said of an account is kept, although another has spoken since: the endpoint names
    /// every limit, a program those that the CLI knows, and a workstation two. Whoever is not asked any more is preferred to
    /// nobody.
    #[must_use]
    pub fn prefers(&self, account: &str, kept: Source, told: Source) -> bool {
        match kept {
            Source::AnthropicOauth => told != kept && self.endpoints.iter().any(|name| name == account),
            Source::Command => told == Source::Push && self.guard.is_asked(account),
            Source::Push | Source::Import => false,
        }
    }

    /// When the quiet hours end, if they are on.
    #[must_use]
    pub fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.quiet?.until(&self.zone, now)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::civil::time;

    use super::*;

    /// A plan that watches nothing, in UTC.
    pub(in crate::usage) fn bare() -> Plan {
        let interval = SignedDuration::from_mins(5);
        Plan {
            accounts: vec![],
            endpoints: vec![],
            interval,
            settings: Settings::default(),
            zone: TimeZone::UTC,
            armed: false,
            quiet: None,
            mention: BTreeMap::new(),
            home_room: None,
            guard: guard::Settings {
                rules: vec![],
                accounts: vec![],
                pushed: vec![],
                quiet: None,
                targets: BTreeMap::new(),
                interval,
                home_room: None,
                mentions: vec![],
                zone: TimeZone::UTC,
            },
        }
    }

    fn plan((from, to): (Time, Time)) -> Plan {
        let quiet = Hours { from, to };
        Plan { zone: TimeZone::get("Europe/Berlin").unwrap(), quiet: Some(quiet), ..bare() }
    }

    #[test]
    fn what_says_more_is_kept_as_long_as_it_is_asked() {
        use Source::{AnthropicOauth, Command, Push};
        let joined = Plan { endpoints: vec!["work".to_owned()], ..bare() };
        let mut alone = bare();
        alone.guard.pushed = vec!["work".to_owned()];
        for (kept, told, is_joined, is_asked, is_alone) in [
            (AnthropicOauth, Push, true, false, false),
            (AnthropicOauth, Command, true, false, false),
            (AnthropicOauth, AnthropicOauth, false, false, false),
            (Command, Push, true, true, false),
            (Command, Command, false, false, false),
            (Push, Command, false, false, false),
            (Push, Push, false, false, false),
        ] {
            let found = [&joined, &bare(), &alone].map(|plan| plan.prefers("work", kept, told));
            assert_eq!(found, [is_joined, is_asked, is_alone], "{kept:?}, then {told:?}");
        }
    }

    #[test]
    fn quiet_hours_are_local_and_may_span_midnight() {
        let night = plan((time(23, 0, 0, 0), time(7, 0, 0, 0)));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        // Berlin is an hour ahead in winter.
        assert_eq!(night.quiet_until(at("2026-01-10T21:59:00Z")), None);
        assert_eq!(night.quiet_until(at("2026-01-10T22:00:00Z")), Some(at("2026-01-11T06:00:00Z")));
        assert_eq!(night.quiet_until(at("2026-01-11T05:59:00Z")), Some(at("2026-01-11T06:00:00Z")));
        assert_eq!(night.quiet_until(at("2026-01-11T06:00:00Z")), None);
        // The night in which the clocks go forward.
        assert_eq!(night.quiet_until(at("2026-03-28T23:30:00Z")), Some(at("2026-03-29T05:00:00Z")));
        let noon = plan((time(12, 0, 0, 0), time(14, 0, 0, 0)));
        assert_eq!(noon.quiet_until(at("2026-01-10T11:30:00Z")), Some(at("2026-01-10T13:00:00Z")));
        assert_eq!(noon.quiet_until(at("2026-01-10T13:30:00Z")), None);
    }
}
