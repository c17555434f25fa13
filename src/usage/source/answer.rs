//! Reads what the usage endpoint and its relatives say.
//!
//! Each section is read on its own, so that one that was reshaped hides no other. `limits` is the contract; the windows
//! at the top level fill in what it lacks. Percentages are taken as they are, 1.0 is one per cent: a scale that is guessed
//! from the value is wrong exactly at the beginning of a week.

mod money;
mod window;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::SourceError;
use crate::usage::bucket::{Bucket, Kind, Reading, Share, Snapshot, Source};
use window::Window;

/// Windows at the top level and what they limit. Those that are empty and have no date are no windows of the account.
const WINDOWS: &[(&str, &str, Option<&str>)] = &[
    ("five_hour", "session", None),
    ("seven_day", "weekly_all", None),
    ("seven_day_opus", "weekly_scoped", Some("Opus")),
    ("seven_day_sonnet", "weekly_scoped", Some("Sonnet")),
    ("seven_day_cowork", "weekly_scoped", Some("Cowork")),
    ("seven_day_omelette", "weekly_scoped", Some("Omelette")),
    ("seven_day_oauth_apps", "weekly_scoped", Some("OAuth apps")),
];

/// Names without a meaning that people know. Where one has a date, it is credit that expires then.
const CODENAMES: &[&str] = &[
    "tangelo",
    "iguana_necktie",
    "omelette_promotional",
    "nimbus_quill",
    "cinder_cove",
    "amber_ladder",
    "copper_kite",
    "harbor_lantern",
    "juniper_tide",
    "cedar_ember",
    "amber_gauge",
];

/// What else is known. One of the first four, or a window, makes an answer one of the usage endpoint.
const SECTIONS: &[&str] =
    &["limits", "extra_usage", "spend", "model_scoped", "seven_day_breakdown", "member_dashboard_available"];

/// So many unknown keys are named, and so many characters of each.
const NAMED: usize = 32;
const NAME: usize = 64;

/// What is read from an answer, apart from whose it is.
#[derive(Debug, Default)]
struct Found {
    readings: Vec<Reading>,
    shares: Vec<Share>,
    unknown: Vec<String>,
    /// Names of what could not be read, and which bucket that was, where that much is clear.
    unreadable: Vec<(String, Option<Bucket>)>,
}

/// Reads an answer of the usage endpoint.
///
/// # Errors
/// [`SourceError::SchemaDrift`] where nothing in it is known: that is never zero per cent.
pub fn decode(
    account: &str,
    source: Source,
    at: Timestamp,
    plan: Option<&str>,
    body: &Value,
) -> Result<Snapshot, SourceError> {
    let Some(sections) = body.as_object().filter(|sections| is_usage(sections)) else {
        let keys = body.as_object().map(|sections| sections.keys().map(|key| shortened(key)).take(NAMED).collect());
        return Err(SourceError::SchemaDrift(keys.unwrap_or_else(|| vec!["no object".to_owned()])));
    };
    let mut found = Found::default();
    found.limits(account, sections.get("limits"));
    for (key, kind, scope) in WINDOWS {
        let kind = Kind::from((*kind).to_owned());
        let idle = !matches!(kind, Kind::Session | Kind::WeeklyAll);
        found.window(account, key, kind, *scope, idle, sections.get(*key));
    }
    found.models(account, sections.get("model_scoped"));
    found.others(account, sections);
    found.money(account, sections);
    found.breakdown(sections.get("seven_day_breakdown"));
    Ok(found.into_snapshot(account, source, at, plan))
}

/// Says whether an object is an answer of the usage endpoint at all.
pub(super) fn is_usage(sections: &Map<String, Value>) -> bool {
    let known = WINDOWS.iter().map(|(key, ..)| *key).chain(SECTIONS[..4].iter().copied());
    known.into_iter().any(|key| sections.contains_key(key))
}

impl Found {
    /// The list of limits: what binds, per-model ones included.
    fn limits(&mut self, account: &str, limits: Option<&Value>) {
        let rows = match limits {
            None | Some(Value::Null) => return,
            Some(Value::Array(rows)) => rows,
            Some(_) => return self.unreadable.push(("limits".to_owned(), None)),
        };
        for (index, row) in rows.iter().enumerate() {
            let Some(kind) = row.get("kind").and_then(Value::as_str) else {
                self.unreadable.push((format!("limits[{index}]"), None));
                continue;
            };
            let Ok(scope) = window::scope(row.get("scope")) else {
                self.unreadable.push((format!("limits[{index}] {}", shortened(kind)), None));
                continue;
            };
            let kind = Kind::from(shortened(kind));
            if let Kind::Other(word) = &kind {
                self.unknown.push(format!("limits.kind={word}"));
            }
            let bucket = Bucket { account: account.to_owned(), kind, scope };
            let name = format!("limits {}", bucket.kind.word());
            match Window::read(row, "percent") {
                Ok(window) => {
                    let length = row.get("group").and_then(Value::as_str).and_then(window::length);
                    let reading = Reading {
                        active: row.get("is_active").and_then(Value::as_bool).unwrap_or(false),
                        severity: row.get("severity").and_then(Value::as_str).map(shortened),
                        ..window.reading(bucket, length)
                    };
                    self.take(&name, reading, &window);
                }
                Err(()) => self.unreadable.push((name, Some(bucket))),
            }
        }
    }

