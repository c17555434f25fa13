//! What an answer means: text in, values of the configuration out. Pure.
//!
//! Only the form of an answer is judged here. Whether the value is any good is the configuration's to say, so that there is
//! one home for each rule.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Where Pilothouse will run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this machine: secrets in files beside the configuration.
    Here,
    /// In the cluster, as in `k8s/base`: secrets in a Kubernetes Secret that is mounted.
    Cluster,
}

/// Reads `here` or `cluster`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn place(text: &str) -> Result<Place, String> {
    match text.trim().to_lowercase().as_str() {
        "here" => Ok(Place::Here),
        "cluster" => Ok(Place::Cluster),
        other => Err(format!("{other:?} is no place. Write here or cluster")),
    }
}

/// What becomes of the login of a Claude installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginChoice {
    /// It is copied, and shared from then on.
    Take,
    /// It stays alone; Pilothouse gets an own one.
    Own,
}

/// Reads `take` or `own`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn login_choice(text: &str) -> Result<LoginChoice, String> {
    match text.trim().to_lowercase().as_str() {
        "take" => Ok(LoginChoice::Take),
        "own" => Ok(LoginChoice::Own),
        other => Err(format!("{other:?} is no choice. Write take or own")),
    }
}

/// The form of an answer that becomes one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One line of text.
    Line,
    /// Texts separated by commas or blanks.
    Words,
    /// Targets separated by commas or blanks: `namespace/object`, `namespace/object:kind`, `name=namespace/object`.
    Targets,
}

impl Form {
    /// Reads an answer.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Line => Ok(text.trim().into()),
            Self::Words => Ok(split(text).map(Value::from).collect::<Vec<_>>().into()),
            Self::Targets => targets(text),
        }
    }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

fn targets(text: &str) -> Result<Value, String> {
    let rows: Vec<Value> = split(text).map(|word| target(word).map(Value::from)).collect::<Result<_, _>>()?;
    if rows.is_empty() { Err("there is no target. Write for instance apps/web".to_owned()) } else { Ok(rows.into()) }
}

fn target(word: &str) -> Result<Table, String> {
    let (name, place) = word.split_once('=').map_or((None, word), |(name, place)| (Some(name), place));
    let (place, kind) = place.split_once(':').map_or((place, None), |(place, kind)| (place, Some(kind)));
    let Some((namespace, object)) = place.split_once('/').filter(|(_, object)| !object.contains('/')) else {
        return Err(format!(
            "{word:?} is no target. Write namespace/name, for instance apps/web or apps/db:StatefulSet"
        ));
    };
    let kind = match kind.map(str::to_lowercase).as_deref() {
        None | Some("deployment" | "deploy") => "Deployment",
        Some("statefulset" | "sts") => "StatefulSet",
        Some(other) => {
            return Err(format!("{other:?} is no kind that can be scaled. Write Deployment or StatefulSet"));
        }
    };
    let mut row = table(&[("name", name.unwrap_or(object)), ("kind", kind), ("namespace", namespace)]);
    if name.is_some_and(|name| name != object) {
        row.insert("object".to_owned(), Value::from(object));
    }
    Ok(row)
}

/// A usage source as it was asked for: `[account:]kind[=detail]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Name of the account.
    pub(super) account: String,
    /// Which source.
    pub(super) kind: Kind,
    /// The folder, the Secret or the program, where it was said.
    pub(super) detail: Option<String>,
}

/// Kinds of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The usage endpoint, with a login in a folder.
    Directory,
    /// The usage endpoint, with a login in a Kubernetes Secret.
    Secret,
    /// Workstations tell.
    Push,
    /// A program prints it.
    Command,
}

/// Name of an account that nobody named.
const ACCOUNT: &str = "default";

