//! What the environment alone says, before anything is judged: where a first configuration begins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};

use super::finding::{Finding, Origin};
use super::keys::{self, Shape};
use super::sources::{FILE_VARIABLE, Sources};
use super::{Secret, environment, predecessor, secret};

/// What the environment alone says, the predecessor's variables included.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Key as in the file, `matrix.homeserver`, and its value. Secrets are not among them.
    pub keys: BTreeMap<String, toml::Value>,
    /// Key of a secret, `matrix.password`, and the secret, also where a variable names its file.
    pub secrets: BTreeMap<String, Secret>,
    /// Key and the variable that gave it, in both cases.
    pub variables: BTreeMap<String, String>,
    /// Variables that say nothing that a file could.
    pub findings: Vec<Finding>,
    /// What works, but not as the variable reads; whole sentences.
    pub warnings: Vec<String>,
    /// File that the daemon would read: `PILOTHOUSE_CONFIG`.
    pub file: Option<PathBuf>,
    /// Folder of the Claude installation of whoever asks.
    pub claude: Option<ClaudeFolder>,
}

/// Folder of a Claude installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaudeFolder {
    /// Its path.
    pub path: PathBuf,
    /// Whether somebody named it (`CLAUDE_CONFIG_DIR`), or it is the usual one, `~/.claude`.
    pub named: bool,
}

impl Surroundings {
    /// Reads the variables. Our own names win over the predecessor's.
    #[must_use]
    pub fn of(sources: &Sources) -> Self {
        let mut surroundings = Self {
            file: sources.variable(FILE_VARIABLE).map(PathBuf::from),
            claude: environment::claude(sources),
            ..Self::default()
        };
        let mut inherited = predecessor::read(sources);
        surroundings.warnings = std::mem::take(&mut inherited.warnings);
        surroundings.findings = std::mem::take(&mut inherited.findings);
        if !inherited.layers.is_empty() && !environment::is_used(sources) {
            surroundings.take(&predecessor::habits().keys, "the environment of openclaw-k8s-toggle-operator");
        }
        let own = environment::layers(sources, &mut surroundings.findings);
        let parts = inherited.parts(&own);
        let layers = environment::local_mode(sources).into_iter();
        let layers = layers.chain(inherited.layers.into_iter().map(|(_, layer)| layer)).chain(own);
        for layer in layers.collect::<Vec<_>>() {
            surroundings.take(&layer.keys, &layer.origin.to_string());
        }
        // Each variable of the one row, so that whoever leaves the environment behind leaves all of it.
        for (key, origin) in parts {
            surroundings.variables.remove("targets");
            if let Origin::Variable(name) = origin {
                surroundings.variables.insert(key, name);
            }
        }
        surroundings.warnings.extend(environment::near_misses(sources));
        surroundings
    }

    fn take(&mut self, keys: &Dict, variable: &str) {
        let mut leaves = Vec::new();
        flatten("", keys, &mut leaves);
        for (key, value) in leaves {
            if let Err(finding) = self.take_one(&key, value, variable) {
                self.findings.push(finding);
            }
        }
    }

    fn take_one(&mut self, key: &str, value: &Value, variable: &str) -> Result<(), Finding> {
        let origin = || Origin::Variable(variable.to_owned());
        let holds_secret = |key: &str| matches!(keys::shape(key), Some(Shape::Secret));
        if let (true, Some(text)) = (holds_secret(key), value.as_str()) {
            self.keep_secret(key, Secret::new(text), variable);
            return Ok(());
        }
        // A ready JSON Web Token is read again at each login, so its file stays where it is.
        let of_file = key.strip_suffix("_file").filter(|inner| holds_secret(inner) && *inner != "matrix.jwt.token");
        if let (Some(inner), Some(path)) = (of_file, value.as_str()) {
            let secret = secret_in(Path::new(path)).map_err(|finding| Finding { origin: Some(origin()), ..finding })?;
            self.keep_secret(inner, secret, variable);
            return Ok(());
        }
        let value = toml::Value::try_from(value).map_err(|_| Finding {
            key: key.to_owned(),
            origin: Some(origin()),
            fault: "has a value of a kind that no key takes".to_owned(),
            remedy: "Unset it".to_owned(),
        })?;
        self.keys.insert(key.to_owned(), value);
        self.variables.insert(key.to_owned(), variable.to_owned());
        Ok(())
    }

    fn keep_secret(&mut self, key: &str, secret: Secret, variable: &str) {
        self.secrets.insert(key.to_owned(), secret);
        self.variables.insert(key.to_owned(), variable.to_owned());
    }
}

/// Gives each key with its value. What is a table of texts or a list of tables is one value.
fn flatten<'a>(parent: &str, table: &'a Dict, leaves: &mut Vec<(String, &'a Value)>) {
    for (name, value) in table {
        let key = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        match value {
            Value::Dict(_, inner) if keys::shape(&key).is_none() => flatten(&key, inner, leaves),
            _ => leaves.push((key, value)),
        }
    }
}

/// Reads a secret from a file, without the newline at its end.
///
/// # Errors
/// That it cannot be read or is empty, and what to do.
pub fn secret_in(path: &Path) -> Result<Secret, Finding> {
    let key = path.display().to_string();
    let failed = |(fault, remedy)| Finding { key, origin: None, fault, remedy };
    secret::read(path).map(|(secret, _)| secret).map_err(failed)
}
