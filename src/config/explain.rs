//! Shows a configuration to a person, and what of it may change while the daemon runs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::{Config, JwtSource, Loaded, Login, Matrix, Secret, keys, secret};

/// Text that stands for the value of a secret.
const HIDDEN: &str = "\"***\"";

/// What may change while the daemon runs.
const RELOADABLE: [&str; 8] = [
    "policy.",
    "targets",
    "drift.",
    "usage.rules",
    "usage.thresholds",
    "usage.mention",
    "usage.quiet_hours",
    "usage.probability",
];

/// Columns after which the origins of a section begin, at most.
const WIDEST: usize = 72;

/// Shows the effective configuration as TOML, secrets as `***`, and behind each line where its value came from.
#[must_use]
pub fn explain(loaded: &Loaded) -> String {
    let mut text = String::from("# The effective configuration, and where each value came from.\n");
    if let Some(path) = &loaded.file {
        let _ = writeln!(text, "# File: {}", path.display());
    }
    for warning in &loaded.warnings {
        let _ = writeln!(text, "# Warning: {warning}");
    }
    let lines = entries(&loaded.config);
    for section in lines.chunk_by(|one, other| section(&one.0) == section(&other.0)) {
        let Some((first, _)) = section.first() else { continue };
        let _ = writeln!(text, "\n{}", header(first));
        let lines: Vec<(String, &str)> =
            section.iter().map(|(key, value)| (format!("{} = {value}", name(key)), key.as_str())).collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|n| *n <= WIDEST).max().unwrap_or(0);
        for (line, key) in lines {
            let origin = loaded.origins.get(key).map_or_else(|| "default".to_owned(), ToString::to_string);
            let _ = writeln!(text, "{line:width$}  # {origin}");
        }
    }
    text
}

/// Tells whether `new` may take effect while the daemon runs on `old`: rules, targets, drift and what the room hears of the
/// subscription may, the rest may not.
///
/// # Errors
/// The keys that need a restart.
pub fn reloadable_difference(old: &Config, new: &Config) -> Result<(), Vec<String>> {
    let fixed = |config: &Config| -> BTreeMap<String, String> {
        let reloadable = |key: &str| RELOADABLE.iter().any(|part| key.starts_with(part));
        let mut entries: BTreeMap<_, _> = entries(config).into_iter().filter(|(key, _)| !reloadable(key)).collect();
        // Secrets look alike in the entries, so they are compared as they are; nothing of this is ever shown.
        for (key, secret) in secrets(&config.matrix) {
            entries.insert(key.to_owned(), secret.expose().to_owned());
        }
        if let Some(proxy) = &config.matrix.proxy {
            entries.insert("matrix.proxy".to_owned(), proxy.to_string());
        }
        for (index, account) in config.usage.accounts.iter().enumerate() {
            entries.insert(format!("usage.accounts[{index}].environment"), format!("{:?}", account.environment));
        }
        entries
    };
    let (old, new) = (fixed(old), fixed(new));
    let mut changed: Vec<String> =
        old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).cloned().collect();
    changed.sort();
    changed.dedup();
    if changed.is_empty() { Ok(()) } else { Err(changed) }
}

