//! The configuration as it grows by answers, the text that it becomes, and what [`Config::load`] thinks of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::answers::Place;
use crate::config::{Config, Finding, Secret, Sources, variable};

/// Where the Secret is mounted in the shipped Deployment.
const MOUNT: &str = "/run/secrets/pilothouse";

/// What is known so far.
#[derive(Debug)]
pub(super) struct Draft {
    /// Key as in the file, and its value; `targets` and other lists of tables are one value.
    pub(super) keys: BTreeMap<String, Value>,
    /// Key of a secret, `matrix.password`, and the secret.
    pub(super) secrets: BTreeMap<String, Secret>,
    /// Bearer tokens of workstations by the name of their file; accounts name them in `push_token_file`.
    pub(super) tokens: BTreeMap<String, Secret>,
    /// Where things are written.
    pub(super) paths: Paths,
}

/// Where the configuration and its secrets are.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// The configuration file, absolute.
    pub(super) file: PathBuf,
    /// Where Pilothouse will run.
    pub(super) place: Place,
}

impl Paths {
    /// The folder of the configuration.
    pub(super) fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    /// Something beside the configuration that carries its name: `pilothouse.password`, `pilothouse-store`.
    pub(super) fn beside(&self, joint: char, name: &str) -> PathBuf {
        let stem = self.file.file_stem().unwrap_or_default().to_string_lossy();
        self.folder().join(format!("{stem}{joint}{name}"))
    }

    /// Where the running Pilothouse finds a secret.
    pub(super) fn secret(&self, name: &str) -> PathBuf {
        match self.place {
            Place::Here => self.beside('.', name),
            Place::Cluster => Path::new(MOUNT).join(name),
        }
    }
}

/// Gives the name of a secret's file, and of its key in the Kubernetes Secret: `access-token`.
pub(super) fn name(key: &str) -> String {
    match key {
        "matrix.jwt.token" => "jwt".to_owned(),
        _ => key.rsplit('.').next().unwrap_or(key).replace('_', "-"),
    }
}

impl Draft {
    /// Tells whether a key or secret is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key) || self.secrets.contains_key(key)
    }

    /// Takes a key or secret away.
    pub(super) fn forget(&mut self, key: &str) {
        self.keys.remove(key);
        self.secrets.remove(key);
    }

    /// Sets a key.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.insert(key.to_owned(), value.into());
    }

    /// Sets a key that nothing has set yet.
    pub(super) fn default(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.entry(key.to_owned()).or_insert_with(|| value.into());
    }

    /// The watched accounts.
    pub(super) fn accounts(&self) -> impl Iterator<Item = &Table> {
        self.keys.get("usage.accounts").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
    }

    /// Every secret with the name of its file.
    pub(super) fn named_secrets(&self) -> Vec<(String, &Secret)> {
        let own = self.secrets.iter().map(|(key, secret)| (name(key), secret));
        own.chain(self.tokens.iter().map(|(name, token)| (name.clone(), token))).collect()
    }

    /// The text of `pilothouse.toml`.
    pub(super) fn text(&self) -> String {
        let mut keys = self.keys.clone();
        for key in self.secrets.keys() {
            let path = self.paths.secret(&name(key)).display().to_string();
            keys.insert(format!("{key}_file"), Value::from(path));
        }
        self.written(&keys)
    }

    fn written(&self, keys: &BTreeMap<String, Value>) -> String {
        let mut text = HEAD.to_owned();
        for section in SECTIONS {
            let inside = |key: &&String| key.rsplit_once('.').is_some_and(|(parent, _)| parent == *section);
            let mut names: Vec<&String> = keys.keys().filter(inside).collect();
            names.sort_by_key(|key| COMMENTS.iter().position(|(known, _)| known == key).unwrap_or(usize::MAX));
            let (lists, plain): (Vec<_>, Vec<_>) = names.into_iter().partition(|key| rows(&keys[*key]).is_some());
            if !plain.is_empty() {
                let _ = writeln!(text, "\n[{section}]");
            }
            for key in plain {
                comment(&mut text, key);
                let _ = writeln!(text, "{} = {}", key.rsplit('.').next().unwrap_or(key), keys[key]);
            }
            for key in lists {
                self.list(&mut text, key, &keys[key]);
            }
            if let Some(value) = keys.get(*section).filter(|value| rows(value).is_some()) {
                self.list(&mut text, section, value);
            }
        }
        text
    }

    fn list(&self, text: &mut String, key: &str, value: &Value) {
        text.push('\n');
        comment(text, key);
        for (index, row) in rows(value).into_iter().flatten().enumerate() {
            let _ = writeln!(text, "{}[[{key}]]", if index == 0 { "" } else { "\n" });
            let mut cells: Vec<(&String, &Value)> = row.iter().collect();
            cells.sort_by_key(|(name, _)| CELLS.iter().position(|known| known == name).unwrap_or(usize::MAX));
            for (name, value) in cells {
                let token =
                    value.as_str().filter(|value| name == "push_token_file" && self.tokens.contains_key(*value));
                let path = token.map(|token| Value::from(self.paths.secret(token).display().to_string()));
                let _ = writeln!(text, "{name} = {}", path.as_ref().unwrap_or(value));
            }
        }
    }

    /// What is wrong with it so far, what is still missing included. Secrets never touch the disk for that.
    pub(super) fn faults(&self) -> std::io::Result<Vec<Finding>> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(self.written(&self.keys).as_bytes())?;
        let secret = |(key, secret): (&String, &Secret)| (variable(key), OsString::from(secret.expose()));
        let environment = self.secrets.iter().map(secret).collect();
        let sources = Sources { argument: Some(file.path().to_owned()), environment, usual: Vec::new() };
        Ok(Config::load(&sources).err().map(|findings| findings.0).unwrap_or_default())
    }
}

