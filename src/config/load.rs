//! Merges the layers, reads the sections, and gives the whole or every fault.

use std::collections::BTreeMap;
use std::path::PathBuf;

use figment::Figment;
use figment::value::{Dict, Value};
use jiff::SignedDuration;

use super::finding::{Findings, Origin};
use super::reader::Reader;
use super::sources::Sources;
use super::{
    Admin, Config, Drift, Kind, Kubernetes, Log, LogFormat, Login, Matrix, Policy, Rule, Secret, Target, Trust,
    environment, file, keys, login, predecessor, usage, validation,
};

/// Replicas of a `start` when nothing is remembered and the target does not say.
const REPLICAS: i32 = 1;
/// Most replicas that `start n` may ask for when the target does not say.
const MAX_REPLICAS: i32 = 10;

/// A configuration, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration itself.
    pub config: Config,
    /// Where each value came from, by key as in the file; `targets[0].name` for the keys of a list.
    pub origins: BTreeMap<String, Origin>,
    /// What works, but should be known; whole sentences.
    pub warnings: Vec<String>,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
}

impl Config {
    /// Reads and validates the configuration.
    ///
    /// # Errors
    /// Every fault at once. An unreadable file is told alone: without it the rest would be guesses.
    pub fn load(sources: &Sources) -> Result<Loaded, Findings> {
        let path = sources.file().map_err(|finding| Findings(vec![finding]))?;
        let written = path.map(file::read).transpose().map_err(|finding| Findings(vec![finding]))?;
        let defaults = file::defaults().map_err(|finding| Findings(vec![finding]))?;

        let mut inherited = predecessor::read(sources);
        let mut findings = std::mem::take(&mut inherited.findings);
        let mut warnings = std::mem::take(&mut inherited.warnings);
        if let Some(layer) = &written {
            findings.extend(keys::unknown(&layer.keys, &layer.origin));
            warnings.extend(overrides(&inherited.layers, &layer.keys, &layer.origin));
        }
        let usual = sources.variable("RUST_LOG").and_then(|filter| filter.to_str());
        let usual = usual.map(|filter| file::Layer::of(Origin::Variable("RUST_LOG".to_owned()), "log.filter", filter));
        let own = environment::layers(sources, &mut findings);
        warnings.extend(environment::near_misses(sources));

        let mut figment = Figment::from(defaults);
        if let Some(layer) = environment::local_mode(sources) {
            figment = figment.merge(layer);
        }
        if written.is_none() && !inherited.layers.is_empty() && !environment::is_used(sources) {
            figment = figment.merge(predecessor::habits());
            warnings.push(
                "Only the environment of openclaw-k8s-toggle-operator is set: as there, bare words are commands in every \
                 room, and an own device that stays unsigned is a warning. A configuration file ends that."
                    .to_owned(),
            );
        }
        let parts = inherited.parts(&own);
        let inherited_layers = inherited.layers.into_iter().map(|(_, layer)| layer);
        for layer in written.into_iter().chain(inherited_layers).chain(usual).chain(own) {
            figment = figment.merge(layer);
        }

        let mut reader = Reader::new(figment, parts, findings, warnings)?;
        let config = sections(&mut reader, inherited.jwt);
        match config {
            Some(config) if reader.findings.is_empty() => Ok(Loaded {
                config: with_environment(config, sources),
                origins: reader.origins,
                warnings: reader.warnings,
                file: path.map(ToOwned::to_owned),
            }),
            _ => Err(Findings(reader.findings)),
        }
    }
}