/// Reads a usage source; `None` for `none`.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn usage(text: &str) -> Result<Option<Wanted>, String> {
    let text = text.trim();
    let (head, detail) = text.split_once('=').map_or((text, None), |(head, detail)| (head, Some(detail.trim())));
    let (account, kind) = head.split_once(':').map_or((ACCOUNT, head), |(account, kind)| (account, kind));
    let kind = match kind.trim().to_lowercase().as_str() {
        "" | "none" | "no" if detail.is_none() => return Ok(None),
        "directory" => Kind::Directory,
        "secret" => Kind::Secret,
        "push" => Kind::Push,
        "command" => Kind::Command,
        other => {
            return Err(format!("{other:?} is no usage source. Write none, directory, secret, push or command"));
        }
    };
    if kind == Kind::Push && detail.is_some() {
        return Err("push takes no detail. Write push, or account:push".to_owned());
    }
    let detail = detail.filter(|detail| !detail.is_empty()).map(str::to_owned);
    Ok(Some(Wanted { account: account.trim().to_owned(), kind, detail }))
}

impl Wanted {
    /// What the detail is when nobody says.
    pub(super) fn usual(&self, beside: impl FnOnce(&str) -> PathBuf, place: Place) -> Option<String> {
        let suffix = if self.account == ACCOUNT { String::new() } else { format!("-{}", self.account) };
        match (self.kind, place) {
            (Kind::Directory, Place::Here) => Some(beside(&format!("claude{suffix}")).display().to_string()),
            (Kind::Directory, Place::Cluster) => Some(format!("/data/claude{suffix}")),
            (Kind::Secret, _) => Some(format!("pilothouse/pilothouse-claude{suffix}")),
            (Kind::Push | Kind::Command, _) => None,
        }
    }

    /// Name of the file with the workstations' token, for `push`.
    pub(super) fn token(&self) -> Option<String> {
        (self.kind == Kind::Push).then(|| format!("push-token-{}", self.account))
    }

    /// The row of `usage.accounts`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the detail.
    pub(super) fn row(&self) -> Result<Table, String> {
        let detail = self.detail.as_deref().map(str::trim).unwrap_or_default();
        let source = match self.kind {
            Kind::Directory | Kind::Secret => "anthropic-oauth",
            Kind::Push => "push",
            Kind::Command => "command",
        };
        let mut row = table(&[("name", &self.account), ("source", source)]);
        let mut set = |key: &str, value: Value| row.insert(key.to_owned(), value);
        match self.kind {
            Kind::Directory if Path::new(detail).is_absolute() => {
                set("directory", detail.into());
            }
            Kind::Directory => return Err(format!("{detail:?} is no absolute path. Write for instance /data/claude")),
            Kind::Secret => {
                let Some((namespace, name)) = detail.split_once('/') else {
                    let fault = format!("{detail:?} names no Secret. Write namespace/name");
                    return Err(format!("{fault}, for instance pilothouse/pilothouse-claude"));
                };
                set("namespace", namespace.into());
                set("secret", name.into());
                set("secret_key", "credentials.json".into());
            }
            Kind::Push => {
                set("push_token_file", self.token().unwrap_or_default().into());
            }
            Kind::Command if detail.contains(['"', '\'', '\\']) => {
                let advice = "Write program and arguments with blanks between; others can be written into the file";
                return Err(format!("quotes and backslashes are not understood here. {advice}"));
            }
            Kind::Command if detail.is_empty() => {
                return Err("no program is named. Write for instance command=claude-usage --json".to_owned());
            }
            Kind::Command => {
                set("command", detail.split_whitespace().map(Value::from).collect::<Vec<_>>().into());
            }
        }
        Ok(row)
    }
}

/// Reads `y` or `n`; nothing means no.
pub(super) fn yes(text: &str) -> Result<bool, String> {
    match text.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "" | "n" | "no" => Ok(false),
        other => Err(format!("{other:?} is neither yes nor no. Write y or n")),
    }
}

fn table(cells: &[(&str, &str)]) -> Table {
    cells.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
}
