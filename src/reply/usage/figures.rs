//! Names, times and amounts as people say them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::reply::span;
use crate::usage::bucket::{Bucket, Kind, Reading, Unit};

/// Day and time.
const DATED: &str = "%a %-d %b %H:%M";

/// Draws how full something is, ten cells wide.
#[must_use]
pub fn bar(percent: f64) -> String {
    const CELLS: usize = 10;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10")]
    let full = (percent.clamp(0.0, 100.0) / 10.0).floor() as usize;
    format!("{}{}", "▓".repeat(full), "░".repeat(CELLS - full))
}

/// Names a bucket for people.
#[must_use]
pub fn name(bucket: &Bucket) -> String {
    let kind = match &bucket.kind {
        Kind::Session => "5-hour window".to_owned(),
        Kind::WeeklyAll => "week".to_owned(),
        Kind::WeeklyScoped => "week of".to_owned(),
        Kind::Extra => "extra usage".to_owned(),
        Kind::Other(word) => word.replace('_', " "),
    };
    match &bucket.scope {
        Some(scope) => format!("{kind} {scope}"),
        None if bucket.kind == Kind::WeeklyScoped => "week of one model".to_owned(),
        None => kind,
    }
}

/// A time as people say it: of today the hour, of this week the day too.
pub(super) fn moment(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (at, now) = (minute(at, zone), now.to_zoned(zone.clone()));
    let days = at.date().since(now.date()).map_or(i32::MAX, |span| span.get_days());
    match days {
        0 => at.strftime("%H:%M").to_string(),
        -6..=6 => at.strftime("%a %H:%M").to_string(),
        _ => at.strftime(DATED).to_string(),
    }
}

/// A time with its day, for words that may be read days later.
pub(in crate::reply) fn dated(at: Timestamp, zone: &TimeZone) -> String {
    minute(at, zone).strftime(DATED).to_string()
}

/// The nearest minute, because the provider's times jitter around it.
fn minute(at: Timestamp, zone: &TimeZone) -> Zoned {
    at.round(jiff::Unit::Minute).unwrap_or(at).to_zoned(zone.clone())
}

pub(super) fn until(at: Timestamp, now: Timestamp) -> String {
    let left = at.duration_since(now);
    let left = left.round(jiff::Unit::Second).unwrap_or(left);
    if left.is_positive() { format!("in {}", long(left)) } else { format!("{} ago", long(left.abs())) }
}

/// As [`span`], with the hours of days.
pub(super) fn long(duration: SignedDuration) -> String {
    let hours = duration.as_hours();
    match (hours / 24, hours % 24) {
        (0, _) => span(duration),
        (days, 0) => format!("{days} d"),
        (days, hours) => format!("{days} d {hours} h"),
    }
}

pub(super) fn percent(value: f64) -> String {
    format!("{:.0} %", value.floor())
}

pub(super) fn amount(minor: f64, currency: &str, exponent: u8) -> String {
    let value = minor / 10f64.powi(i32::from(exponent));
    format!("{value:.*} {currency}", usize::from(exponent))
}

/// What is spent, and of how much; `None` for what is no money.
pub(super) fn money(reading: &Reading) -> Option<String> {
    let Unit::Money { currency, exponent } = &reading.unit else { return None };
    let of =
        reading.limit.map_or(" (no limit)".to_owned(), |limit| format!(" of {}", amount(limit, currency, *exponent)));
    Some(format!("{}{of}", amount(reading.used, currency, *exponent)))
}

pub(super) fn plural(noun: &str, count: u32) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}
