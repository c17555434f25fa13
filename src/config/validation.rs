//! What a value must be beyond its type.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tracing_subscriber::EnvFilter;

use super::finding::Origin;
use super::reader::Reader;
use super::{
    Config, JwtSource, Kubernetes, KubernetesSource, Log, Login, Matrix, Policy, Target, Trust, TrustMode, environment,
    keys, predecessor,
};

/// Names of commands, as rules use them.
pub const VERBS: [&str; 9] = ["help", "status", "start", "stop", "restart", "history", "trust", "version", "usage"];

/// Other names of commands, with the name that rules use.
pub const ALIASES: [(&str, &str); 2] = [("on", "start"), ("off", "stop")];

/// What to do about a name that cannot be a target's.
const ANOTHER_NAME: &str = "Choose another name; object keeps the real one";

/// What a rule may write for everything.
const EVERYTHING: &str = "*";

pub(super) fn matrix(reader: &mut Reader, matrix: &Matrix) {
    server(reader, "matrix.homeserver", &matrix.homeserver);
    if let Login::Jwt { source: JwtSource::Keycloak { url, .. }, .. } = &matrix.login {
        server(reader, "matrix.jwt.keycloak.url", url);
    }
    let full = matrix.user.starts_with('@') && is_user_id(&matrix.user);
    if !full && (!is_word(&matrix.user) || matrix.user.contains([':', '@'])) {
        reader.fault(
            "matrix.user",
            &format!("{:?} is neither a localpart nor a full user id", matrix.user),
            "Write for instance pilothouse or @pilothouse:example.org",
        );
    }
    if !is_word(&matrix.prefix) {
        reader.fault("matrix.prefix", "is empty or has blanks in it", "Write one word, for instance prefix = \"!ph\"");
    }
    if matrix.display_name.trim().is_empty() {
        reader.fault("matrix.display_name", "is empty", "Write the name that people see in the room");
    }
    if matrix.store.as_os_str().is_empty() {
        reader.fault("matrix.store", "is empty", "Name a folder on a volume that stays");
    }
    if let Some(room) = matrix.home_room.as_ref().filter(|room| !is_room_id(room) && !is_room_alias(room)) {
        reader.fault(
            "matrix.home_room",
            &format!("{room:?} is neither a room id nor an alias"),
            "Write for instance !abcdef:example.org or #ops:example.org",
        );
    }
    for room in matrix.rooms.iter().filter(|room| !is_room_id(room) && !is_room_alias(room)) {
        reader.fault(
            "matrix.rooms",
            &format!("{room:?} is neither a room id nor an alias"),
            "Write for instance !abcdef:example.org or #ops:example.org",
        );
    }
    if let Some(path) = &matrix.ca_file {
        readable(reader, "matrix.ca_file", path);
    }
    if let Some(proxy) = matrix.proxy.as_ref().filter(|proxy| !["http", "https"].contains(&proxy.scheme())) {
        let fault = format!("a proxy cannot be reached by {}", proxy.scheme());
        reader.fault("matrix.proxy", &fault, "Write a URL that begins with http:// or https://");
    }
}

