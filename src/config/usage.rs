//! `[usage]`: the accounts whose limits are watched, when the room hears of them, and what they may stop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use url::Url;

use super::load::duration;
use super::reader::Reader;
use super::validation;

/// The least that may lie between two polls: sooner, the provider shuts the door for an hour.
const FLOOR: SignedDuration = SignedDuration::from_mins(3);
/// Host of the provider's own endpoint.
const PROVIDER: &str = "api.anthropic.com";
/// Words of [`Usage::mention`].
pub const SEVERITIES: [&str; 3] = ["notice", "warning", "critical"];
/// Kinds of buckets that a rule may name with a probability: only a week is long enough for a forecast.
const WEEKLY: [&str; 2] = ["weekly_all", "weekly_scoped"];
const KINDS: [&str; 4] = ["session", "weekly_all", "weekly_scoped", "extra"];

/// `[usage]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Between two polls of one account.
    #[serde(serialize_with = "jiff::fmt::serde::duration::friendly::compact::required")]
    pub interval: SignedDuration,
    /// Zone of the times that people read, an IANA name; the system's if not given.
    pub timezone: Option<String>,
    /// Which estimator decides on forecast alerts.
    pub forecast: Estimator,
    /// Probability of running out from which a forecast alert is told.
    pub probability: f64,
    /// A reset time that moves by less is the same one.
    #[serde(serialize_with = "jiff::fmt::serde::duration::friendly::compact::required")]
    pub reset_tolerance: SignedDuration,
    /// Says at the first sample of an account what is watched.
    pub armed: bool,
    /// Alerts that are not critical wait for the end of these hours: `23:00-07:00`.
    pub quiet_hours: Option<String>,
    /// Whom an alert of a severity notifies.
    pub mention: BTreeMap<String, String>,
    /// Per cent at which the room hears of a bucket.
    pub thresholds: Thresholds,
    /// File with CAs (PEM) to trust where providers are asked, besides the usual ones: of an own proxy before them.
    pub ca_file: Option<PathBuf>,
    /// Address for what workstations push; nothing listens without it.
    pub listen: Option<SocketAddr>,
    /// Watched accounts; without any, nothing is watched.
    pub accounts: Vec<Account>,
    /// What a limit may stop.
    pub rules: Vec<UsageRule>,
}

impl Usage {
    /// The accounts of which workstations alone tell: nobody is asked, so nothing proves their resets.
    #[must_use]
    pub fn only_pushed(&self) -> BTreeSet<&str> {
        let named = |pushed: bool| {
            let accounts = self.accounts.iter().filter(move |account| (account.source == UsageSource::Push) == pushed);
            accounts.map(|account| account.name.as_str())
        };
        let asked: BTreeSet<&str> = named(false).collect();
        named(true).filter(|name| !asked.contains(name)).collect()
    }

    /// Those of them that a rule watches: what it stops for them is not started again by itself.
    #[must_use]
    pub fn unprovable(&self, rule: &UsageRule) -> Vec<&str> {
        let (account, _) = rule.parts();
        self.only_pushed().into_iter().filter(|name| account.is_none_or(|account| account == *name)).collect()
    }
}

/// Which estimator decides on forecast alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// The rate of the whole window, drawn towards a prior one, with a probability.
    Shrunken,
    /// Least squares over the last six hours, drawn on to the reset: what an earlier watcher did.
    Ols6h,
}

/// Per cent at which the room hears of a bucket, by kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// The 5-hour window.
    pub session: Vec<f64>,
    /// Weekly windows.
    pub weekly: Vec<f64>,
    /// Money beyond the plan, and whatever else has a limit.
    pub extra: Vec<f64>,
}

