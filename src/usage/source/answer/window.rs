//! One window: how full it is and when it begins anew.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::usage::bucket::{Bucket, Kind, Reading, Reset, Unit};
use crate::usage::wire::moment;

/// More than this is no percentage. A little over 100 is.
const MOST: f64 = 1_000.0;

/// What every shape of a window says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Window {
    percent: f64,
    resets_at: Option<Timestamp>,
    /// There is a date, in a form that is not known.
    pub(super) date_unreadable: bool,
}

impl Window {
    /// Reads an object with a percentage under `key` and `resets_at`.
    pub(super) fn read(value: &Value, key: &str) -> Result<Self, ()> {
        let percent =
            value.get(key).and_then(Value::as_f64).filter(|percent| (0.0..=MOST).contains(percent)).ok_or(())?;
        let date = value.get("resets_at").filter(|date| !date.is_null());
        let resets_at = date.and_then(moment);
        Ok(Self { percent, resets_at, date_unreadable: date.is_some() && resets_at.is_none() })
    }

    /// Empty and without a date: a key that stands there for accounts that have more.
    pub(super) fn is_placeholder(&self) -> bool {
        self.percent <= 0.0 && self.resets_at.is_none() && !self.date_unreadable
    }

    /// The reading of a rolling window. `length` is for kinds that do not say how long they are.
    pub(super) fn reading(&self, bucket: Bucket, length: Option<SignedDuration>) -> Reading {
        Reading {
            unit: Unit::Percent,
            used: self.percent,
            limit: None,
            window: bucket.kind.window().or(length),
            resets_at: self.resets_at,
            reset: Reset::Rolling,
            active: false,
            severity: None,
            bucket,
        }
    }

    /// The reading of credit that expires once, in money where the answer has it.
    pub(super) fn expiry(&self, bucket: Bucket, value: &Value) -> Reading {
        let reset = if self.resets_at.is_some() { Reset::OneTimeExpiry } else { Reset::None };
        let dollars = |key| value.get(key).and_then(Value::as_f64).filter(|dollars| *dollars >= 0.0);
        let reading = Reading { reset, window: None, ..self.reading(bucket, None) };
        match (dollars("used_dollars"), dollars("limit_dollars")) {
            (Some(used), Some(limit)) if limit > 0.0 => Reading {
                unit: Unit::Money { currency: "USD".to_owned(), exponent: 2 },
                used: (used * 100.0).round(),
                limit: Some((limit * 100.0).round()),
                ..reading
            },
            _ => reading,
        }
    }
}

/// Says whether a window is there in name only.
pub(super) fn is_empty(value: &Value) -> bool {
    let missing = |key| value.get(key).is_none_or(Value::is_null);
    value.is_object() && missing("utilization") && missing("resets_at")
}

/// Length of the windows of a group.
pub(super) fn length(group: &str) -> Option<SignedDuration> {
    match group {
        "session" => Kind::Session.window(),
        "weekly" => Kind::WeeklyAll.window(),
        _ => None,
    }
}

/// Reads to what a limit is scoped: a model, a surface, or both. An object of another shape is an error, because two
/// limits must not become one.
pub(super) fn scope(scope: Option<&Value>) -> Result<Option<String>, ()> {
    let Some(scope) = scope.filter(|scope| !scope.is_null()) else { return Ok(None) };
    let name = |key: &str| {
        let part = scope.get(key).filter(|part| !part.is_null())?;
        let word = |key: &str| part.get(key).and_then(Value::as_str);
        let name = part.as_str().or_else(|| word("display_name")).or_else(|| word("name")).or_else(|| word("id"));
        name.map(super::shortened).filter(|name| !name.is_empty())
    };
    match (name("model"), name("surface")) {
        (Some(model), Some(surface)) => Ok(Some(format!("{model} on {surface}"))),
        (Some(one), None) | (None, Some(one)) => Ok(Some(one)),
        (None, None) => {
            let empty = |key: &str| scope.get(key).is_none_or(Value::is_null);
            let known = scope.get("model").is_some() || scope.get("surface").is_some();
            if known && empty("model") && empty("surface") { Ok(None) } else { Err(()) }
        }
    }
}

/// A key as a name: `new_model` is `New model`.
pub(super) fn title(key: &str) -> String {
    let words = key.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
