//! The words about the subscription: how full it is, what has changed, whether it lasts.

mod figures;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub(super) use figures::dated;
pub use figures::{bar, name};

use super::{Text, Words, span};
use crate::usage::accuracy::Record;
use crate::usage::bucket::{Bucket, Reset};
use crate::usage::cycle::{Shape, When};
use crate::usage::decide::News;
use crate::usage::forecast::{Estimator, Forecast, Outlook};
use crate::usage::overview::{Overview, Shown, Watched};
use figures::{long, moment, money, percent, plural, until};

/// How loud an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Notice,
    /// Something will run out.
    Warning,
    /// Something has run out, or will within hours.
    Critical,
}

impl Severity {
    /// The word of the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Notice => "🟢",
            Self::Warning => "🟡",
            Self::Critical => "🔴",
        }
    }

    /// Readable on a light and on a dark ground.
    fn colour(self) -> &'static str {
        match self {
            Self::Notice => "#2e8b57",
            Self::Warning => "#c77700",
            Self::Critical => "#d23c3c",
        }
    }

    fn of_percent(percent: f64) -> Self {
        match percent {
            p if p >= 95.0 => Self::Critical,
            p if p >= 80.0 => Self::Warning,
            _ => Self::Notice,
        }
    }
}

/// One thing to tell of a bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulletin {
    /// Which one.
    pub bucket: Bucket,
    /// Whether more than one account is watched, so that its name says something.
    pub several: bool,
    /// What happened.
    pub news: News,
    /// The zone for times.
    pub zone: TimeZone,
    /// Now.
    pub now: Timestamp,
}

impl Bulletin {
    /// How loud it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match &self.news {
            News::Crossed { threshold, .. } => Severity::of_percent(*threshold),
            News::Escalated { within, .. } if *within <= SignedDuration::from_hours(6) => Severity::Critical,
            News::Alarm { .. } | News::Escalated { .. } | News::Reset { shape: Shape::Switched, .. } => {
                Severity::Warning
            }
            _ => Severity::Notice,
        }
    }
}

/// `usage`: what binds now, then every bucket of every account.
pub(super) fn overview(overview: &Overview) -> Words {
    if overview.accounts.is_empty() {
        return Text::new()
            .say("No subscription is watched here. Whoever runs Pilothouse can name an account ([[usage.accounts]]; ")
            .code("pilothouse init")
            .say(" helps).")
            .words();
    }
    let mut text = Text::new();
    let several = overview.accounts.len() > 1;
    for watched in &overview.accounts {
        text = blocked(text, watched, several, overview.now, &overview.zone);
    }
    for watched in &overview.accounts {
        text = account(text, watched, several, overview.now, &overview.zone);
    }
    if let Some(until) = overview.muted_until {
        let at = moment(until, overview.now, &overview.zone);
        text = text.say(&format!("🔕 Alerts are silent until {at}.")).line();
    }
    text.words()
}

fn blocked(text: Text, watched: &Watched, several: bool, now: Timestamp, zone: &TimeZone) -> Text {
    let full = watched.used_up(now);
    let Some(binding) = full.first() else { return text };
    let who = if several { format!("{}: ", watched.name) } else { String::new() };
    if let Some((reading, spent)) = watched.paying().and_then(|reading| Some((reading, money(reading)?))) {
        let until = binding
            .resets_at
            .map_or(String::new(), |at| format!(" until {} ({})", moment(at, now, zone), until(at, now)));
        return text
            .say("💳 ")
            .coloured(Severity::Warning.colour(), &format!("{who}the {} is used up", name(&binding.bucket)))
            .say(&format!(": {} pays{until}, {spent}.", name(&reading.bucket)))
            .line();
    }
    let when = binding.resets_at.map_or("when, the provider does not say".to_owned(), |at| {
        format!("back {} ({})", moment(at, now, zone), until(at, now))
    });
    let others = match full.len() {
        1 => String::new(),
        n => format!(" ({} more used up, but over sooner)", n - 1),
    };
    let seen = watched.buckets.iter().find(|shown| shown.reading.bucket == binding.bucket);
    let old = seen.and_then(|shown| behind(watched, shown.at, now));
    let old = old.map_or(String::new(), |age| format!(", as of {} ago", long(age)));
    text.say("⛔ ")
        .coloured(Severity::Critical.colour(), &format!("{who}blocked now, {when}"))
        .say(&format!(": the {} is used up{others}{old}.", name(&binding.bucket)))
        .line()
}

