//! `PILOTHOUSE__SECTION__KEY`: the key's shape decides how the text of the variable is read, so that a password of
//! digits stays text.
//!
//! A list of texts is separated by commas (or a TOML array); tables are written as in TOML:
//! `PILOTHOUSE__TARGETS=[{ name = "web", namespace = "apps" }]`.
//!
//! `LOCAL_MODE=true` (with `CLAUDE_CONFIG_DIR`, else `~/.claude`) names the watched account where nothing else does.

use std::path::Path;

use figment::value::{Dict, Value};

use super::file::Layer;
use super::finding::{Finding, Origin};
use super::keys::{self, Shape};
use super::sources::Sources;
use super::surroundings::ClaudeFolder;

/// What every variable of this layer begins with.
pub(super) const PREFIX: &str = "PILOTHOUSE__";

/// Gives the variable of a key: `PILOTHOUSE__MATRIX__USER`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Reads every variable of this layer, one layer each.
pub(super) fn layers(sources: &Sources, findings: &mut Vec<Finding>) -> Vec<Layer> {
    let names = sources.environment.keys().filter(|name| name.starts_with(PREFIX));
    let mut layers = Vec::new();
    for name in names {
        match layer(sources, name) {
            Ok(layer) => layers.extend(layer),
            Err(finding) => findings.push(finding),
        }
    }
    layers
}

fn layer(sources: &Sources, name: &str) -> Result<Option<Layer>, Finding> {
    let Some(raw) = sources.variable(name) else { return Ok(None) };
    let origin = Origin::Variable(name.to_owned());
    let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
    let Some(shape) = keys::shape(&key).filter(|_| !key.contains('[')) else {
        return Err(keys::unknown_key(key, origin));
    };
    let Some(text) = raw.to_str() else { return Err(not_text(key, name)) };
    match value(text, shape) {
        Some(value) => {
            let layer = Layer::of(origin.clone(), &key, value);
            match keys::unknown(&layer.keys, &origin).into_iter().next() {
                None => Ok(Some(layer)),
                Some(finding) => Err(finding),
            }
        }
        None => Err(Finding {
            fault: "is not TOML".to_owned(),
            remedy: match shape {
                Shape::Map => format!("Write a table, for instance {name}='{{ \"@you:example.org\" = \"…\" }}'"),
                Shape::Tables => {
                    format!("Write a list of tables, for instance {name}='[{{ {} }}]'", example(&key))
                }
                _ => format!("Separate the texts by commas, or write {name}='[\"one\", \"two\"]'"),
            },
            origin: Some(origin),
            key,
        }),
    }
}

fn example(key: &str) -> &'static str {
    if key == "targets" { r#"name = "web", namespace = "apps""# } else { r#"verbs = ["status"], targets = ["web"]"# }
}

/// Describes a variable that is not UTF-8.
pub(super) fn not_text(key: String, name: &str) -> Finding {
    Finding {
        key,
        origin: Some(Origin::Variable(name.to_owned())),
        fault: "is not UTF-8 text".to_owned(),
        remedy: "Write it again as plain text".to_owned(),
    }
}

/// Reads a variable's text as its key wants it; what does not fit stays text, and is told where the key is read.
fn value(text: &str, shape: Shape) -> Option<Value> {
    Some(match shape {
        Shape::Text(_) | Shape::Secret | Shape::Choice(_) => Value::from(text),
        Shape::Flag => flag(text).map_or_else(|| Value::from(text), Value::from),
        Shape::Number(_) => text.trim().parse::<f64>().map_or_else(|_| Value::from(text), Value::from),
        Shape::Words(_) | Shape::Numbers(_) if text.trim_start().starts_with('[') => toml_value(text)?,
        Shape::Numbers(_) => numbers(text).map_or_else(|| Value::from(text), Value::from),
        Shape::Count => text.trim().parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
        Shape::Words(_) => Value::from(words(text)),
        Shape::Map | Shape::Tables => toml_value(text)?,
    })
}

/// `LOCAL_MODE`: the login of a Claude installation on this machine is the watched account, where nothing else names one.
pub(super) fn local_mode(sources: &Sources) -> Option<Layer> {
    let on = sources.variable("LOCAL_MODE")?.to_str().and_then(flag)?;
    let folder = claude(sources)?.path;
    let account = Dict::from([("directory".to_owned(), Value::from(folder.to_str()?))]);
    on.then(|| Layer::of(Origin::Variable("LOCAL_MODE".to_owned()), "usage.accounts", vec![Value::from(account)]))
}

/// Gives the folder of the Claude installation of whoever runs this.
pub(super) fn claude(sources: &Sources) -> Option<ClaudeFolder> {
    match (sources.variable("CLAUDE_CONFIG_DIR"), sources.variable("HOME")) {
        (Some(folder), _) => Some(ClaudeFolder { path: Path::new(folder).to_owned(), named: true }),
        (None, Some(home)) => Some(ClaudeFolder { path: Path::new(home).join(".claude"), named: false }),
        (None, None) => None,
    }
}

fn toml_value(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    Value::serialize(table.get("value")?).ok()
}

fn numbers(text: &str) -> Option<Vec<f64>> {
    words(text).iter().map(|number| number.parse().ok()).collect()
}

/// Splits at commas.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn flag(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Tells whether any variable of this layer is set.
pub(super) fn is_used(sources: &Sources) -> bool {
    sources.environment.keys().any(|name| name.starts_with(PREFIX) && sources.variable(name).is_some())
}

/// Warns of variables with one underscore too few: `PILOTHOUSE_MATRIX_USER`. Names that Kubernetes sets for a Service
/// called pilothouse (`PILOTHOUSE_PORT` …) are none of ours.
pub(super) fn near_misses(sources: &Sources) -> Vec<String> {
    let meant = |name: &String| {
        let rest = name.strip_prefix("PILOTHOUSE_").filter(|rest| !rest.starts_with('_'))?.to_lowercase();
        let same = |known: &str| known.replace('.', "_") == rest.replace("__", "_");
        let (key, _) = keys::KEYS.iter().find(|(known, _)| same(known))?;
        Some(format!("{name} has no effect. Write {} with two underscores each time.", variable(key)))
    };
    sources.environment.keys().filter_map(meant).collect()
}