/// A URL of a server: http or https, with no password in it.
pub(super) fn server(reader: &mut Reader, key: &str, url: &url::Url) {
    if !["http", "https"].contains(&url.scheme()) {
        let fault = format!("{} is no way to reach a server", url.scheme());
        reader.fault(key, &fault, "Write a URL that begins with https:// (or http://)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        reader.fault(key, "has a user or a password in it", "Keep only scheme, host and path");
    }
}

/// A file that can be opened.
pub(super) fn readable(reader: &mut Reader, key: &str, path: &Path) {
    if let Err(error) = std::fs::File::open(path) {
        let fault = format!("{} cannot be read: {error}", path.display());
        reader.fault(key, &fault, "Name an existing file that the user of pilothouse may read");
    }
}

pub(super) fn trust(reader: &mut Reader, trust: &mut Trust) {
    const MODE: &str = "trust.mode";
    match trust.mode {
        TrustMode::Identity => {}
        TrustMode::Devices => reader.warn(
            MODE,
            "devices of people without cross-signing count, and room keys go to every device in a room. Use identity once \
             everybody has cross-signing.",
        ),
        TrustMode::Any => reader.warn(
            MODE,
            "every device that the homeserver lists for an allowed user counts, also one that was made up there, and room \
             keys go to every device in a room. Use identity once everybody has cross-signing.",
        ),
    }
    // No aliases: whoever may move one would decide which rooms need no encryption.
    for room in trust.plaintext.iter().filter(|room| !is_room_id(room)) {
        reader.fault(
            "trust.plaintext",
            &format!("{room:?} is not a room id"),
            "Write the id that begins with an exclamation mark; clients show it in the room's settings, often as Advanced",
        );
    }
    if !trust.plaintext.is_empty() {
        reader.warn("trust.plaintext", "in these rooms the homeserver can forge commands and read answers.");
    }
    let mut pins = BTreeMap::new();
    for (user, key) in &trust.pins {
        if !is_user_id(user) {
            reader.fault(
                "trust.pins",
                &format!("{user:?} is not a full user id"),
                "Write for instance \"@you:example.org\" = \"…\"",
            );
        }
        // As clients show it, too: in groups of four.
        let key: String = key.chars().filter(|c| !c.is_whitespace() && *c != '=').collect();
        if STANDARD_NO_PAD.decode(&key).map_or(true, |bytes| bytes.len() != 32) {
            reader.fault(
                "trust.pins",
                &format!("the key of {user} is not an ed25519 key in base64"),
                "Write the 43 letters and digits of the user's master key, as `trust` shows it",
            );
        }
        pins.insert(user.clone(), key);
    }
    trust.pins = pins;
}

pub(super) fn policy(reader: &mut Reader, policy: &Policy) {
    const USERS: &str = "policy.users";
    if policy.users.is_empty() {
        reader.fault(
            USERS,
            "nobody is allowed to give commands",
            "Write users = [\"@you:example.org\"] below [policy], or set PILOTHOUSE__POLICY__USERS or ALLOWED_USERS",
        );
    }
    for user in policy.users.iter().filter(|user| !is_user_id(user)) {
        let fault = format!("{user:?} is not a full user id");
        reader.fault(USERS, &fault, "Write it as @name:server, for instance @you:example.org");
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let key = format!("policy.rules[{index}].users");
        named(reader, &key, "user of policy.users", &rule.users, &policy.users.iter().map(String::as_str));
        let key = format!("policy.rules[{index}].verbs");
        let (aliases, verbs): (Vec<_>, Vec<_>) =
            rule.verbs.iter().cloned().partition(|verb| ALIASES.iter().any(|(alias, _)| alias == verb));
        for alias in aliases {
            let verb = ALIASES.iter().find(|(name, _)| *name == alias).map_or("", |(_, verb)| verb);
            reader.fault(&key, &format!("{alias:?} is another name of a command"), &format!("Write \"{verb}\""));
        }
        named(reader, &key, "command", &verbs, &VERBS.into_iter());
    }
}

/// Each word of a rule must be one of the known ones, or everything.
fn named<'a>(
    reader: &mut Reader,
    key: &str,
    noun: &str,
    words: &[String],
    known: &(impl Iterator<Item = &'a str> + Clone),
) {
    for word in words.iter().filter(|word| *word != EVERYTHING && known.clone().all(|known| known != *word)) {
        let remedy = match keys::nearest(word, known.clone()) {
            Some(near) => format!("Write {near:?}, if that is meant"),
            None => format!("Known are {}", known.clone().collect::<Vec<_>>().join(", ")),
        };
        reader.fault(key, &format!("{word:?} is no {noun}"), &remedy);
    }
}

pub(super) fn targets(reader: &mut Reader, targets: &[Target]) {
    if targets.is_empty() {
        reader.fault("targets", "there is no target", "Write [[targets]] with name and namespace");
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (index, target) in targets.iter().enumerate() {
        let key = |name: &str| format!("targets[{index}].{name}");
        let spoken = target.name.to_lowercase();
        if let Some(why) = unspeakable(&spoken) {
            let remedy = another_name(reader.origin(&key("name")).as_ref(), target);
            reader.fault(&key("name"), &format!("{:?} {why}", target.name), &remedy);
        }
        if let Some(first) = names.get(&spoken) {
            let fault = format!("{:?} is the name of targets[{first}], too", target.name);
            reader.fault(&key("name"), &fault, ANOTHER_NAME);
        }
        names.entry(spoken).or_insert(index);
        for (name, value) in [("namespace", &target.namespace), ("object", &target.object)] {
            if !is_kubernetes_name(value) {
                let fault = format!("{value:?} is no name in Kubernetes");
                reader.fault(&key(name), &fault, "Use small letters, digits, '-' and '.'");
            }
        }
        if target.label.trim().is_empty() {
            reader.fault(&key("label"), "is empty", "Write what people should read, or remove it");
        }
        if target.max_replicas < 1 {
            reader.fault(&key("max_replicas"), &format!("{} is less than 1", target.max_replicas), "Write 1 or more");
        } else if target.replicas > target.max_replicas {
            let fault = format!("{} is more than max_replicas, {}", target.replicas, target.max_replicas);
            reader.fault(&key("replicas"), &fault, "Raise max_replicas or lower replicas");
        }
        if target.replicas < 0 {
            reader.fault(&key("replicas"), &format!("{} is less than 0", target.replicas), "Write 0 or more");
        }
    }
}

/// Says how a target gets another name than its object. The predecessor's environment has no variable for that.
fn another_name(origin: Option<&Origin>, target: &Target) -> String {
    let is_inherited = matches!(origin, Some(Origin::Variable(name)) if name == predecessor::DEPLOYMENT_NAME);
    if !is_inherited || !is_kubernetes_name(&target.name) {
        return ANOTHER_NAME.to_owned();
    }
    let (variable, name, namespace) = (environment::variable("targets"), &target.name, &target.namespace);
    format!(
        "Set {variable}='[{{ name = \"my-{name}\", object = \"{name}\", namespace = \"{namespace}\" }}]', which counts in its place"
    )
}

/// Says why a name could not be told from the rest of a command.
fn unspeakable(name: &str) -> Option<&'static str> {
    let verb = VERBS.contains(&name) || ALIASES.iter().any(|(alias, _)| *alias == name);
    if name.is_empty() {
        Some("is empty")
    } else if name == "all" {
        Some("means every target")
    } else if verb {
        Some("is a command")
    } else if name.chars().all(|c| c.is_ascii_digit()) {
        Some("would be read as a number of replicas")
    } else if !name.chars().all(|c| c.is_alphanumeric() || "-_./".contains(c)) {
        Some("has more in it than letters, digits and '-_./'")
    } else {
        None
    }
}

pub(super) fn kubernetes(reader: &mut Reader, kubernetes: &Kubernetes) {
    if kubernetes.context.is_some() && kubernetes.source == KubernetesSource::InCluster {
        reader.fault(
            "kubernetes.context",
            "is given, but kubernetes.source is in_cluster, which has no contexts",
            "Remove it, or set source = \"kubeconfig\"",
        );
    }
}

pub(super) fn log(reader: &mut Reader, log: &Log) {
    if let Err(error) = EnvFilter::builder().parse(&log.filter) {
        let fault = format!("{:?} is not a filter ({error})", log.filter);
        reader.fault("log.filter", &fault, "Write for instance info or info,pilothouse=debug");
    }
}

/// What spans sections.
pub(super) fn across(reader: &mut Reader, config: &Config) {
    let names = config.targets.iter().map(|target| target.name.as_str());
    for (index, rule) in config.policy.rules.iter().enumerate() {
        named(reader, &format!("policy.rules[{index}].targets"), "target", &rule.targets, &names);
    }
    for (index, rule) in config.usage.rules.iter().enumerate() {
        named(reader, &format!("usage.rules[{index}].stop"), "target", &rule.stop, &names);
    }
    let ruled = |user: &String| {
        let concerned =
            |users: &[String]| users.is_empty() || users.iter().any(|name| name == user || name == EVERYTHING);
        config.policy.rules.is_empty() || config.policy.rules.iter().any(|rule| concerned(&rule.users))
    };
    for user in config.policy.users.iter().filter(|user| !ruled(user)) {
        reader.warn("policy.rules", &format!("no rule names {user}, who may do nothing."));
    }
    for user in config.trust.pins.keys().filter(|user| !config.policy.users.contains(user)) {
        reader.warn("trust.pins", &format!("{user} is not in policy.users, so the pin has no effect."));
    }
}

/// A full Matrix user id: `@name:server`.
pub(super) fn is_user_id(text: &str) -> bool {
    let Some((name, server)) = text.strip_prefix('@').and_then(|rest| rest.split_once(':')) else { return false };
    text.len() <= 255 && is_word(name) && is_server(server)
}

/// `#alias:server`.
fn is_room_alias(text: &str) -> bool {
    let Some((name, server)) = text.strip_prefix('#').and_then(|rest| rest.split_once(':')) else { return false };
    text.len() <= 255 && is_word(name) && is_server(server)
}

/// `!opaque:server`, or `!opaque` since room version 12.
fn is_room_id(text: &str) -> bool {
    text.len() <= 255 && text.strip_prefix('!').is_some_and(is_word)
}

fn is_server(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// A DNS subdomain, which is what names of objects and namespaces are.
pub(super) fn is_kubernetes_name(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(part)
}