/// `[[usage.accounts]]`: one source of one account. The same name twice joins two sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// What people read.
    pub name: String,
    /// Where its numbers come from.
    pub source: UsageSource,
    /// Kubernetes Secret with the login.
    pub secret: Option<String>,
    /// Namespace of the Secret.
    pub namespace: Option<String>,
    /// Key of the Secret that holds `.credentials.json`.
    pub secret_key: Option<String>,
    /// Keys (of the Secret, or names of files) that hold one token each, instead of the one document: `access_token`,
    /// `refresh_token`, `expires_at`, `refresh_expires_at`, `scopes`, `plan`.
    pub token_keys: BTreeMap<String, String>,
    /// Folder where the Secret is mounted, for an account of Kubernetes that may only patch it.
    pub mount: Option<PathBuf>,
    /// Folder of a login (`CLAUDE_CONFIG_DIR`).
    pub directory: Option<PathBuf>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its whole environment; `PATH` and `HOME` are Pilothouse's own unless given.
    #[serde(serialize_with = "masked")]
    pub environment: BTreeMap<String, String>,
    /// File with the bearer token of the workstations.
    pub push_token_file: Option<PathBuf>,
    /// Where usage is asked for.
    pub usage_url: Option<Url>,
    /// Where tokens are refreshed.
    pub token_url: Option<Url>,
    /// What Pilothouse calls itself.
    pub user_agent: Option<String>,
}

/// Variables as people may see them: tokens live in variables, too.
fn masked<S: serde::Serializer>(environment: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    const SHOWN: [&str; 3] = ["PATH", "HOME", "CLAUDE_CONFIG_DIR"];
    let shown = |(name, value): (&String, &String)| {
        (name.clone(), if SHOWN.contains(&name.as_str()) { value.clone() } else { "***".to_owned() })
    };
    serializer.collect_map(environment.iter().map(shown))
}

/// Kinds of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsageSource {
    /// The usage endpoint, asked with an own login.
    AnthropicOauth,
    /// Workstations tell what they know.
    Push,
    /// A program prints it.
    Command,
}

/// `[[usage.rules]]`: a bucket that is so full, or so likely to run out, stops targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageRule {
    /// What people read; also the rule's identity over restarts.
    pub name: String,
    /// Kind of the bucket, or `account/kind`, or `account/kind/scope`.
    pub bucket: String,
    /// From so much used on, in per cent.
    pub percent: Option<f64>,
    /// From so likely to run out on.
    pub probability: Option<f64>,
    /// Names of targets.
    pub stop: Vec<String>,
    /// Whether it acts, or only says what it would do.
    pub mode: GuardMode,
}

impl UsageRule {
    /// The account that it names, if any, and the rest of its bucket.
    #[must_use]
    pub fn parts(&self) -> (Option<&str>, &str) {
        self.bucket.split_once('/').map_or((None, &self.bucket), |(account, rest)| (Some(account), rest))
    }
}

/// Whether a rule acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardMode {
    /// Only says what it would do.
    Observe,
    /// Stops, and starts again.
    Act,
}

/// Reads the section.
pub(super) fn read(reader: &mut Reader) -> Option<Usage> {
    let interval = duration(reader, "usage.interval", SignedDuration::from_secs(1), SignedDuration::from_hours(1));
    let timezone = reader.optional::<String>("usage.timezone");
    let forecast = reader.required("usage.forecast");
    let probability = reader.required::<f64>("usage.probability");
    let tolerance =
        duration(reader, "usage.reset_tolerance", SignedDuration::from_secs(2), SignedDuration::from_mins(30));
    let armed = reader.required("usage.armed");
    let quiet_hours = reader.optional::<String>("usage.quiet_hours");
    let mention = reader.or("usage.mention", BTreeMap::new());
    let session = reader.required("usage.thresholds.session");
    let weekly = reader.required("usage.thresholds.weekly");
    let extra = reader.required("usage.thresholds.extra");
    let ca_file = reader.optional::<PathBuf>("usage.ca_file");
    let listen = reader.parsed("usage.listen", "an address with a port");
    let accounts = reader.rows("usage.accounts");
    let accounts: Vec<_> = (0..accounts?).map(|index| account(reader, index)).collect();
    let rules = reader.rows("usage.rules");
    let rules: Vec<_> = (0..rules?).map(|index| rule(reader, index)).collect();
    let usage = Usage {
        interval: interval?,
        timezone: timezone?,
        forecast: forecast?,
        probability: probability?,
        reset_tolerance: tolerance?,
        armed: armed?,
        quiet_hours: quiet_hours?,
        mention: mention?,
        thresholds: Thresholds { session: session?, weekly: weekly?, extra: extra? },
        ca_file: ca_file?,
        listen: listen?,
        accounts: accounts.into_iter().collect::<Option<_>>()?,
        rules: rules.into_iter().collect::<Option<_>>()?,
    };
    judge(reader, &usage);
    Some(usage)
}

