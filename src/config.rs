//! What the operator of the machine decides, in four layers; a later one wins:
//!
//! 1. the defaults (`config/defaults.toml`),
//! 2. `pilothouse.toml`: the file of `--config`, else of `PILOTHOUSE_CONFIG`, else `./pilothouse.toml`, else
//!    `/etc/pilothouse/pilothouse.toml`,
//! 3. the environment of openclaw-k8s-toggle-operator (`MATRIX_HOMESERVER` …, all of it in [`predecessor`]); what it
//!    overrides in the file is warned about, because its names are common ones; then `RUST_LOG`,
//! 4. `PILOTHOUSE__SECTION__KEY`.
//!
//! [`Config::load`] reads them all and gives either the typed, validated configuration with the origin of every value, or
//! every fault at once. One struct a section; a part receives its own section and never the whole [`Config`].

mod environment;
mod explain;
mod file;
mod finding;
mod keys;
mod load;
mod login;
pub mod predecessor;
mod reader;
mod secret;
mod sources;
mod surroundings;
mod usage;
mod validation;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

pub use environment::variable;
pub use explain::{explain, reloadable_difference};
pub use finding::{Finding, Findings, Origin};
pub use load::Loaded;
pub use sources::Sources;
pub use surroundings::{ClaudeFolder, Surroundings, secret_in};
pub use usage::{Account, Estimator, GuardMode, SEVERITIES, Thresholds, Usage, UsageRule, UsageSource, quiet_hours};
pub use validation::{ALIASES, VERBS};

/// The whole configuration, validated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The homeserver, the bot's account and where its words go.
    pub matrix: Matrix,
    /// Whose devices count.
    pub trust: Trust,
    /// Who may do what, and how old a command may be.
    pub policy: Policy,
    /// The workloads that people may name.
    pub targets: Vec<Target>,
    /// The API server.
    pub kubernetes: Kubernetes,
    /// What nobody asked for but wants to know.
    pub drift: Drift,
    /// The subscription.
    pub usage: Usage,
    /// Probes and metrics.
    pub admin: Admin,
    /// Tracing.
    pub log: Log,
}

/// A secret: prints as `***` in every format.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps what must never be printed.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Gives the secret itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// `[matrix]`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    /// Base URL of the client-server API.
    pub homeserver: url::Url,
    /// Localpart or full user id of the bot.
    pub user: String,
    /// How the bot logs in.
    pub login: Login,
    /// Folder of the Matrix store, the session file and Pilothouse's own database.
    pub store: PathBuf,
    /// Name that people see.
    pub display_name: String,
    /// Recovery key (or passphrase) of the bot's account.
    pub recovery_key: Option<Secret>,
    /// Room for what nobody asked for.
    pub home_room: Option<String>,
    /// Rooms where bare words are commands; if any, invitations to others are declined.
    pub rooms: Vec<String>,
    /// Bare words are commands in every room (the predecessor's habit).
    pub bare_words_everywhere: bool,
    /// What a command begins with elsewhere.
    pub prefix: String,
    /// An own device that stays unsigned ends the start (`true`) or is warned about.
    pub require_signed_device: bool,
    /// Repeats what is not a command (the predecessor's `ECHO_MODE`).
    pub echo: bool,
    /// PEM bundle trusted for the homeserver besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxy for the homeserver; without it the usual variables count.
    #[serde(serialize_with = "secret::without_password")]
    pub proxy: Option<url::Url>,
}

/// How the bot logs in: exactly one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Login {
    /// `m.login.password`.
    Password {
        /// The account's password.
        password: Secret,
    },
    /// A token made elsewhere, with the device that it belongs to.
    Token {
        /// The access token.
        access_token: Secret,
        /// Its device.
        device_id: String,
    },
    /// A JSON Web Token.
    Jwt {
        /// Login type, `org.matrix.login.jwt` or as the homeserver names it.
        login_type: String,
        /// Where the token comes from.
        source: JwtSource,
    },
}

/// Where a JSON Web Token comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum JwtSource {
    /// A file, read again at each login.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// The token itself.
    Token {
        /// The token.
        token: Secret,
    },
    /// Keycloak's resource owner password grant.
    Keycloak {
        /// Base URL.
        url: url::Url,
        /// Realm.
        realm: String,
        /// Client id.
        client_id: String,
        /// Client secret of a confidential client.
        client_secret: Option<Secret>,
        /// The bot's password in Keycloak.
        password: Secret,
    },
}

/// `[trust]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// What proves that a device is its user's.
    pub mode: TrustMode,
    /// Rooms in which plaintext commands count.
    pub plaintext: Vec<String>,
    /// Master keys (unpadded base64 of ed25519) fixed by configuration.
    pub pins: BTreeMap<String, String>,
}

/// What proves that a device is its user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustMode {
    /// The pinned cross-signing identity has signed the device.
    Identity,
    /// The device's own key was there at first contact or was accepted.
    Devices,
    /// Any device of an allowed user.
    Any,
}

/// `[policy]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Allowed people, full user ids.
    pub users: Vec<String>,
    /// Older commands are told, not done.
    #[serde(serialize_with = "jiff::fmt::serde::duration::friendly::compact::required")]
    pub staleness: SignedDuration,
    /// Who may do what; without a rule every allowed user may do everything.
    pub rules: Vec<Rule>,
}

/// `[[policy.rules]]`: these users may use these verbs on these targets. Empty or `*` means all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// User ids.
    pub users: Vec<String>,
    /// Names of commands.
    pub verbs: Vec<String>,
    /// Names of targets.
    pub targets: Vec<String>,
}

/// `[[targets]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What people type.
    pub name: String,
    /// Kind of the object.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name in Kubernetes (default: `name`).
    pub object: String,
    /// What people read (default: `name`).
    pub label: String,
    /// Replicas of a `start` when nothing is remembered.
    pub replicas: i32,
    /// Most replicas that `start n` may ask for.
    pub max_replicas: i32,
}

/// Kinds that can be scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 `StatefulSet`.
    StatefulSet,
}

/// `[kubernetes]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kubernetes {
    /// Where the client's configuration comes from.
    pub source: KubernetesSource,
    /// Context of the kubeconfig; its current one if not given.
    pub context: Option<String>,
    /// Limit for one operation.
    #[serde(serialize_with = "jiff::fmt::serde::duration::friendly::compact::required")]
    pub timeout: SignedDuration,
    /// How long a rollout may take before it is told as unfinished.
    #[serde(serialize_with = "jiff::fmt::serde::duration::friendly::compact::required")]
    pub rollout_deadline: SignedDuration,
    /// Last log lines of a failing container in answers (they may hold secrets).
    pub show_logs: bool,
    /// Writes a Kubernetes Event on the object for every change.
    pub events: bool,
}

/// Where the client's configuration comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KubernetesSource {
    /// The `ServiceAccount` inside a cluster, else `KUBECONFIG` or `~/.kube/config`.
    Infer,
    /// The `ServiceAccount` only.
    InCluster,
    /// `KUBECONFIG` or `~/.kube/config` only.
    Kubeconfig,
}

/// `[drift]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Tells when a workload falls over or is scaled by someone else.
    pub enabled: bool,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admin {
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub listen: SocketAddr,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// Directives as of `RUST_LOG`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}
