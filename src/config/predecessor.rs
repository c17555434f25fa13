//! The environment of openclaw-k8s-toggle-operator, unchanged: swapping the image is the whole migration.
//!
//! | variable | becomes |
//! |---|---|
//! | `MATRIX_HOMESERVER` | `matrix.homeserver` |
//! | `MATRIX_USER` (localpart or full id) | `matrix.user` |
//! | `MATRIX_PASSWORD`, `MATRIX_PASSWORD_FILE` | `matrix.password`, `matrix.password_file` |
//! | `ALLOWED_USERS` (separated by commas) | `policy.users`; an entry that is not a full user id matched nobody there: it is left out, with a warning |
//! | `DEPLOYMENT_NAME`, `DEPLOYMENT_NAMESPACE` (default `clawdbot`) | `targets`: the one Deployment |
//! | `CRYPTO_STORE_PATH` | `matrix.store` |
//! | `ECHO_MODE` (`true`, `1`, `yes`) | `matrix.echo`; off unless asked for, the one default that differs |
//! | `AUTH_METHOD` = `password` or `jwt` | which of the following count; `sso` is gone |
//! | `JWT_LOGIN_TYPE` (default `com.famedly.login.token.oauth`) | `matrix.jwt.login_type` |
//! | `JWT_TOKEN`, `JWT_TOKEN_FILE` (new here) | `matrix.jwt.token`, `matrix.jwt.token_file`; the password is not needed then |
//! | `KEYCLOAK_URL`, `KEYCLOAK_REALM`, `KEYCLOAK_CLIENT_ID` | `matrix.jwt.keycloak.url`, `.realm`, `.client_id` |
//! | `KEYCLOAK_CLIENT_SECRET`, `KEYCLOAK_CLIENT_SECRET_FILE` | `matrix.jwt.keycloak.client_secret`, `.client_secret_file` |
//! | `LOGURU_LEVEL` | `log.filter`: that level for Pilothouse, `info` for its libraries |
//! | `SSO_IDP_ID` | nothing, as it counts with `sso` alone |
//!
//! Blanks around a value are cut off and an empty variable counts as not set. Without a configuration file and without a
//! `PILOTHOUSE__` variable, people keep their habits: bare words are commands in every room, and an own device that stays
//! unsigned is a warning.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::environment::{not_text, words};
use super::file::Layer;
use super::finding::{Finding, Origin};
use super::sources::Sources;
use super::validation::is_user_id;

/// Variables whose text is a key's.
const TEXTS: [(&str, &str); 5] = [
    ("MATRIX_HOMESERVER", "matrix.homeserver"),
    ("MATRIX_USER", "matrix.user"),
    ("MATRIX_PASSWORD", "matrix.password"),
    ("MATRIX_PASSWORD_FILE", "matrix.password_file"),
    ("CRYPTO_STORE_PATH", "matrix.store"),
];

/// Variables that count with `AUTH_METHOD=jwt` alone.
const JWT_TEXTS: [(&str, &str); 7] = [
    ("JWT_TOKEN", "matrix.jwt.token"),
    ("JWT_TOKEN_FILE", "matrix.jwt.token_file"),
    ("KEYCLOAK_URL", "matrix.jwt.keycloak.url"),
    ("KEYCLOAK_REALM", "matrix.jwt.keycloak.realm"),
    ("KEYCLOAK_CLIENT_ID", "matrix.jwt.keycloak.client_id"),
    ("KEYCLOAK_CLIENT_SECRET", "matrix.jwt.keycloak.client_secret"),
    ("KEYCLOAK_CLIENT_SECRET_FILE", "matrix.jwt.keycloak.client_secret_file"),
];

/// Login type that the predecessor asks for when nothing names one.
const LOGIN_TYPE: &str = "com.famedly.login.token.oauth";

/// Variable with the name of the Deployment.
pub(super) const DEPLOYMENT_NAME: &str = "DEPLOYMENT_NAME";

/// Name and namespace of the Deployment when nothing names them.
const DEPLOYMENT: &str = "clawdbot";

/// What the predecessor's environment says.
#[derive(Default)]
pub(super) struct Inheritance {
    /// One layer a variable, with its key.
    pub(super) layers: Vec<(&'static str, Layer)>,
    /// Where each key of its one target comes from: two variables make the one row.
    target: BTreeMap<String, Origin>,
    /// `AUTH_METHOD=jwt`.
    pub(super) jwt: bool,
    /// What is wrong with it.
    pub(super) findings: Vec<Finding>,
    /// What works, but not as the variable reads.
    pub(super) warnings: Vec<String>,
}

/// The defaults that differ when the predecessor's environment is all there is.
pub(super) fn habits() -> Layer {
    let matrix = Dict::from([
        ("bare_words_everywhere".to_owned(), Value::from(true)),
        ("require_signed_device".to_owned(), Value::from(false)),
    ]);
    Layer { origin: Origin::Predecessor, keys: Dict::from([("matrix".to_owned(), Value::from(matrix))]) }
}

/// Reads the predecessor's environment.
pub(super) fn read(sources: &Sources) -> Inheritance {
    let mut inheritance = Inheritance::default();
    for (name, key) in TEXTS {
        inheritance.text(sources, name, key);
    }
    inheritance.people(sources);
    inheritance.workload(sources);
    inheritance.login(sources);
    if let Some(text) = inheritance.variable(sources, "ECHO_MODE", "matrix.echo") {
        let echo = matches!(text.to_lowercase().as_str(), "true" | "1" | "yes");
        inheritance.layer("ECHO_MODE", "matrix.echo", echo);
    }
    inheritance.level(sources);
    inheritance
}

impl Inheritance {
    /// Takes the origins of keys that are not their layer's; an own variable replaces the list, and them with it.
    pub(super) fn parts(&mut self, own: &[Layer]) -> BTreeMap<String, Origin> {
        let target = std::mem::take(&mut self.target);
        if own.iter().any(|layer| layer.keys.contains_key("targets")) { BTreeMap::new() } else { target }
    }