fn account(reader: &mut Reader, index: usize) -> Option<Account> {
    let key = |name: &str| format!("usage.accounts[{index}].{name}");
    let name = reader.or(&key("name"), "default".to_owned());
    let source = reader.or(&key("source"), UsageSource::AnthropicOauth);
    let secret = reader.optional(&key("secret"));
    let namespace = reader.optional(&key("namespace"));
    let secret_key = reader.optional(&key("secret_key"));
    let token_keys = reader.or(&key("token_keys"), BTreeMap::new());
    let mount = reader.optional(&key("mount"));
    let directory = reader.optional(&key("directory"));
    let command = reader.or(&key("command"), Vec::new());
    let environment = reader.or(&key("environment"), BTreeMap::new());
    let push_token_file = reader.optional(&key("push_token_file"));
    let usage_url = reader.parsed(&key("usage_url"), "a URL");
    let token_url = reader.parsed(&key("token_url"), "a URL");
    let user_agent = reader.optional(&key("user_agent"));
    Some(Account {
        name: name?,
        source: source?,
        secret: secret?,
        namespace: namespace?,
        secret_key: secret_key?,
        token_keys: token_keys?,
        mount: mount?,
        directory: directory?,
        command: command?,
        environment: environment?,
        push_token_file: push_token_file?,
        usage_url: usage_url?,
        token_url: token_url?,
        user_agent: user_agent?,
    })
}

fn rule(reader: &mut Reader, index: usize) -> Option<UsageRule> {
    let key = |name: &str| format!("usage.rules[{index}].{name}");
    let name = reader.required(&key("name"));
    let bucket = reader.required(&key("bucket"));
    let percent = reader.optional(&key("percent"));
    let probability = reader.optional(&key("probability"));
    let stop = reader.or(&key("stop"), Vec::new());
    let mode = reader.or(&key("mode"), GuardMode::Observe);
    Some(UsageRule {
        name: name?,
        bucket: bucket?,
        percent: percent?,
        probability: probability?,
        stop: stop?,
        mode: mode?,
    })
}