/// Gives configured programs what most of them miss in an empty environment.
fn with_environment(mut config: Config, sources: &Sources) -> Config {
    for account in config.usage.accounts.iter_mut().filter(|account| !account.command.is_empty()) {
        for name in ["PATH", "HOME"] {
            if let Some(value) = sources.variable(name).and_then(|value| value.to_str()) {
                account.environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
    }
    config
}

/// Warns where a variable of the predecessor changes what the file says: its names are common ones.
fn overrides(layers: &[(&'static str, file::Layer)], written: &Dict, origin: &Origin) -> Vec<String> {
    let find = |keys: &Dict, key: &str| Value::from(keys.clone()).find(key);
    let told = |(key, layer): &(&'static str, file::Layer)| {
        let (old, new) = (find(written, key)?, find(&layer.keys, key)?);
        (old != new).then(|| {
            format!("{key} ({origin}): {} overrides it. Unset the variable if that is not meant.", layer.origin)
        })
    };
    layers.iter().filter_map(told).collect()
}

/// Reads every section before any fault ends it, so that all of them are told.
fn sections(reader: &mut Reader, jwt: bool) -> Option<Config> {
    let matrix = matrix(reader, jwt);
    let trust = trust(reader);
    let policy = policy(reader);
    let targets = targets(reader);
    let kubernetes = kubernetes(reader);
    let drift = reader.required("drift.enabled").map(|enabled| Drift { enabled });
    let usage = usage::read(reader);
    let admin = reader.parsed("admin.listen", "an address with a port").flatten().map(|listen| Admin { listen });
    let log = log(reader);
    let config = Config {
        matrix: matrix?,
        trust: trust?,
        policy: policy?,
        targets: targets?,
        kubernetes: kubernetes?,
        drift: drift?,
        usage: usage?,
        admin: admin?,
        log: log?,
    };
    validation::across(reader, &config);
    Some(config)
}

fn matrix(reader: &mut Reader, jwt: bool) -> Option<Matrix> {
    let homeserver = reader.parsed::<url::Url>("matrix.homeserver", "a URL");
    let user = reader.optional::<String>("matrix.user");
    if matches!(user, Some(None)) {
        reader.fault(
            "matrix.user",
            "nothing says who the bot is",
            "Write user = \"pilothouse\" below [matrix], or set PILOTHOUSE__MATRIX__USER or MATRIX_USER",
        );
    }
    let login = login::read(reader, jwt);
    let store = reader.required("matrix.store");
    let display_name = reader.required("matrix.display_name");
    let recovery_key = reader.secret("matrix.recovery_key");
    let home_room = reader.optional("matrix.home_room");
    let rooms = reader.required("matrix.rooms");
    let bare_words_everywhere = reader.required("matrix.bare_words_everywhere");
    let prefix = reader.required("matrix.prefix");
    let require_signed_device = reader.required("matrix.require_signed_device");
    let echo = reader.required("matrix.echo");
    let ca_file = reader.optional("matrix.ca_file");
    let proxy = reader.parsed::<url::Url>("matrix.proxy", "a URL");
    // Where these two are missing, which is told already, something stands in for them, so that the rest is judged too.
    let stand_in = Login::Password { password: Secret::new("") };
    let matrix = Matrix {
        homeserver: homeserver??,
        user: user?.unwrap_or_else(|| "missing".to_owned()),
        login: login.unwrap_or(stand_in),
        store: store?,
        display_name: display_name?,
        recovery_key: recovery_key?,
        home_room: home_room?,
        rooms: rooms?,
        bare_words_everywhere: bare_words_everywhere?,
        prefix: prefix?,
        require_signed_device: require_signed_device?,
        echo: echo?,
        ca_file: ca_file?,
        proxy: proxy?,
    };
    validation::matrix(reader, &matrix);
    Some(matrix)
}

fn trust(reader: &mut Reader) -> Option<Trust> {
    let mode = reader.required("trust.mode");
    let plaintext = reader.required("trust.plaintext");
    let pins: Option<BTreeMap<String, String>> = reader.or("trust.pins", BTreeMap::new());
    let mut trust = Trust { mode: mode?, plaintext: plaintext?, pins: pins? };
    validation::trust(reader, &mut trust);
    Some(trust)
}

fn policy(reader: &mut Reader) -> Option<Policy> {
    let users = reader.required("policy.users");
    let staleness = duration(reader, "policy.staleness", SignedDuration::from_secs(1), SignedDuration::from_hours(24));
    let mut rules = Vec::new();
    let count = reader.rows("policy.rules");
    for index in 0..count.unwrap_or(0) {
        let key = |name: &str| format!("policy.rules[{index}].{name}");
        let users = reader.or(&key("users"), Vec::new());
        let verbs = reader.or(&key("verbs"), Vec::new());
        let targets = reader.or(&key("targets"), Vec::new());
        rules.push((users, verbs, targets));
    }
    let rules =
        rules.into_iter().map(|(users, verbs, targets)| Some(Rule { users: users?, verbs: verbs?, targets: targets? }));
    count?;
    let policy = Policy { users: users?, staleness: staleness?, rules: rules.collect::<Option<_>>()? };
    validation::policy(reader, &policy);
    Some(policy)
}

fn targets(reader: &mut Reader) -> Option<Vec<Target>> {
    let targets: Vec<Option<Target>> = (0..reader.rows("targets")?).map(|index| target(reader, index)).collect();
    let targets: Vec<Target> = targets.into_iter().collect::<Option<_>>()?;
    validation::targets(reader, &targets);
    Some(targets)
}

fn target(reader: &mut Reader, index: usize) -> Option<Target> {
    let key = |name: &str| format!("targets[{index}].{name}");
    let name = reader.required::<String>(&key("name"));
    let kind = reader.or(&key("kind"), Kind::Deployment);
    let namespace = reader.required(&key("namespace"));
    let same = name.clone().unwrap_or_default();
    let object = reader.or(&key("object"), same.clone());
    let label = reader.or(&key("label"), same);
    let replicas = reader.or(&key("replicas"), REPLICAS);
    let max_replicas = reader.or(&key("max_replicas"), MAX_REPLICAS);
    Some(Target {
        name: name?,
        kind: kind?,
        namespace: namespace?,
        object: object?,
        label: label?,
        replicas: replicas?,
        max_replicas: max_replicas?,
    })
}

fn kubernetes(reader: &mut Reader) -> Option<Kubernetes> {
    let source = reader.required("kubernetes.source");
    let context = reader.optional("kubernetes.context");
    let timeout = duration(reader, "kubernetes.timeout", SignedDuration::from_secs(1), SignedDuration::from_mins(5));
    let rollout_deadline =
        duration(reader, "kubernetes.rollout_deadline", SignedDuration::from_secs(10), SignedDuration::from_hours(24));
    let show_logs = reader.required("kubernetes.show_logs");
    let events = reader.required("kubernetes.events");
    let kubernetes = Kubernetes {
        source: source?,
        context: context?,
        timeout: timeout?,
        rollout_deadline: rollout_deadline?,
        show_logs: show_logs?,
        events: events?,
    };
    validation::kubernetes(reader, &kubernetes);
    Some(kubernetes)
}

fn log(reader: &mut Reader) -> Option<Log> {
    let filter = reader.required::<String>("log.filter");
    let format = reader.required::<LogFormat>("log.format");
    let log = Log { filter: filter?, format: format? };
    validation::log(reader, &log);
    Some(log)
}

/// Reads a duration between two bounds.
pub(super) fn duration(
    reader: &mut Reader,
    key: &str,
    least: SignedDuration,
    most: SignedDuration,
) -> Option<SignedDuration> {
    let duration = reader.parsed::<SignedDuration>(key, "a duration").flatten()?;
    if (least..=most).contains(&duration) {
        return Some(duration);
    }
    let (fault, remedy) = (format!("{duration:#} is out of range"), format!("Choose between {least:#} and {most:#}"));
    reader.fault(key, &fault, &remedy);
    None
}
