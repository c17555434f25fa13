//! Defaults < file < the predecessor's environment < `PILOTHOUSE__`; and where each value came from.

use super::super::{Config, JwtSource, Login, Origin, Secret, TrustMode, explain, reloadable_difference};
use super::{COMPLETE, Place, load};

#[test]
fn a_later_layer_wins() {
    let file = COMPLETE.replace("[policy]", "homeserver = \"https://file.example\"\n[policy]");
    let file = Some(file.as_str());
    let homeserver = |file, environment: &[(&str, &str)]| {
        let needed = [("MATRIX_USER", "a"), ("MATRIX_PASSWORD", "b"), ("ALLOWED_USERS", "@c:d.example")];
        let environment: Vec<_> = needed.into_iter().chain(environment.iter().copied()).collect();
        let loaded = load(file, &environment).unwrap();
        (loaded.config.matrix.homeserver.to_string(), loaded.origins["matrix.homeserver"].clone())
    };
    let inherited = ("MATRIX_HOMESERVER", "https://inherited.example");
    let own = ("PILOTHOUSE__MATRIX__HOMESERVER", "https://own.example");
    let variable = |name: &str| Origin::Variable(name.to_owned());

    let default = ("http://synapse.matrix.svc.cluster.local:8008/".to_owned(), Origin::Default);
    assert_eq!(homeserver(None, &[]), default);
    let (value, origin) = homeserver(file, &[]);
    assert_eq!(value, "https://file.example/");
    assert!(matches!(origin, Origin::File(path) if path.ends_with("pilothouse.toml")));
    let found = homeserver(file, &[inherited]);
    assert_eq!(found, ("https://inherited.example/".to_owned(), variable("MATRIX_HOMESERVER")));
    let found = homeserver(file, &[inherited, own]);
    assert_eq!(found, ("https://own.example/".to_owned(), variable("PILOTHOUSE__MATRIX__HOMESERVER")));
}

#[test]
fn what_the_predecessors_environment_overrides_in_the_file_is_warned_about() {
    let place = Place::new(Some(COMPLETE), &[("DEPLOYMENT_NAME", "db"), ("MATRIX_USER", "pilothouse")]);
    let loaded = place.load().unwrap();
    assert_eq!(loaded.config.targets[0].name, "db");
    assert_eq!(
        loaded.warnings.iter().map(|text| place.shorten(text)).collect::<Vec<_>>(),
        ["targets (pilothouse.toml): DEPLOYMENT_NAME overrides it. Unset the variable if that is not meant."]
    );
}

#[test]
fn the_argument_wins_over_the_variable_over_the_usual_places() {
    let mut place = Place::new(Some(COMPLETE), &[]);
    let named = |place: &Place, name: &str| {
        let path = place.path(name);
        std::fs::write(&path, COMPLETE.replace("\"pilothouse\"", &format!("\"{name}\""))).unwrap();
        path
    };
    let user = |place: &Place| place.load().unwrap().config.matrix.user;
    assert_eq!(user(&place), "pilothouse");
    let path = named(&place, "variable");
    place.sources.environment.insert("PILOTHOUSE_CONFIG".to_owned(), path.into());
    assert_eq!(user(&place), "variable");
    place.sources.argument = Some(named(&place, "argument"));
    assert_eq!(user(&place), "argument");
    assert_eq!(place.load().unwrap().file, place.sources.argument);
}

