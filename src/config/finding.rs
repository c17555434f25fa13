//! What is wrong with a configuration, and where a value came from.

use std::fmt;
use std::path::PathBuf;

use figment::{Metadata, Source};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// A default that differs because the predecessor's environment is all there is.
    Predecessor,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable, by its name.
    Variable(String),
    /// A file that holds a secret.
    SecretFile {
        /// Its path.
        path: PathBuf,
        /// What gave the path.
        named_by: Box<Origin>,
    },
}

impl Origin {
    /// Writes the origin down for a layer; [`Origin::of`] reads it back.
    pub(super) fn metadata(&self) -> Metadata {
        match self {
            Self::Default | Self::SecretFile { .. } => Metadata::named("default"),
            Self::Predecessor => Metadata::named("predecessor"),
            Self::File(path) => Metadata::from("file", path.as_path()),
            Self::Variable(name) => Metadata::from("variable", Source::Custom(name.clone())),
        }
    }

    /// Reads the origin of a value from its layer.
    pub(super) fn of(metadata: &Metadata) -> Self {
        match &metadata.source {
            Some(Source::File(path)) => Self::File(path.clone()),
            Some(Source::Custom(name)) => Self::Variable(name.clone()),
            _ if metadata.name == "predecessor" => Self::Predecessor,
            _ => Self::Default,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Predecessor => f.write_str("default beside the environment of openclaw-k8s-toggle-operator"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::SecretFile { path, named_by } => write!(f, "{} by {named_by}", path.display()),
        }
    }
}

/// One fault: the key, where its value came from, what is wrong and what to do. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Key as in the file, `matrix.homeserver`; or the file, where the file itself is the fault.
    pub key: String,
    /// Where the value came from; `None` where nothing gave one.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub fault: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}. {}.", self.fault, self.remedy)
    }
}

/// Every fault of a configuration, in the order of its sections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has a fault:")?,
            n => write!(f, "the configuration has {n} faults:")?,
        }
        self.0.iter().try_for_each(|finding| write!(f, "\n  - {finding}"))
    }
}

impl std::error::Error for Findings {}