/// The age of a value that is much older than the account's, which is that of the freshest.
fn behind(watched: &Watched, at: Timestamp, now: Timestamp) -> Option<SignedDuration> {
    Some(now.duration_since(at)).filter(|age| *age > watched.stale_after && !watched.is_stale(now))
}

fn account(text: Text, watched: &Watched, several: bool, now: Timestamp, zone: &TimeZone) -> Text {
    let mut text = text;
    let plan = watched.snapshot.as_ref().and_then(|snapshot| snapshot.plan.as_deref());
    if several || plan.is_some() {
        text = text.strong(if several { &watched.name } else { "Subscription" });
        if let Some(plan) = plan {
            text = text.say(&format!(" ({plan})"));
        }
        text = text.line();
    }
    let behind = |at: Timestamp| behind(watched, at, now);
    text = text.quoted(|mut quote| {
        for shown in &watched.buckets {
            quote = bucket(quote, shown, behind(shown.at), now, zone);
        }
        if watched.buckets.is_empty() && watched.snapshot.is_some() {
            quote = quote.say("It has no limits.").line();
        }
        let fresh = watched.snapshot.iter().filter(|snapshot| behind(snapshot.at).is_none());
        let shares = fresh.flat_map(|snapshot| &snapshot.shares);
        let shares: Vec<String> =
            shares.filter(|s| s.percent >= 1.0).map(|s| format!("{} {}", s.name, percent(s.percent))).collect();
        if !shares.is_empty() {
            quote = quote.say(&format!("This week went to {}.", shares.join(", "))).line();
        }
        quote
    });
    age(text, watched, now, zone)
}

/// How old the numbers are, and why there are no newer ones.
fn age(text: Text, watched: &Watched, now: Timestamp, zone: &TimeZone) -> Text {
    let mut text = match watched.age(now) {
        None => text.say("⚠️ Nothing was heard of it yet."),
        Some(age) if watched.is_stale(now) => {
            text.say(&format!("⚠️ These numbers are {} old: nothing is stopped or started by them.", long(age)))
        }
        Some(age) => text.say(&format!("As of {} ago.", span(age))),
    };
    if let Some(until) = watched.blocked_until.filter(|until| *until > now) {
        text = text.say(&format!(" The provider wants to be left alone until {}.", moment(until, now, zone)));
    } else if let Some(trouble) = &watched.trouble {
        text = text.say(&format!(" The last question failed: {trouble}."));
    }
    text.line()
}

fn bucket(text: Text, shown: &Shown, old: Option<SignedDuration>, now: Timestamp, zone: &TimeZone) -> Text {
    let reading = &shown.reading;
    let mut text = text;
    text = match (money(reading), reading.percent()) {
        (Some(spent), used) => {
            let bar = used.map_or(String::new(), |used| format!("{} ", bar(used)));
            text.code(&bar).strong(&name(&reading.bucket)).say(&format!(" {spent}"))
        }
        (None, Some(used)) => {
            let severity = Severity::of_percent(used);
            text.code(&bar(used))
                .say(" ")
                .strong(&name(&reading.bucket))
                .say(" ")
                .coloured(severity.colour(), &percent(used))
        }
        (None, None) => text.strong(&name(&reading.bucket)).say(&format!(" {}", reading.used)),
    };
    if let Some(age) = old {
        text = text.say(&format!(" {} ago", long(age)));
    }
    text = match (reading.resets_at, reading.reset) {
        (Some(at), Reset::OneTimeExpiry) => text.say(&format!(", expires {}", moment(at, now, zone))),
        (Some(at), _) if at <= now => text.say(&format!(", was to reset {}", moment(at, now, zone))),
        (Some(at), _) => text.say(&format!(", resets {} ({})", moment(at, now, zone), until(at, now))),
        (None, _) => text,
    };
    if let Some(pace) = shown.pace.filter(|_| reading.bucket.kind.is_weekly()) {
        let ahead = pace.ahead();
        text = match ahead {
            a if a >= 1.0 => text.say(&format!(", {a:.0} pp ahead of even use")),
            a if a <= -1.0 => text.say(&format!(", {:.0} pp behind even use", -a)),
            _ => text.say(", at an even pace"),
        };
    }
    text = match &shown.outlook {
        Outlook::Known(forecast) => text.say(". ").say(&foretold(forecast, now, zone)),
        Outlook::TooEarly => text.say(". Too early to foretell"),
        Outlook::NoResetKnown | Outlook::Exhausted => text,
    };
    if let Some(burn) = shown.burn.filter(|burn| *burn >= 0.05 && reading.bucket.kind.is_weekly()) {
        text = text.say(&format!(". Now {burn:.1} pp an hour"));
    }
    text.say(".").line()
}