#[test]
fn variables_carry_every_kind_of_value() {
    let config = load(
        None,
        &[
            ("PILOTHOUSE__MATRIX__USER", "0123"),
            ("PILOTHOUSE__MATRIX__ACCESS_TOKEN", "\"quoted\""),
            ("PILOTHOUSE__MATRIX__DEVICE_ID", "1"),
            ("PILOTHOUSE__MATRIX__ECHO", "1"),
            ("PILOTHOUSE__MATRIX__ROOMS", "!a:example.org, !b:example.org"),
            ("PILOTHOUSE__MATRIX__JWT__LOGIN_TYPE", "m.other"),
            ("PILOTHOUSE__TRUST__MODE", "any"),
            (
                "PILOTHOUSE__TRUST__PINS",
                r#"{ "@you:example.org" = "l8Bc R0Za BXB3 SZd5 jTYL FHBZ 1wIG 0FtS NPlb vpHE 6Xs=" }"#,
            ),
            ("PILOTHOUSE__POLICY__USERS", r#"["@you:example.org"]"#),
            ("PILOTHOUSE__POLICY__STALENESS", "90s"),
            ("PILOTHOUSE__TARGETS", r#"[{ name = "db", namespace = "apps", kind = "StatefulSet", replicas = 3 }]"#),
            ("RUST_LOG", "debug"),
        ],
    )
    .unwrap()
    .config;
    assert_eq!(config.matrix.user, "0123");
    let access_token = Secret::new("\"quoted\"");
    assert_eq!(config.matrix.login, Login::Token { access_token, device_id: "1".to_owned() });
    assert!(config.matrix.echo);
    assert_eq!(config.matrix.rooms, ["!a:example.org", "!b:example.org"]);
    assert_eq!(config.trust.mode, TrustMode::Any);
    assert_eq!(config.trust.pins["@you:example.org"], "l8BcR0ZaBXB3SZd5jTYLFHBZ1wIG0FtSNPlbvpHE6Xs");
    assert_eq!(config.policy.staleness.as_secs(), 90);
    assert_eq!((config.targets[0].name.as_str(), config.targets[0].replicas), ("db", 3));
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn one_underscore_too_few_is_warned_about_but_not_what_kubernetes_sets() {
    let kubernetes = ("PILOTHOUSE_SERVICE_PORT_ADMIN", "9090");
    let loaded = load(Some(COMPLETE), &[("PILOTHOUSE_MATRIX_HOME_ROOM", "!a:b"), kubernetes]).unwrap();
    assert_eq!(
        loaded.warnings,
        [
            "PILOTHOUSE_MATRIX_HOME_ROOM has no effect. Write PILOTHOUSE__MATRIX__HOME_ROOM with two underscores each time."
        ]
    );
}

#[test]
fn weaker_trust_is_warned_about() {
    for (mode, word) in [("devices", "devices of people without cross-signing"), ("any", "made up")] {
        let loaded = load(Some(COMPLETE), &[("PILOTHOUSE__TRUST__MODE", mode)]).unwrap();
        let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
        assert!(warning.contains(word) && warning.contains("room keys go to every device"), "{warning}");
    }
}

#[test]
fn the_explanation_shows_each_value_and_its_origin() {
    let place = Place::new(
        Some(&format!("{COMPLETE}max_replicas = 5\n\n[[targets]]\nname = \"db\"\nnamespace = \"apps\"\n")),
        &[("PILOTHOUSE__POLICY__STALENESS", "2m"), ("MATRIX_HOMESERVER", "https://matrix.example.org")],
    );
    let text = place.shorten(&explain(&place.load().unwrap()));
    assert_eq!(
        text,
        r#"# The effective configuration, and where each value came from.
# File: pilothouse.toml

[matrix]
homeserver = "https://matrix.example.org/"  # MATRIX_HOMESERVER
user = "pilothouse"                         # pilothouse.toml
password = "***"                            # pilothouse.toml
store = "/data/crypto_store"                # default
display_name = "Pilothouse"                 # default
rooms = []                                  # default
bare_words_everywhere = false               # default
prefix = "!ph"                              # default
require_signed_device = true                # default
echo = false                                # default

[trust]
mode = "identity"  # default
plaintext = []     # default
pins = {}          # default

[policy]
users = ["@you:example.org"]  # pilothouse.toml
staleness = "2m"              # PILOTHOUSE__POLICY__STALENESS

[[targets]]
name = "web"         # pilothouse.toml
kind = "Deployment"  # default
namespace = "apps"   # pilothouse.toml
object = "web"       # default
label = "web"        # default
replicas = 1         # default
max_replicas = 5     # pilothouse.toml

[[targets]]
name = "db"          # pilothouse.toml
kind = "Deployment"  # default
namespace = "apps"   # pilothouse.toml
object = "db"        # default
label = "db"         # default
replicas = 1         # default
max_replicas = 10    # default

[kubernetes]
source = "infer"          # default
timeout = "10s"           # default
rollout_deadline = "10m"  # default
show_logs = false         # default
events = true             # default

[drift]
enabled = true  # default

[usage]
interval = "5m"         # default
forecast = "shrunken"   # default
probability = 0.7       # default
reset_tolerance = "1m"  # default
armed = false           # default
mention = {}            # default

[usage.thresholds]
session = [100.0]                   # default
weekly = [50.0, 80.0, 95.0, 100.0]  # default
extra = [80.0, 100.0]               # default

[admin]
listen = "127.0.0.1:9090"  # default

[log]
filter = "info"  # default
format = "text"  # default
"#
    );
    let again = text.replace("***", "correct horse");
    assert_eq!(load(Some(&again), &[]).unwrap().config, place.load().unwrap().config, "it can be read again");
}

#[test]
fn rules_targets_and_drift_may_change_while_it_runs() {
    let config = |file: &str| load(Some(file), &[]).unwrap().config;
    let old = config(COMPLETE);
    let new = config(
        &COMPLETE
            .replace("\"web\"", "\"db\"")
            .replace("@you:", "@me:")
            .replace("[policy]", "[drift]\nenabled = false\n[policy]\nrules = [{ verbs = [\"status\"] }]"),
    );
    assert_eq!(reloadable_difference(&old, &new), Ok(()));
}

#[test]
fn what_needs_a_restart_is_named_secrets_included() {
    let needs = |old: &Config, new: &Config| reloadable_difference(old, new).unwrap_err();
    let old = load(Some(COMPLETE), &[]).unwrap().config;
    let mut new = old.clone();
    new.matrix.login = Login::Password { password: Secret::new("other") };
    assert_eq!(needs(&old, &new), ["matrix.password"]);
    new.matrix.recovery_key = Some(Secret::new("key"));
    new.matrix.proxy = Some("http://a:b@proxy.example".parse().unwrap());
    new.log.filter = "debug".to_owned();
    assert_eq!(needs(&old, &new), ["log.filter", "matrix.password", "matrix.proxy", "matrix.recovery_key"]);
    let mut other = new.clone();
    other.matrix.proxy = Some("http://a:c@proxy.example".parse().unwrap());
    assert_eq!(needs(&new, &other), ["matrix.proxy"]);
    let source = JwtSource::Token { token: Secret::new("x") };
    other.matrix.proxy.clone_from(&new.matrix.proxy);
    other.matrix.login = Login::Jwt { login_type: "m.jwt".to_owned(), source };
    assert_eq!(needs(&new, &other), ["matrix.jwt.login_type", "matrix.jwt.token", "matrix.password"]);
    let with_token = |token: &str| {
        let account = "[[usage.accounts]]\nsource = \"command\"\ncommand = [\"usage\"]\nenvironment = { TOKEN = ";
        load(Some(&format!("{COMPLETE}\n{account}{token:?} }}\n")), &[]).unwrap().config
    };
    assert_eq!(needs(&with_token("one"), &with_token("two")), ["usage.accounts[0].environment"]);
}