    fn layer(&mut self, name: &str, key: &'static str, value: impl Into<Value>) {
        self.layers.push((key, Layer::of(Origin::Variable(name.to_owned()), key, value)));
    }

    fn variable(&mut self, sources: &Sources, name: &str, key: &str) -> Option<String> {
        let Some(text) = sources.variable(name)?.to_str() else {
            self.findings.push(not_text(key.to_owned(), name));
            return None;
        };
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn text(&mut self, sources: &Sources, name: &str, key: &'static str) {
        if let Some(text) = self.variable(sources, name, key) {
            self.layer(name, key, text);
        }
    }

    fn people(&mut self, sources: &Sources) {
        let Some(text) = self.variable(sources, "ALLOWED_USERS", "policy.users") else { return };
        let (people, others): (Vec<_>, Vec<_>) = words(&text).into_iter().partition(|word| is_user_id(word));
        if people.is_empty() {
            // Nobody is left: told with the key, as for any other source.
            self.layer("ALLOWED_USERS", "policy.users", others);
            return;
        }
        for other in others {
            self.warnings.push(format!(
                "ALLOWED_USERS: {other:?} is left out: it is not a full user id (@name:server), so it matches nobody."
            ));
        }
        self.layer("ALLOWED_USERS", "policy.users", people);
    }

    fn workload(&mut self, sources: &Sources) {
        let parts = [("name", DEPLOYMENT_NAME), ("namespace", "DEPLOYMENT_NAMESPACE")]
            .map(|(key, variable)| (key, variable, self.variable(sources, variable, "targets")));
        let Some((_, first, _)) = parts.iter().find(|(_, _, text)| text.is_some()) else { return };
        let first = *first;
        let mut row = Dict::new();
        for (key, variable, text) in parts {
            let origin = text.as_ref().map_or(Origin::Predecessor, |_| Origin::Variable(variable.to_owned()));
            self.target.insert(format!("targets[0].{key}"), origin);
            row.insert(key.to_owned(), Value::from(text.unwrap_or_else(|| DEPLOYMENT.to_owned())));
        }
        self.layer(first, "targets", vec![Value::from(row)]);
    }

    fn login(&mut self, sources: &Sources) {
        let method = self.variable(sources, "AUTH_METHOD", "matrix").map(|text| text.to_lowercase());
        match method.as_deref() {
            None | Some("password") => {}
            Some("jwt") => {
                self.jwt = true;
                let login_type = self.variable(sources, "JWT_LOGIN_TYPE", "matrix.jwt.login_type");
                let named_by = if login_type.is_some() { "JWT_LOGIN_TYPE" } else { "AUTH_METHOD" };
                let login_type = login_type.unwrap_or_else(|| LOGIN_TYPE.to_owned());
                self.layer(named_by, "matrix.jwt.login_type", login_type);
                for (name, key) in JWT_TEXTS {
                    self.text(sources, name, key);
                }
                // The predecessor always wants a password; a ready token needs none.
                let ready = |(key, _): &(&str, Layer)| key.starts_with("matrix.jwt.token");
                if self.layers.iter().any(ready) {
                    self.layers.retain(|(key, _)| !key.starts_with("matrix.password"));
                }
            }
            Some(method) => self.findings.push(Finding {
                key: "AUTH_METHOD".to_owned(),
                origin: None,
                fault: match method {
                    "sso" => "sso filled in Keycloak's web form, and is not done any more".to_owned(),
                    other => format!("{other:?} is no way to log in"),
                },
                remedy: "Set it to jwt (with KEYCLOAK_URL, KEYCLOAK_REALM and KEYCLOAK_CLIENT_ID) or to password"
                    .to_owned(),
            }),
        }
    }

    fn level(&mut self, sources: &Sources) {
        let Some(level) = self.variable(sources, "LOGURU_LEVEL", "log.filter") else { return };
        let filter = match level.to_uppercase().as_str() {
            "TRACE" => "info,pilothouse=trace",
            "DEBUG" => "info,pilothouse=debug",
            "INFO" | "SUCCESS" => "info",
            "WARNING" => "warn",
            "ERROR" | "CRITICAL" => "error",
            _ => {
                self.warnings.push(format!("LOGURU_LEVEL: {level:?} is not a level; the log stays as it is."));
                return;
            }
        };
        self.layer("LOGURU_LEVEL", "log.filter", filter);
    }
}