/// A forecast as a range: `63 % likely to run out before the reset, between 10:00 and Mon 02:00`.
fn foretold(forecast: &Forecast, now: Timestamp, zone: &TimeZone) -> String {
    let chance = forecast.probability * 100.0;
    if forecast.estimator == Estimator::Ols6h {
        return match forecast.median {
            Some(at) => format!("At the pace of the last 6 hours it runs out {}", moment(at, now, zone)),
            None => "At the pace of the last 6 hours it lasts".to_owned(),
        };
    }
    let range = match (forecast.low, forecast.high) {
        (Some(low), Some(high)) => format!(", between {} and {}", moment(low, now, zone), moment(high, now, zone)),
        (Some(low), None) => format!(", from {} on, or not before the reset", moment(low, now, zone)),
        (None, _) => String::new(),
    };
    match chance {
        c if c < 1.0 => "Lasts until the reset, as far as can be foretold".to_owned(),
        c => format!("{} likely to run out before the reset{range}", percent(c)),
    }
}

/// What happened to one bucket.
pub(super) fn bulletin(bulletin: &Bulletin) -> Words {
    let Bulletin { bucket, several, news, zone, now } = bulletin;
    let severity = bulletin.severity();
    let what = if *several { format!("{}: {}", bucket.account, name(bucket)) } else { name(bucket) };
    let back = |resets_at: &Option<Timestamp>| {
        resets_at.map_or(String::new(), |at| format!(" It resets {} ({}).", moment(at, *now, zone), until(at, *now)))
    };
    let head = |text: Text| text.say(severity.mark()).say(" ").coloured(severity.colour(), &what);
    let text = Text::new();
    match news {
        News::Armed { percent: used, resets_at } => {
            head(text).say(" is watched: ").code(&bar(*used)).say(&format!(" {}.{}", percent(*used), back(resets_at)))
        }
        News::Crossed { threshold, percent: used, resets_at, .. } if *threshold >= 100.0 => {
            head(text).say(" is used up: ").code(&bar(*used)).say(&format!(" {}.{}", percent(*used), back(resets_at)))
        }
        News::Crossed { threshold, percent: used, resets_at, .. } => head(text)
            .say(&format!(" is over {}: ", percent(*threshold)))
            .code(&bar(*used))
            .say(&format!(" {}.{}", percent(*used), back(resets_at))),
        News::Reset { shape: Shape::Switched, percent: used, resets_at, .. } => text
            .say("🔄 ")
            .say(severity.mark())
            .say(" ")
            .coloured(severity.colour(), &bucket.account)
            .say(&format!(" belongs to another account now, and no limit was reset: its {} is at ", name(bucket)))
            .code(&bar(*used))
            .say(&format!(" {}.{}", percent(*used), back(resets_at))),
        News::Reset { shape, when, before, percent: used, resets_at, .. } => {
            let how = match shape {
                Shape::Scheduled => "has been reset, as announced",
                Shape::EarlyMoved | Shape::EarlyUnchanged | Shape::EarlyNull => "was reset before its time",
                Shape::Late => "has been reset, late",
                Shape::Offline => "was reset while nobody watched",
                Shape::Monthly => "begins a new month",
                Shape::Switched => "belongs to another account",
            };
            let at = match when {
                When::At(at) => moment(*at, *now, zone),
                When::Between(from, to) => {
                    let (from, to) = (moment(*from, *now, zone), moment(*to, *now, zone));
                    if from == to { to } else { format!("between {from} and {to}") }
                }
            };
            let from = format!("{} → {}", percent(*before), percent(*used));
            head(text.say("🔄 ")).say(&format!(" {how}: {at}, {from}.{}", back(resets_at)))
        }
        News::Alarm { percent: used, forecast } => head(text)
            .say(" will probably not last: ")
            .code(&bar(*used))
            .say(&format!(" {}. {}.", percent(*used), foretold(forecast, *now, zone))),
        News::Escalated { within, percent: used, forecast } => head(text)
            .say(&format!(" probably runs out within {}: ", long(*within)))
            .code(&bar(*used))
            .say(&format!(" {}. {}.", percent(*used), foretold(forecast, *now, zone))),
        News::Cleared { percent: used, forecast, .. } => head(text)
            .say(" is no longer likely to run out: ")
            .say(&format!("{}. {}.", percent(*used), foretold(forecast, *now, zone))),
        News::Raised { .. } => head(text).say(": its limit was raised."),
        News::ResetConfirmed | News::Closed(_) | News::Predicted { .. } => head(text).say(" is unchanged."),
    }
    .words()
}

