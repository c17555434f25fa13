//! Reads the merged layers key by key, and notes every fault and every origin on the way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::value::Value;
use serde::de::DeserializeOwned;

use super::finding::{Finding, Findings, Origin};
use super::keys::{self, Shape};
use super::{Secret, secret};

/// The merged layers.
pub(super) struct Reader {
    figment: Figment,
    tree: Value,
    /// Keys whose layer has more than one origin.
    parts: BTreeMap<String, Origin>,
    /// Faults so far.
    pub(super) findings: Vec<Finding>,
    /// What works, but should be known.
    pub(super) warnings: Vec<String>,
    /// Where each key that was read came from.
    pub(super) origins: BTreeMap<String, Origin>,
}

/// A key that was read: `None` if its fault is noted, `Some(None)` if it is not given.
pub(super) type Read<T> = Option<Option<T>>;

impl Reader {
    /// Begins with the faults and warnings that the layers had, and with the origins of keys that are not their layer's.
    pub(super) fn new(
        figment: Figment,
        parts: BTreeMap<String, Origin>,
        findings: Vec<Finding>,
        warnings: Vec<String>,
    ) -> Result<Self, Findings> {
        let tree = figment.find_value("").map_err(|error| {
            let fault = error.kind.to_string();
            Findings(vec![Finding {
                key: "configuration".to_owned(),
                origin: None,
                fault,
                remedy: "Report it".to_owned(),
            }])
        })?;
        Ok(Self { figment, tree, parts, findings, warnings, origins: BTreeMap::new() })
    }

    /// Gives the value of a key and its origin, `targets[2].name` included.
    fn given(&self, key: &str) -> Option<(&Value, Origin)> {
        let value = key.split('.').try_fold(&self.tree, |value, part| {
            let (name, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
                Some((name, index)) => (name, Some(index.parse::<usize>().ok()?)),
                None => (part, None),
            };
            let inner = value.as_dict()?.get(name)?;
            index.map_or(Some(inner), |index| inner.as_array()?.get(index))
        })?;
        let of_layer = || self.figment.get_metadata(value.tag()).map_or(Origin::Default, Origin::of);
        let origin = self.parts.get(key).cloned().unwrap_or_else(of_layer);
        Some((value, origin))
    }

    /// Tells whether anything gives this key.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given(key).is_some()
    }

    /// Gives the origin of a key, if anything gives it.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        self.given(key).map(|(_, origin)| origin)
    }

    /// Gives the number of rows of a list of tables; `None` if it is something else.
    pub(super) fn rows(&mut self, key: &str) -> Option<usize> {
        let Some((value, origin)) = self.given(key) else { return Some(0) };
        let tables = value.as_array().filter(|rows| rows.iter().all(|row| row.as_dict().is_some()));
        let Some(count) = tables.map(<[Value]>::len) else {
            self.fault(key, "is not a list of tables", &advice(key, &origin));
            return None;
        };
        self.origins.insert(key.to_owned(), origin);
        Some(count)
    }

    /// Reads a key that need not be given.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Read<T> {
        debug_assert!(keys::shape(key).is_some(), "{key} is missing in KEYS");
        let Some((value, origin)) = self.given(key) else { return Some(None) };
        match value.deserialize::<T>() {
            Ok(value) => {
                self.origins.insert(key.to_owned(), origin);
                Some(Some(value))
            }
            Err(error) => {
                self.fault(key, &fault(key, &error.kind), &advice(key, &origin));
                None
            }
        }
    }

    /// Reads a key that is given in the defaults, or must be.
    pub(super) fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let read = self.optional(key)?;
        if read.is_none() {
            self.missing(key);
        }
        read
    }

    /// Reads a key that has a default of its own.
    pub(super) fn or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Option<T> {
        let read = self.optional(key)?;
        if read.is_none() {
            self.origins.insert(key.to_owned(), Origin::Default);
        }
        Some(read.unwrap_or(default))
    }

    /// Reads text that means something else, `noun` (`a URL`).
    pub(super) fn parsed<T: FromStr>(&mut self, key: &str, noun: &str) -> Read<T> {
        let Some(text) = self.optional::<String>(key)? else { return Some(None) };
        if let Ok(value) = text.trim().parse() {
            return Some(Some(value));
        }
        let advice = advice(key, &self.origin(key).unwrap_or(Origin::Default));
        self.fault(key, &format!("is not {noun}"), &advice);
        None
    }

    /// Reads a secret, or the file that its second key names.
    pub(super) fn secret(&mut self, key: &str) -> Read<Secret> {
        let file = format!("{key}_file");
        if let (Some(first), Some(second)) = (self.origin(key), self.origin(&file)) {
            self.fault(key, &format!("is given by {first}, and as {file} by {second}"), "Keep one of the two");
            return None;
        }
        if let Some(text) = self.optional::<String>(key)? {
            if text.is_empty() {
                self.fault(key, "is empty", "Write the secret, or remove the key");
                return None;
            }
            return Some(Some(Secret::new(text)));
        }
        let Some(path) = self.optional::<PathBuf>(&file)? else { return Some(None) };
        match secret::read(&path) {
            Ok((secret, warning)) => {
                self.warnings.extend(warning.map(|warning| format!("{key}: {warning}")));
                if let Some(named_by) = self.origins.remove(&file) {
                    self.origins.insert(key.to_owned(), Origin::SecretFile { path, named_by: Box::new(named_by) });
                }
                Some(Some(secret))
            }
            Err((fault, remedy)) => {
                self.fault(&file, &fault, &remedy);
                None
            }
        }
    }

    /// Notes what is wrong with a key.
    pub(super) fn fault(&mut self, key: &str, fault: &str, remedy: &str) {
        // A section has no origin of its own; a key that a row of a list lacks has the list's.
        let list = key.split_once('[').map(|(list, _)| list);
        let origin = keys::shape(key).and_then(|_| self.origin(key).or_else(|| self.origin(list?)));
        self.findings.push(Finding { key: key.to_owned(), origin, fault: fault.to_owned(), remedy: remedy.to_owned() });
    }

    /// Notes that a key is missing.
    pub(super) fn missing(&mut self, key: &str) {
        let file = Origin::File(PathBuf::new());
        self.fault(key, "is not given", &advice(key, &file));
    }

    /// Notes what works, but should be known.
    pub(super) fn warn(&mut self, key: &str, text: &str) {
        let origin = self.origin(key).map_or(String::new(), |origin| format!(" ({origin})"));
        self.warnings.push(format!("{key}{origin}: {text}"));
    }
}