/// What the values must be beyond their types.
fn judge(reader: &mut Reader, usage: &Usage) {
    // A proxy or a test server may be asked more often; the provider, also through its CLI, may not.
    let provider = |account: &Account| match account.source {
        UsageSource::AnthropicOauth => account.usage_url.as_ref().is_none_or(|url| url.host_str() == Some(PROVIDER)),
        UsageSource::Command => true,
        UsageSource::Push => false,
    };
    if usage.interval < FLOOR && usage.accounts.iter().any(provider) {
        let fault = format!("{:#} is too short", usage.interval);
        reader.fault(
            "usage.interval",
            &fault,
            "Write 3m or more: sooner, the provider refuses every question for an hour",
        );
    }
    if let Some(zone) = usage.timezone.as_ref().filter(|zone| jiff::tz::TimeZone::get(zone).is_err()) {
        let fault = format!("{zone:?} is no time zone");
        reader.fault("usage.timezone", &fault, "Write an IANA name, for instance Europe/Berlin or UTC");
    }
    fraction(reader, "usage.probability", Some(usage.probability));
    if let Some(hours) = usage.quiet_hours.as_ref().filter(|hours| quiet_hours(hours).is_none()) {
        let fault = format!("{hours:?} is no span of the day");
        reader.fault("usage.quiet_hours", &fault, "Write for instance 23:00-07:00");
    }
    for (severity, user) in &usage.mention {
        if !SEVERITIES.contains(&severity.as_str()) {
            let fault = format!("{severity:?} is no severity");
            reader.fault("usage.mention", &fault, &format!("Known are {}", SEVERITIES.join(", ")));
        }
        if !validation::is_user_id(user) {
            let fault = format!("{user:?} is not a full user id");
            reader.fault("usage.mention", &fault, "Write it as @name:server, for instance @you:example.org");
        }
    }
    if let Some(path) = &usage.ca_file {
        validation::readable(reader, "usage.ca_file", path);
    }
    let Thresholds { session, weekly, extra } = &usage.thresholds;
    for (name, list) in [("session", session), ("weekly", weekly), ("extra", extra)] {
        if let Some(bad) = list.iter().find(|percent| !(1.0..=100.0).contains(*percent)) {
            let fault = format!("{bad} is not between 1 and 100");
            reader.fault(&format!("usage.thresholds.{name}"), &fault, "Write per cent, for instance [50, 75, 90]");
        }
    }
    for (index, account) in usage.accounts.iter().enumerate() {
        judge_account(reader, index, account);
        let same = |other: &Account| (&other.name, other.source) == (&account.name, account.source);
        if usage.accounts[..index].iter().any(same) {
            let fault = format!("{:?} has this source already", account.name);
            let remedy = "Give each login a name of its own; one name joins sources of different kinds";
            reader.fault(&format!("usage.accounts[{index}].name"), &fault, remedy);
        }
        if account.source == UsageSource::Push && usage.listen.is_none() {
            reader.warn(
                &format!("usage.accounts[{index}].source"),
                "nothing listens for pushes. Set usage.listen, for instance 127.0.0.1:9091.",
            );
        }
    }
    if usage.listen.is_some() && usage.accounts.iter().all(|account| account.source != UsageSource::Push) {
        reader.warn("usage.listen", "no account has the source push, so nothing will be taken.");
    }
    for (index, rule) in usage.rules.iter().enumerate() {
        judge_rule(reader, index, rule, usage);
    }
}

/// Names of the parts of a login.
const TOKEN_KEYS: [&str; 6] = ["access_token", "refresh_token", "expires_at", "refresh_expires_at", "scopes", "plan"];

fn judge_account(reader: &mut Reader, index: usize, account: &Account) {
    let key = |name: &str| format!("usage.accounts[{index}].{name}");
    if account.name.is_empty() || !account.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        let fault = format!("{:?} is no name", account.name);
        reader.fault(&key("name"), &fault, "Use letters, digits and '-_.': it stands in metrics and in URLs");
    }
    match account.source {
        UsageSource::AnthropicOauth => match (&account.secret, &account.directory) {
            (None, None) => reader.fault(
                &key("secret"),
                "nothing says where the login is",
                "Name a Kubernetes Secret (secret, namespace), or a folder (directory); `pilothouse init` prepares either",
            ),
            (Some(_), Some(_)) => {
                reader.fault(&key("directory"), "is given, and secret too", "Keep one of the two");
            }
            (Some(_), None) if account.namespace.is_none() => reader.missing(&key("namespace")),
            _ => {}
        },
        UsageSource::Command if account.command.is_empty() => reader.missing(&key("command")),
        UsageSource::Push if account.push_token_file.is_none() => reader.missing(&key("push_token_file")),
        UsageSource::Command | UsageSource::Push => {}
    }
    for (name, value) in [("secret", &account.secret), ("namespace", &account.namespace)] {
        if let Some(bad) = value.as_ref().filter(|value| !validation::is_kubernetes_name(value)) {
            let fault = format!("{bad:?} is no name in Kubernetes");
            reader.fault(&key(name), &fault, "Use small letters, digits, '-' and '.'");
        }
    }
    if let Some(bad) = account.token_keys.keys().find(|name| !TOKEN_KEYS.contains(&name.as_str())) {
        let fault = format!("{bad:?} is no part of a login");
        reader.fault(&key("token_keys"), &fault, &format!("Known are {}", TOKEN_KEYS.join(", ")));
    }
    for (name, url) in [("usage_url", &account.usage_url), ("token_url", &account.token_url)] {
        if let Some(url) = url {
            validation::server(reader, &key(name), url);
        }
    }
}

