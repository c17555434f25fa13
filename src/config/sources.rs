//! What a configuration is read from.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::finding::{Finding, Origin};

/// Variable that names the configuration file.
pub(super) const FILE_VARIABLE: &str = "PILOTHOUSE_CONFIG";

/// What a configuration is read from. Reading the same sources again is how a changed file takes effect.
#[derive(Clone)]
pub struct Sources {
    /// The file of `--config`: must exist.
    pub argument: Option<PathBuf>,
    /// Every environment variable.
    pub environment: BTreeMap<String, OsString>,
    /// Files that are looked for, in this order, when neither the argument nor `PILOTHOUSE_CONFIG` names one.
    pub usual: Vec<PathBuf>,
}

impl Sources {
    /// Takes the environment of this process, as it is now.
    ///
    /// The home of the whole program's environment: other parts receive values.
    #[must_use]
    pub fn from_process(argument: Option<PathBuf>) -> Self {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        let usual = ["pilothouse.toml", "/etc/pilothouse/pilothouse.toml"].map(PathBuf::from).to_vec();
        Self { argument, environment, usual }
    }

    /// Gives a variable that is set and not empty: an empty one counts as not set.
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Gives the path of the configuration file, if there is one, and what named it.
    pub(super) fn file(&self) -> Result<Option<&Path>, Finding> {
        let named = self.argument.as_deref().map(|path| (path, Origin::Variable("--config".to_owned())));
        let named = named.or_else(|| {
            let path = self.variable(FILE_VARIABLE)?;
            Some((Path::new(path), Origin::Variable(FILE_VARIABLE.to_owned())))
        });
        if let Some((path, origin)) = named {
            return if is_there(path)? { Ok(Some(path)) } else { Err(missing(path, origin)) };
        }
        for path in &self.usual {
            if is_there(path)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

fn missing(path: &Path, origin: Origin) -> Finding {
    Finding {
        key: path.display().to_string(),
        origin: Some(origin),
        fault: "there is no such file".to_owned(),
        remedy: "Name an existing configuration file".to_owned(),
    }
}

/// Tells whether there is a file. One that is hidden (a folder that may not be entered) is a fault: the daemon must not run
/// without the rules that are written there.
fn is_there(path: &Path) -> Result<bool, Finding> {
    match path.metadata() {
        Ok(found) => Ok(found.is_file()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(Finding {
            key: path.display().to_string(),
            origin: None,
            fault: format!("whether it is there cannot be seen: {error}"),
            remedy: "Let the user of pilothouse enter its folder, or name another file with --config".to_owned(),
        }),
    }
}

// The environment holds secrets.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("argument", &self.argument).field("usual", &self.usual).finish_non_exhaustive()
    }
}
