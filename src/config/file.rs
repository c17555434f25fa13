//! One layer of the configuration, and the one that a TOML text is.

use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::finding::{Finding, Origin};

/// Some keys with one origin.
pub(super) struct Layer {
    /// Where all of them came from.
    pub(super) origin: Origin,
    /// The keys, in their sections.
    pub(super) keys: Dict,
}

impl Layer {
    /// Makes a layer of one key, `matrix.homeserver`.
    pub(super) fn of(origin: Origin, key: &str, value: impl Into<Value>) -> Self {
        let mut inner = value.into();
        for name in key.rsplit('.').take(key.matches('.').count()) {
            inner = Value::from(Dict::from([(name.to_owned(), inner)]));
        }
        let first = key.split('.').next().unwrap_or(key);
        Self { origin, keys: Dict::from([(first.to_owned(), inner)]) }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.origin.metadata()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.keys.clone())]))
    }
}

/// Gives the defaults.
pub(super) fn defaults() -> Result<Layer, Finding> {
    parse(include_str!("defaults.toml"), Origin::Default, "defaults.toml")
}

/// Reads a configuration file.
pub(super) fn read(path: &Path) -> Result<Layer, Finding> {
    let origin = Origin::File(path.to_owned());
    let text = std::fs::read_to_string(path).map_err(|error| Finding {
        key: path.display().to_string(),
        origin: None,
        fault: format!("cannot be read: {error}"),
        remedy: "Make it a text file that the user of pilothouse may read".to_owned(),
    })?;
    parse(&text, origin, &path.display().to_string())
}

/// Reads a TOML text. A syntax error is told by its place: its line may hold a secret, so the line is not repeated.
fn parse(text: &str, origin: Origin, name: &str) -> Result<Layer, Finding> {
    let faulty = |fault| Finding {
        key: name.to_owned(),
        origin: None,
        fault,
        remedy: "Correct the TOML: text stands in quotes, a section in [brackets]".to_owned(),
    };
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
        faulty(format!("line {line} is not TOML"))
    })?;
    match Value::serialize(&table) {
        Ok(Value::Dict(_, keys)) => Ok(Layer { origin, keys }),
        _ => Err(faulty("has a value of a kind that no key takes".to_owned())),
    }
}