    /// A window at the top level, which counts where `limits` does not have it. `idle`: empty and without a date it is
    /// only a placeholder.
    fn window(&mut self, account: &str, key: &str, kind: Kind, scope: Option<&str>, idle: bool, value: Option<&Value>) {
        let Some(value) = value.filter(|value| !value.is_null()) else { return };
        let bucket = Bucket { account: account.to_owned(), kind, scope: scope.map(str::to_owned) };
        if self.has(&bucket) {
            return;
        }
        match Window::read(value, "utilization") {
            Ok(window) if idle && window.is_placeholder() => {}
            Ok(window) => self.take(key, window.reading(bucket, None), &window),
            Err(()) if window::is_empty(value) => {}
            Err(()) => self.unreadable.push((key.to_owned(), Some(bucket))),
        }
    }

    /// The CLI's own list of per-model windows.
    fn models(&mut self, account: &str, models: Option<&Value>) {
        for row in models.and_then(Value::as_array).into_iter().flatten() {
            let name = row.get("display_name").and_then(Value::as_str).map(shortened);
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                self.window(account, "model_scoped", Kind::WeeklyScoped, Some(&name), true, Some(row));
            } else {
                self.unreadable.push(("model_scoped".to_owned(), None));
            }
        }
    }

    /// Code names and what this version does not know. Whatever of it is shaped like a window is shown, never foretold.
    fn others(&mut self, account: &str, sections: &Map<String, Value>) {
        for (key, value) in sections {
            let known = WINDOWS.iter().any(|(window, ..)| window == key) || SECTIONS.contains(&key.as_str());
            if known {
                continue;
            }
            if !CODENAMES.contains(&key.as_str()) {
                self.unknown.push(shortened(key));
            }
            let Ok(window) = Window::read(value, "utilization") else { continue };
            if window.is_placeholder() {
                continue;
            }
            let key = shortened(key);
            let bucket = |kind, scope| Bucket { account: account.to_owned(), kind, scope };
            if let Some(model) = key.strip_prefix("seven_day_") {
                let bucket = bucket(Kind::WeeklyScoped, Some(window::title(model)));
                if !self.has(&bucket) {
                    self.take(&key, window.reading(bucket, None), &window);
                }
            } else {
                let reading = window.expiry(bucket(Kind::Other(key.clone()), None), value);
                self.take(&key, reading, &window);
            }
        }
    }

    fn money(&mut self, account: &str, sections: &Map<String, Value>) {
        match money::read(account, sections.get("extra_usage"), sections.get("spend")) {
            Ok(reading) => self.readings.extend(reading),
            Err(section) => {
                let bucket = Bucket { account: account.to_owned(), kind: Kind::Extra, scope: None };
                self.unreadable.push((section.to_owned(), Some(bucket)));
            }
        }
    }

    /// What burned the week.
    fn breakdown(&mut self, breakdown: Option<&Value>) {
        let rows = match breakdown {
            None | Some(Value::Null) => return,
            Some(breakdown) => breakdown.get("rows").and_then(Value::as_array),
        };
        let Some(rows) = rows else { return self.unknown.push("seven_day_breakdown without rows".to_owned()) };
        for row in rows {
            let name = row.get("display_name").or_else(|| row.get("key")).and_then(Value::as_str);
            match (name, row.get("percent").and_then(Value::as_f64)) {
                (Some(name), Some(percent)) => self.shares.push(Share { name: shortened(name), percent }),
                _ => self.unknown.push("seven_day_breakdown.rows".to_owned()),
            }
        }
    }

    /// Takes a reading; a date that cannot be read is told, the value counts all the same.
    fn take(&mut self, name: &str, reading: Reading, window: &Window) {
        if window.date_unreadable {
            self.unreadable.push((format!("{name}.resets_at"), None));
        }
        if !self.has(&reading.bucket) {
            self.readings.push(reading);
        }
    }

    /// Says whether a bucket was read already; the provider is not steady about capital letters.
    fn has(&self, bucket: &Bucket) -> bool {
        let same = |one: &Option<String>, other: &Option<String>| match (one, other) {
            (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
            (one, other) => one == other,
        };
        self.readings
            .iter()
            .any(|reading| reading.bucket.kind == bucket.kind && same(&reading.bucket.scope, &bucket.scope))
    }

    fn into_snapshot(mut self, account: &str, source: Source, at: Timestamp, plan: Option<&str>) -> Snapshot {
        // What another section makes up for is a change of shape, no loss.
        let mut unreadable = Vec::new();
        for (name, bucket) in std::mem::take(&mut self.unreadable) {
            if bucket.is_some_and(|bucket| self.has(&bucket)) {
                self.unknown.push(name);
            } else {
                unreadable.push(name);
            }
        }
        Snapshot {
            account: account.to_owned(),
            source,
            at,
            owner: None,
            readings: self.readings,
            shares: self.shares,
            plan: plan.map(shortened).filter(|plan| !plan.is_empty()),
            unknown: once(self.unknown),
            unreadable: once(unreadable),
        }
    }
}

/// Each name once, in order, and not without end.
fn once(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names.truncate(NAMED);
    names
}

/// A word of the provider, fit for people's eyes: no control characters, not longer than a name is.
fn shortened(word: &str) -> String {
    word.chars().filter(|letter| !letter.is_control()).take(NAME).collect()
}

#[cfg(test)]
mod tests;
