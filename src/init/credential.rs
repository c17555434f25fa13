//! The login of a Claude installation: found, judged and taken over, or how to make one.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::config::{ClaudeFolder, Secret};

/// The CLI's file with the login.
pub(super) const FILE: &str = ".credentials.json";
/// The CLI's section in it; beside it stand logins of others.
const SECTION: &str = "claudeAiOauth";
/// Without this scope the usage endpoint refuses the login.
const SCOPE: &str = "user:profile";
/// So long a login lives, whatever is renewed.
const LIFE: &str = "about 30 days after /login";

/// What whoever asks the provider with a login should know first.
pub(super) const TERMS: &str = "\
Asking the provider needs a login of the subscription. Its terms may not permit other programs to use one: read them. It is\n\
your decision, nothing asks unless you choose so here, and `push` and `command` need no login. A login dies by itself\n\
about 30 days after /login, whatever is renewed; Pilothouse tells the room in time, and somebody logs in again.";

/// What taking a login that others use costs.
pub(super) const COST: &str = "\
What it costs to share it: refresh tokens are single use, so from the first renewal on there is one good copy. Whoever\n\
renews first, Pilothouse or the CLI, logs the other out. An own login for Pilothouse has no such trouble.";

/// What sharing a folder costs.
pub(super) const SHARED_FOLDER: &str = "\
This is the folder of your own Claude installation. On one machine Pilothouse and the CLI take turns by the CLI's locks and\n\
both read what was renewed; still, /logout in one is a logout of both. An own login for Pilothouse has no such trouble.";

/// A login as it was found.
pub(super) struct Login {
    /// What is taken over: the CLI's section alone.
    pub(super) document: Secret,
    /// When it ends by itself.
    pub(super) ends: Option<Timestamp>,
    /// What is to be known about it, whole sentences.
    pub(super) warnings: Vec<String>,
}

/// What a folder holds.
pub(super) enum Found {
    /// A login.
    Login(Login),
    /// None, or one that cannot be used: the reason.
    Nothing(String),
}

/// Looks for a login in a folder.
pub(super) fn look(folder: &Path, now: Timestamp) -> Found {
    let path = folder.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => match read(&text, now) {
            Ok(login) => Found::Login(login),
            Err(why) => Found::Nothing(format!("{}: {why}", path.display())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Found::Nothing(format!("there is no login in {}", folder.display()))
        }
        Err(error) => Found::Nothing(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Reads the CLI's file.
///
/// # Errors
/// Why it is of no use, without a word of its content.
pub(super) fn read(text: &str, now: Timestamp) -> Result<Login, String> {
    let document: Map<String, Value> =
        serde_json::from_str(text).map_err(|_| "it is not the JSON that the CLI writes".to_owned())?;
    let Some(section) = document.get(SECTION).and_then(Value::as_object) else {
        return Err(format!("no subscription is logged in there (it has no {SECTION})"));
    };
    let given = |key: &str| section.get(key).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
    let moment = |key: &str| {
        let millis = section.get(key).and_then(Value::as_i64).filter(|millis| *millis > 0)?;
        Timestamp::from_millisecond(millis).ok()
    };
    if !given("accessToken") && !given("refreshToken") {
        return Err("its tokens are blank: the CLI was logged out; use /login there".to_owned());
    }
    let ends = moment("refreshTokenExpiresAt");
    if ends.is_some_and(|ends| ends <= now) {
        return Err("the login has ended; use /login there".to_owned());
    }
    let mut warnings = Vec::new();
    if !given("refreshToken") {
        let until = moment("expiresAt").map(|at| format!(" ({at:.0})")).unwrap_or_default();
        warnings.push(format!("It has no refresh token and ends with its access token{until}; use /login instead."));
    }
    let scopes = section.get("scopes").and_then(Value::as_array);
    if scopes.is_some_and(|scopes| scopes.iter().all(|scope| scope != SCOPE)) {
        warnings.push(format!("It lacks the scope {SCOPE}, so the provider will not tell it the usage; use /login."));
    }
    let document = Secret::new(json!({SECTION: section}).to_string());
    Ok(Login { document, ends, warnings })
}

/// Says when a login ends.
pub(super) fn life(login: &Login, now: Timestamp) -> String {
    match login.ends {
        Some(ends) => {
            let days = ends.duration_since(now).as_hours() / 24;
            format!("The login ends by itself in {days} days ({}).", ends.strftime("%Y-%m-%d"))
        }
        None => format!("The login ends by itself {LIFE}."),
    }
}

/// Says how an own login in a folder is made.
pub(super) fn own(folder: &Path) -> String {
    format!(
        "Make an own login for Pilothouse, and use it for nothing else:\n  CLAUDE_CONFIG_DIR={} claude    # then /login, and leave",
        quoted(folder)
    )
}

/// Says how the login gets out of the Keychain of macOS, where the CLI keeps it instead of a file.
pub(super) fn keychain(installation: &ClaudeFolder, into: &Path) -> String {
    let mut service = "Claude Code-credentials".to_owned();
    if installation.named {
        let digest = Sha256::digest(installation.path.to_string_lossy().as_bytes());
        service.push('-');
        for byte in &digest[..4] {
            let _ = write!(service, "{byte:02x}");
        }
    }
    let into = quoted(into);
    format!(
        "On macOS the CLI keeps the login in the Keychain, not in a file. This writes it into one:\n  \
         mkdir -p {into} && (umask 077; security find-generic-password -s '{service}' -w > {into}/{FILE})"
    )
}

/// A path as a shell reads it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_./+@%,:".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