fn rows(value: &Value) -> Option<Vec<&Table>> {
    let rows = value.as_array().filter(|rows| !rows.is_empty())?;
    rows.iter().map(Value::as_table).collect()
}

fn comment(text: &mut String, key: &str) {
    if let Some((_, comment)) = COMMENTS.iter().find(|(known, _)| *known == key) {
        let _ = writeln!(text, "# {comment}");
    }
}

const HEAD: &str = "# Written by `pilothouse init`. Every key there is, annotated: examples/pilothouse.example.toml.\n\
                    # `pilothouse config` shows what holds in the end, and where it came from.\n";

/// Sections in the order in which people read them. Those that are lists of tables stand here, too.
const SECTIONS: &[&str] = &[
    "matrix",
    "matrix.jwt",
    "matrix.jwt.keycloak",
    "trust",
    "policy",
    "targets",
    "kubernetes",
    "drift",
    "usage",
    "usage.thresholds",
    "admin",
    "log",
];

/// What stands above a key, in the order in which the keys are written; others follow.
const COMMENTS: &[(&str, &str)] = &[
    ("matrix.homeserver", "Base URL of the homeserver."),
    ("matrix.user", "The bot's account."),
    ("matrix.password_file", "Its password."),
    ("matrix.store", "Encryption keys, session and Pilothouse's own database. It must outlive the process."),
    ("matrix.recovery_key_file", "With it a bot whose store was lost is itself again."),
    ("matrix.bare_words_everywhere", "Bare words are commands in every room, as people are used to."),
    ("matrix.require_signed_device", "An own device that cannot be signed ends the start (true) or is warned about."),
    ("policy.users", "Who may give commands. Everybody else meets silence."),
    ("targets", "The workloads that people may name: `start`, `stop` and `status` with these names."),
    ("kubernetes.source", "Nothing but the pod's own ServiceAccount."),
    ("usage.listen", "Address for what workstations push."),
    ("usage.accounts", "The watched AI subscriptions."),
    ("admin.listen", "Address of /livez, /readyz and /metrics."),
];

/// Keys of rows, in the order in which they are written; others follow.
const CELLS: &[&str] = &["name", "kind", "source", "namespace", "object", "label", "secret", "secret_key"];
