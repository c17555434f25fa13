//! The keys that exist, what each holds, and the search for the one that was meant.

use std::collections::BTreeSet;

use figment::value::{Dict, Value};

use super::finding::{Finding, Origin};

/// What a key holds. It decides how a variable is read, and what to advise when the value is of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Text, with an example.
    Text(&'static str),
    /// Text that is never shown. A second key with `_file` at its end names a file that holds it.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Count,
    /// A number, perhaps with a fraction, with an example.
    Number(&'static str),
    /// A list of numbers, with an example.
    Numbers(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts, with an example of one.
    Words(&'static str),
    /// A table of texts.
    Map,
    /// A list of tables, whose keys follow as `name[].key`.
    Tables,
}

use Shape::{Choice, Count, Flag, Map, Number, Numbers, Secret, Tables, Text, Words};

/// Every key, in the order in which people read them.
pub(super) const KEYS: &[(&str, Shape)] = &[
    ("matrix.homeserver", Text("https://matrix.example.org")),
    ("matrix.user", Text("pilothouse")),
    ("matrix.password", Secret),
    ("matrix.password_file", Text("/run/secrets/pilothouse/password")),
    ("matrix.access_token", Secret),
    ("matrix.access_token_file", Text("/run/secrets/pilothouse/access-token")),
    ("matrix.device_id", Text("PILOTHOUSE")),
    ("matrix.store", Text("/data/crypto_store")),
    ("matrix.display_name", Text("Pilothouse")),
    ("matrix.recovery_key", Secret),
    ("matrix.recovery_key_file", Text("/run/secrets/pilothouse/recovery-key")),
    ("matrix.home_room", Text("!room:example.org")),
    ("matrix.rooms", Words("!room:example.org")),
    ("matrix.bare_words_everywhere", Flag),
    ("matrix.prefix", Text("!ph")),
    ("matrix.require_signed_device", Flag),
    ("matrix.echo", Flag),
    ("matrix.ca_file", Text("/etc/pilothouse/ca.pem")),
    ("matrix.proxy", Text("http://proxy.example.org:3128")),
    ("matrix.jwt.login_type", Text("org.matrix.login.jwt")),
    ("matrix.jwt.token", Secret),
    ("matrix.jwt.token_file", Text("/run/secrets/pilothouse/jwt")),
    ("matrix.jwt.keycloak.url", Text("https://keycloak.example.org")),
    ("matrix.jwt.keycloak.realm", Text("matrix")),
    ("matrix.jwt.keycloak.client_id", Text("pilothouse")),
    ("matrix.jwt.keycloak.client_secret", Secret),
    ("matrix.jwt.keycloak.client_secret_file", Text("/run/secrets/pilothouse/client-secret")),
    ("trust.mode", Choice(&["identity", "devices", "any"])),
    ("trust.plaintext", Words("!room:example.org")),
    ("trust.pins", Map),
    ("policy.users", Words("@you:example.org")),
    ("policy.staleness", Text("5m")),
    ("policy.rules", Tables),
    ("policy.rules[].users", Words("@you:example.org")),
    ("policy.rules[].verbs", Words("status")),
    ("policy.rules[].targets", Words("web")),
    ("targets", Tables),
    ("targets[].name", Text("web")),
    ("targets[].kind", Choice(&["Deployment", "StatefulSet"])),
    ("targets[].namespace", Text("apps")),
    ("targets[].object", Text("web")),
    ("targets[].label", Text("the web shop")),
    ("targets[].replicas", Count),
    ("targets[].max_replicas", Count),
    ("kubernetes.source", Choice(&["infer", "in_cluster", "kubeconfig"])),
    ("kubernetes.context", Text("home")),
    ("kubernetes.timeout", Text("10s")),
    ("kubernetes.rollout_deadline", Text("10m")),
    ("kubernetes.show_logs", Flag),
    ("kubernetes.events", Flag),
    ("drift.enabled", Flag),
    ("usage.interval", Text("5m")),
    ("usage.timezone", Text("Europe/Berlin")),
    ("usage.forecast", Choice(&["shrunken", "ols6h"])),
    ("usage.probability", Number("0.8")),
    ("usage.reset_tolerance", Text("60s")),
    ("usage.armed", Flag),
    ("usage.quiet_hours", Text("23:00-07:00")),
    ("usage.mention", Map),
    ("usage.thresholds.session", Numbers("[95]")),
    ("usage.thresholds.weekly", Numbers("[50, 75, 90]")),
    ("usage.thresholds.extra", Numbers("[80]")),
    ("usage.ca_file", Text("/etc/pilothouse/provider-ca.pem")),
    ("usage.listen", Text("127.0.0.1:9091")),
    ("usage.accounts", Tables),
    ("usage.accounts[].name", Text("work")),
    ("usage.accounts[].source", Choice(&["anthropic-oauth", "push", "command"])),
    ("usage.accounts[].secret", Text("claude-login")),
    ("usage.accounts[].namespace", Text("pilothouse")),
    ("usage.accounts[].secret_key", Text("credentials.json")),
    ("usage.accounts[].token_keys", Map),
    ("usage.accounts[].mount", Text("/run/secrets/claude")),
    ("usage.accounts[].directory", Text("/data/claude")),
    ("usage.accounts[].command", Words("claude-usage")),
    ("usage.accounts[].environment", Map),
    ("usage.accounts[].push_token_file", Text("/run/secrets/pilothouse/push-token")),
    ("usage.accounts[].usage_url", Text("https://api.anthropic.com/api/oauth/usage")),
    ("usage.accounts[].token_url", Text("https://platform.claude.com/v1/oauth/token")),
    ("usage.accounts[].user_agent", Text("pilothouse")),
    ("usage.rules", Tables),
    ("usage.rules[].name", Text("spare the week")),
    ("usage.rules[].bucket", Text("weekly_all")),
    ("usage.rules[].percent", Number("90")),
    ("usage.rules[].probability", Number("0.8")),
    ("usage.rules[].stop", Words("llama")),
    ("usage.rules[].mode", Choice(&["observe", "act"])),
    ("admin.listen", Text("127.0.0.1:9090")),
    ("log.filter", Text("info")),
    ("log.format", Choice(&["text", "json"])),
];

/// Gives the shape of a key; indexes do not matter (`targets[2].name`).
pub(super) fn shape(key: &str) -> Option<Shape> {
    let general = general(key);
    KEYS.iter().find(|(name, _)| *name == general).map(|(_, shape)| *shape)
}

/// `targets[2].name` → `targets[].name`.
fn general(key: &str) -> String {
    let mut inside = false;
    key.chars()
        .filter(|c| {
            match c {
                '[' => inside = true,
                ']' => inside = false,
                _ if inside => return false,
                _ => {}
            }
            true
        })
        .collect()
}

/// Finds every key of a layer that does not exist.
pub(super) fn unknown(layer: &Dict, origin: &Origin) -> Vec<Finding> {
    let mut findings = Vec::new();
    search("", layer, origin, &mut findings);
    findings
}

fn search(parent: &str, table: &Dict, origin: &Origin, findings: &mut Vec<Finding>) {
    for (name, value) in table {
        let key = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        match (shape(&key), value) {
            (Some(Tables), Value::Array(_, rows)) => {
                for (index, row) in rows.iter().enumerate() {
                    if let Value::Dict(_, row) = row {
                        search(&format!("{key}[{index}]"), row, origin, findings);
                    }
                }
            }
            // A value of another kind is told where the key is read.
            (Some(_), _) => {}
            (None, Value::Dict(_, inner)) if is_section(&key) => search(&key, inner, origin, findings),
            (None, _) if is_section(&key) => findings.push(Finding {
                fault: "is a section, not a value".to_owned(),
                remedy: format!("Write its keys below a line [{key}]"),
                origin: Some(origin.clone()),
                key,
            }),
            (None, _) => findings.push(unknown_key(key, origin.clone())),
        }
    }
}

fn is_section(key: &str) -> bool {
    let general = general(key);
    KEYS.iter().any(|(name, _)| name.strip_prefix(&general).is_some_and(|rest| rest.starts_with('.')))
}

/// Describes a key that does not exist.
pub(super) fn unknown_key(key: String, origin: Origin) -> Finding {
    let remedy = match meant(&key) {
        Some(near) => {
            let near = match &origin {
                Origin::Variable(name) if name.starts_with(super::environment::PREFIX) => {
                    super::environment::variable(&near)
                }
                _ => near,
            };
            format!("Did you mean {near}? Otherwise remove it")
        }
        None => "Remove it; `pilothouse config` and the example file show the keys that exist".to_owned(),
    };
    Finding { key, origin: Some(origin), fault: "there is no such key".to_owned(), remedy }
}

/// Finds the key that was meant: a near name in the same section, the same name in another, a near section.
fn meant(key: &str) -> Option<String> {
    let (parent, name) = split(key);
    let siblings = KEYS.iter().map(|(known, _)| split(known)).filter(|(section, _)| *section == general(parent));
    if let Some(near) = nearest(name, siblings.map(|(_, name)| name)) {
        return Some(join(parent, near));
    }
    if let Some((known, _)) = KEYS.iter().find(|(known, _)| split(known).1 == name && !known.contains('[')) {
        return Some((*known).to_owned());
    }
    if parent.is_empty() {
        let sections: BTreeSet<&str> = KEYS.iter().filter_map(|(known, _)| known.split(['.', '[']).next()).collect();
        return nearest(name, sections.into_iter()).map(str::to_owned);
    }
    let near = nearest(parent, KEYS.iter().map(|(known, _)| split(known).0))?;
    let known = join(near, name);
    shape(&known).is_some().then_some(known)
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// Gives the most similar word, if one is similar enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const SIMILAR: f64 = 0.7;
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