fn judge_rule(reader: &mut Reader, index: usize, rule: &UsageRule, usage: &Usage) {
    let key = |name: &str| format!("usage.rules[{index}].{name}");
    if usage.rules[..index].iter().any(|other| other.name == rule.name) {
        let fault = format!("{:?} is the name of another rule, too", rule.name);
        reader.fault(&key("name"), &fault, "Choose another: by its name a rule is known over restarts");
    }
    let parts: Vec<&str> = rule.bucket.splitn(3, '/').collect();
    let (account, kind) = match parts.as_slice() {
        [kind] => (None, *kind),
        [account, kind, ..] => (Some(*account), *kind),
        [] => (None, ""),
    };
    if !KINDS.contains(&kind) {
        let fault = format!("{:?} names no kind of bucket", rule.bucket);
        reader.fault(
            &key("bucket"),
            &fault,
            &format!("Write a kind ({}), or account/kind, or account/kind/scope", KINDS.join(", ")),
        );
    }
    if let Some(account) = account.filter(|name| usage.accounts.iter().all(|account| account.name != **name)) {
        reader.fault(&key("bucket"), &format!("there is no account {account:?}"), "Name one of usage.accounts");
    }
    match (rule.percent, rule.probability) {
        (None, None) => reader.fault(
            &key("percent"),
            "nothing says when the rule applies",
            "Write percent = 90, or for a weekly bucket probability = 0.8",
        ),
        (_, Some(_)) if KINDS.contains(&kind) && !WEEKLY.contains(&kind) => reader.fault(
            &key("probability"),
            "only weekly buckets are forecast",
            "Use percent, or a bucket of the kind weekly_all or weekly_scoped",
        ),
        _ => {}
    }
    fraction(reader, &key("probability"), rule.probability);
    if let Some(percent) = rule.percent.filter(|percent| !(1.0..=100.0).contains(percent)) {
        reader.fault(
            &key("percent"),
            &format!("{percent} is not between 1 and 100"),
            "Write per cent, for instance 90",
        );
    }
    let pushed = usage.unprovable(rule);
    if rule.mode == GuardMode::Act && !pushed.is_empty() {
        reader.warn(
            &key("mode"),
            &format!(
                "what is pushed never proves a reset, so what this rule stops for {} is not started again by itself.",
                pushed.join(", ")
            ),
        );
    }
    if rule.stop.is_empty() || rule.stop.iter().any(|name| name == "*") {
        reader.fault(
            &key("stop"),
            "must name every target",
            "Write the names of targets, for instance stop = [\"llama\"]",
        );
    }
}

fn fraction(reader: &mut Reader, key: &str, value: Option<f64>) {
    if let Some(bad) = value.filter(|value| !(*value > 0.0 && *value < 1.0)) {
        reader.fault(key, &format!("{bad} is not between 0 and 1"), "Write a probability, for instance 0.8");
    }
}

/// Reads `23:00-07:00`.
#[must_use]
pub fn quiet_hours(text: &str) -> Option<(jiff::civil::Time, jiff::civil::Time)> {
    let (from, to) = text.split_once('-')?;
    let time = |text: &str| jiff::civil::Time::strptime("%H:%M", text.trim()).ok();
    Some((time(from)?, time(to)?)).filter(|(from, to)| from != to)
}