/// Gives every key that has a value, as it would stand in the file, in the order of [`keys::KEYS`].
pub(super) fn entries(config: &Config) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    if let Ok(mut table) = toml::Table::try_from(config) {
        if let Some(toml::Value::Table(matrix)) = table.get_mut("matrix") {
            matrix.remove("login");
        }
        flatten("", &table, &mut entries);
    }
    let text = |text: &str| toml::Value::from(text).to_string();
    match &config.matrix.login {
        Login::Password { .. } => {}
        Login::Token { device_id, .. } => entries.push(("matrix.device_id".to_owned(), text(device_id))),
        Login::Jwt { login_type, source } => {
            entries.push(("matrix.jwt.login_type".to_owned(), text(login_type)));
            match source {
                JwtSource::Token { .. } => {}
                JwtSource::File { path } => {
                    entries.push(("matrix.jwt.token_file".to_owned(), text(&path.to_string_lossy())));
                }
                JwtSource::Keycloak { url, realm, client_id, .. } => {
                    for (key, value) in [("url", &secret::shown(url)), ("realm", realm), ("client_id", client_id)] {
                        entries.push((format!("matrix.jwt.keycloak.{key}"), text(value)));
                    }
                }
            }
        }
    }
    entries.retain(|(key, _)| key != "matrix.recovery_key");
    entries.extend(secrets(&config.matrix).into_iter().map(|(key, _)| (key.to_owned(), HIDDEN.to_owned())));
    entries.sort_by_cached_key(|(key, _)| place(key));
    entries
}

/// Gives every secret that is set, with its key.
fn secrets(matrix: &Matrix) -> Vec<(&'static str, &Secret)> {
    let mut secrets = Vec::new();
    match &matrix.login {
        Login::Password { password } => secrets.push(("matrix.password", password)),
        Login::Token { access_token, .. } => secrets.push(("matrix.access_token", access_token)),
        Login::Jwt { source: JwtSource::Token { token }, .. } => secrets.push(("matrix.jwt.token", token)),
        Login::Jwt { source: JwtSource::Keycloak { password, client_secret, .. }, .. } => {
            secrets.push(("matrix.password", password));
            secrets.extend(client_secret.as_ref().map(|secret| ("matrix.jwt.keycloak.client_secret", secret)));
        }
        Login::Jwt { source: JwtSource::File { .. }, .. } => {}
    }
    secrets.extend(matrix.recovery_key.as_ref().map(|key| ("matrix.recovery_key", key)));
    secrets
}

fn flatten(parent: &str, table: &toml::Table, entries: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let key = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        match value {
            toml::Value::Table(inner) if keys::shape(&key).is_none() => flatten(&key, inner, entries),
            toml::Value::Array(rows) if keys::shape(&key) == Some(keys::Shape::Tables) => {
                for (index, row) in rows.iter().enumerate() {
                    if let toml::Value::Table(row) = row {
                        flatten(&format!("{key}[{index}]"), row, entries);
                    }
                }
            }
            value => entries.push((key, value.to_string())),
        }
    }
}

/// Where a key stands: sections in the order of the keys, rows of a list one after the other.
fn place(key: &str) -> (usize, usize, usize) {
    let of = |known: &str| keys::KEYS.iter().position(|(name, _)| *name == known).unwrap_or(usize::MAX);
    match key.split_once('[').and_then(|(list, rest)| Some((list, rest.split_once("].")?))) {
        Some((list, (index, name))) => (of(list), index.parse().unwrap_or(0), of(&format!("{list}[].{name}"))),
        None => (of(key), 0, 0),
    }
}

fn section(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(section, _)| section)
}

fn name(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, name)| name)
}

fn header(key: &str) -> String {
    match section(key).split_once('[') {
        Some((list, _)) => format!("[[{list}]]"),
        None => format!("[{}]", section(key)),
    }
}

// By hand, because the URL of the proxy may have a password in it.
impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matrix")
            .field("homeserver", &self.homeserver.as_str())
            .field("user", &self.user)
            .field("login", &self.login)
            .field("store", &self.store)
            .field("display_name", &self.display_name)
            .field("recovery_key", &self.recovery_key)
            .field("home_room", &self.home_room)
            .field("rooms", &self.rooms)
            .field("bare_words_everywhere", &self.bare_words_everywhere)
            .field("prefix", &self.prefix)
            .field("require_signed_device", &self.require_signed_device)
            .field("echo", &self.echo)
            .field("ca_file", &self.ca_file)
            .field("proxy", &self.proxy.as_ref().map(secret::shown))
            .finish()
    }
}