/// An alert that is over: how it ended, and what it said.
pub(super) fn over(said: &str, end: &str, at: Timestamp, zone: &TimeZone) -> Words {
    Text::new().say(&format!("✔️ Over, {end} ({}). Before: ", moment(at, at, zone))).struck(said).words()
}

/// What is watched from now on.
pub(super) fn armed(overview: &Overview) -> Words {
    let shown = self::overview(overview);
    Text::new().say("👀 Armed: the subscription is watched from now on.").line().with(&shown).words()
}

/// `usage accuracy`: counts of weeks, and the mean squared error with what it is worth.
pub(super) fn accuracy(records: &[Record]) -> Words {
    if records.is_empty() {
        return Text::new()
            .say("No week with a forecast has closed yet: there is nothing to hold forecasts against. The first week will tell.")
            .words();
    }
    let mut text = Text::new();
    for record in records {
        let Record { windows, ran_out, caught, false_alarms, .. } = record;
        let lasted = windows - ran_out;
        text = text.strong(&record.estimator).say(&format!(
            ": {windows} closed {}, {ran_out} ran out, {caught} of them foretold at least 2 h ahead; \
             {false_alarms} false {} in {lasted} that lasted. \
             Brier score {:.3} (0 is perfect; always saying the base rate gives {:.3}).",
            plural("week", *windows),
            plural("alarm", *false_alarms),
            record.brier,
            record.brier_of_base_rate
        ));
        text = text.line();
    }
    if records.iter().all(|record| record.windows < 10) {
        text = text.say("Fewer than ten weeks say little.");
    }
    text.words()
}

/// `usage now` while the provider wants to be left alone.
pub(super) fn not_yet(at: Timestamp, now: Timestamp, zone: &TimeZone) -> Words {
    Text::new()
        .say(&format!(
            "⏳ The provider may not be asked before {} ({}): sooner it would shut the door for an hour. ",
            moment(at, now, zone),
            until(at, now)
        ))
        .code("usage")
        .say(" shows what is known.")
        .words()
}

/// Alerts are silent, or not any more.
pub(super) fn muted(until: Option<Timestamp>, now: Timestamp, zone: &TimeZone) -> Words {
    match until {
        Some(at) => Text::new()
            .say(&format!("🔕 Usage alerts are silent until {}. ", moment(at, now, zone)))
            .code("usage mute 0")
            .say(" takes that back.")
            .words(),
        None => Text::new().say("🔔 Usage alerts are told again.").words(),
    }
}

/// Windows that the source has but that could not be read.
pub(super) fn unreadable(account: &str, windows: &[String]) -> Words {
    Text::new()
        .say("⚠️ ")
        .strong(account)
        .say(&format!(
            ": the provider's answer has changed, and {} can no longer be read. Look for a newer Pilothouse.",
            windows.join(", ")
        ))
        .words()
}

/// The login of an account dies soon.
pub(super) fn dying(account: &str, days: u8) -> Words {
    Text::new()
        .say("🔑 ")
        .strong(account)
        .say(&match days {
            0 => ": the login ends today, or has ended.".to_owned(),
            1 => ": the login ends in 1 day.".to_owned(),
            days => format!(": the login ends in {days} days."),
        })
        .say(" Log in again with its own CLAUDE_CONFIG_DIR (")
        .code("claude")
        .say(", ")
        .code("/login")
        .say(") and put the new login where this one is; nothing needs a restart.")
        .words()
}

/// An account cannot be asked until a person does something, or could not for a long time.
pub(super) fn trouble(account: &str, why: &str, age: Option<SignedDuration>) -> Words {
    let since = age.map_or(": ".to_owned(), |age| format!(" for {}: ", long(age)));
    let text = Text::new().say("⚠️ ").strong(account).say(": the subscription cannot be read").say(&since).say(why);
    text.say(if age.is_some() { ". The last numbers stay, and nothing is stopped or started by them." } else { "." })
        .words()
}

#[cfg(test)]
mod tests;