/// Says what is wrong with a value, without the value: it may be a secret in the wrong place.
fn fault(key: &str, kind: &Kind) -> String {
    let wanted = match keys::shape(key) {
        Some(Shape::Text(_) | Shape::Secret) => "text".to_owned(),
        Some(Shape::Flag) => "true or false".to_owned(),
        Some(Shape::Count) => "a whole number".to_owned(),
        Some(Shape::Choice(words)) => format!("one of {}", words.join(", ")),
        Some(Shape::Number(_)) => "a number".to_owned(),
        Some(Shape::Numbers(_)) => "a list of numbers".to_owned(),
        Some(Shape::Words(_)) => "a list of texts".to_owned(),
        Some(Shape::Map) => "a table of texts".to_owned(),
        Some(Shape::Tables) | None => "a list of tables".to_owned(),
    };
    match kind {
        Kind::InvalidType(actual, _) => format!("is {}, not {wanted}", noun(actual)),
        _ if matches!(keys::shape(key), Some(Shape::Choice(_))) => "is not a word for this".to_owned(),
        Kind::InvalidValue(..) | Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "is out of range".to_owned(),
        _ => format!("is not {wanted}"),
    }
}

fn noun(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a number",
        Actual::Float(_) => "a number with a fraction",
        Actual::Str(_) | Actual::Char(_) | Actual::Bytes(_) => "text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

/// Says what to write instead, in the language of the source.
pub(super) fn advice(key: &str, origin: &Origin) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    match (keys::shape(key), origin) {
        (Some(Shape::Text(example)), Origin::Variable(variable)) => format!("Write for instance {variable}={example}"),
        (Some(Shape::Text(example)), _) => format!("Write for instance {name} = \"{example}\""),
        (Some(Shape::Words(example)), Origin::Variable(variable)) => {
            format!("Write for instance {variable}={example}, more of them separated by commas")
        }
        (Some(Shape::Words(example)), _) => format!("Write for instance {name} = [\"{example}\"]"),
        (Some(Shape::Secret), _) => "Put it in quotes".to_owned(),
        (Some(Shape::Flag), _) => "Write true or false".to_owned(),
        (Some(Shape::Count), _) => "Write a whole number".to_owned(),
        (Some(Shape::Number(example) | Shape::Numbers(example)), _) => {
            format!("Write for instance {name} = {example}")
        }
        (Some(Shape::Choice(words)), _) => format!("Write one of {}", words.join(", ")),
        (Some(Shape::Map), _) => format!("Write [{key}] with lines \"name\" = \"text\" below"),
        (Some(Shape::Tables) | None, _) => format!("Write [[{key}]] with its keys below"),
    }
}
