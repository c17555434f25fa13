//! The environment of openclaw-k8s-toggle-operator works unchanged.

use super::super::{JwtSource, Kind, Login, Origin, Secret, Surroundings, TrustMode, explain};
use super::{Place, load};

const LEAST: [(&str, &str); 3] =
    [("MATRIX_USER", "clawdbot-operator"), ("MATRIX_PASSWORD", "secret"), ("ALLOWED_USERS", "@alice:example.com")];

fn and<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    LEAST.iter().chain(more).copied().collect()
}

#[test]
fn what_it_required_is_enough_and_its_defaults_hold() {
    let loaded = load(None, &LEAST).unwrap();
    let config = &loaded.config;
    assert_eq!(config.matrix.homeserver.as_str(), "http://synapse.matrix.svc.cluster.local:8008/");
    assert_eq!(config.matrix.user, "clawdbot-operator");
    assert_eq!(config.matrix.login, Login::Password { password: Secret::new("secret") });
    assert_eq!(config.matrix.store.to_str(), Some("/data/crypto_store"));
    assert_eq!(config.policy.users, ["@alice:example.com"]);
    let target = &config.targets[0];
    assert_eq!(
        (target.name.as_str(), target.namespace.as_str(), target.kind),
        ("clawdbot", "clawdbot", Kind::Deployment)
    );
    assert_eq!((target.object.as_str(), target.label.as_str()), ("clawdbot", "clawdbot"));
    assert_eq!((target.replicas, target.max_replicas), (1, 10));
    assert!(!config.matrix.echo, "the one default that differs");
    assert!(config.matrix.bare_words_everywhere && !config.matrix.require_signed_device);
    assert_eq!(config.trust.mode, TrustMode::Identity);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(explain(&loaded).contains(
        "bare_words_everywhere = true                                  # default beside the environment of \
         openclaw-k8s-toggle-operator\n"
    ));
}

#[test]
fn blanks_are_cut_off_and_empty_variables_count_as_not_set() {
    let loaded = load(
        None,
        &[
            ("MATRIX_HOMESERVER", "  https://matrix.custom.io  "),
            ("MATRIX_USER", "  @mybot:custom.io  "),
            ("MATRIX_PASSWORD", "  0123  "),
            ("ALLOWED_USERS", " @bob:custom.io , @carol:custom.io,, "),
            ("DEPLOYMENT_NAME", "  my-deploy  "),
            ("DEPLOYMENT_NAMESPACE", "  my-ns  "),
            ("CRYPTO_STORE_PATH", "  /tmp/store  "),
            ("ECHO_MODE", " YES "),
            ("AUTH_METHOD", ""),
            ("LOGURU_LEVEL", "DEBUG"),
        ],
    )
    .unwrap();
    let config = loaded.config;
    assert_eq!(config.matrix.homeserver.as_str(), "https://matrix.custom.io/");
    assert_eq!(config.matrix.user, "@mybot:custom.io");
    assert_eq!(config.matrix.login, Login::Password { password: Secret::new("0123") });
    assert_eq!(config.policy.users, ["@bob:custom.io", "@carol:custom.io"]);
    assert_eq!((config.targets[0].name.as_str(), config.targets[0].namespace.as_str()), ("my-deploy", "my-ns"));
    assert_eq!(config.matrix.store.to_str(), Some("/tmp/store"));
    assert!(config.matrix.echo);
    assert_eq!(config.log.filter, "info,pilothouse=debug");
}

#[test]
fn echo_is_on_for_its_three_words_only() {
    for (word, expected) in [("true", true), ("1", true), ("yes", true), ("on", false), ("false", false), ("", false)] {
        assert_eq!(load(None, &and(&[("ECHO_MODE", word)])).unwrap().config.matrix.echo, expected, "{word}");
    }
}

#[test]
fn the_namespace_alone_keeps_the_name() {
    let config = load(None, &and(&[("DEPLOYMENT_NAMESPACE", "agents")])).unwrap().config;
    assert_eq!((config.targets[0].name.as_str(), config.targets[0].namespace.as_str()), ("clawdbot", "agents"));
}

#[test]
fn each_key_of_its_target_has_its_own_origin() {
    let (name, namespace) = (("DEPLOYMENT_NAME", "web"), ("DEPLOYMENT_NAMESPACE", "agents"));
    let variable = |(name, _): (&str, &str)| Origin::Variable(name.to_owned());
    for (environment, expected) in [
        (vec![], [Origin::Default, Origin::Default]),
        (vec![name], [variable(name), Origin::Predecessor]),
        (vec![namespace], [Origin::Predecessor, variable(namespace)]),
        (vec![name, namespace], [variable(name), variable(namespace)]),
    ] {
        let origins = load(None, &and(&environment)).unwrap().origins;
        let found = ["targets[0].name", "targets[0].namespace"].map(|key| origins[key].clone());
        assert_eq!(found, expected, "for {environment:?}");
    }
    let faults = Place::new(None, &and(&[name, ("DEPLOYMENT_NAMESPACE", "Agents")])).faults();
    assert!(faults.contains("targets[0].namespace (DEPLOYMENT_NAMESPACE): \"Agents\" is no name"), "{faults}");

    let own = ("PILOTHOUSE__TARGETS", r#"[{ name = "db", namespace = "apps" }]"#);
    let place = Place::new(None, &and(&[name, namespace, own]));
    let origins = place.load().unwrap().origins;
    assert_eq!([&origins["targets[0].name"], &origins["targets[0].namespace"]], [&variable(own), &variable(own)]);
    assert_eq!(Surroundings::of(&place.sources).variables["targets"], own.0);
    let taken = Surroundings::of(&Place::new(None, &and(&[name, namespace])).sources).variables;
    let of_target: Vec<_> = taken.iter().filter(|(key, _)| key.starts_with("targets")).collect();
    assert_eq!(of_target.iter().map(|(_, variable)| variable.as_str()).collect::<Vec<_>>(), [name.0, namespace.0]);
}

#[test]
fn a_deployment_whose_name_is_a_word_of_commands_gets_another_by_the_variable_that_the_fault_names() {
    for (name, why) in
        [("usage", "is a command"), ("all", "means every target"), ("3", "would be read as a number of replicas")]
    {
        let target = [("DEPLOYMENT_NAME", name), ("DEPLOYMENT_NAMESPACE", "agents")];
        let fault = Place::new(None, &and(&target)).faults();
        let value = format!(r#"[{{ name = "my-{name}", object = "{name}", namespace = "agents" }}]"#);
        let expected = format!(
            "the configuration has a fault:\n  - targets[0].name (DEPLOYMENT_NAME): {name:?} {why}. \
             Set PILOTHOUSE__TARGETS='{value}', which counts in its place."
        );
        assert_eq!(fault, expected);
        let followed = load(None, &and(&[target[0], target[1], ("PILOTHOUSE__TARGETS", &value)])).unwrap();
        let target = &followed.config.targets[0];
        assert_eq!((&*target.name, &*target.object, &*target.namespace), (&*format!("my-{name}"), name, "agents"));
    }
}

#[test]
fn people_that_it_never_matched_are_left_out_with_a_warning() {
    let environment = [LEAST[0], LEAST[1], ("ALLOWED_USERS", "alice, @bob:example.com")];
    let loaded = load(None, &environment).unwrap();
    assert_eq!(loaded.config.policy.users, ["@bob:example.com"]);
    assert_eq!(
        loaded.warnings[0],
        "ALLOWED_USERS: \"alice\" is left out: it is not a full user id (@name:server), so it matches nobody."
    );
    let nobody = Place::new(None, &[LEAST[0], LEAST[1], ("ALLOWED_USERS", "alice")]).faults();
    assert!(nobody.contains("policy.users (ALLOWED_USERS): \"alice\" is not a full user id."), "{nobody}");
}

#[test]
fn jwt_by_keycloak() {
    let keycloak = [
        ("AUTH_METHOD", "JWT"),
        ("KEYCLOAK_URL", "https://keycloak.example.com/"),
        ("KEYCLOAK_REALM", "matrix"),
        ("KEYCLOAK_CLIENT_ID", "synapse-oauth"),
    ];
    let source = |client_secret| JwtSource::Keycloak {
        url: "https://keycloak.example.com".parse().unwrap(),
        realm: "matrix".to_owned(),
        client_id: "synapse-oauth".to_owned(),
        client_secret,
        password: Secret::new("secret"),
    };
    let login = |more: &[(&str, &str)]| {
        let environment: Vec<_> = and(&keycloak).into_iter().chain(more.iter().copied()).collect();
        load(None, &environment).unwrap().config.matrix.login
    };
    let login_type = "com.famedly.login.token.oauth".to_owned();
    assert_eq!(login(&[]), Login::Jwt { login_type, source: source(None) });
    assert_eq!(
        login(&[("KEYCLOAK_CLIENT_SECRET", "client"), ("JWT_LOGIN_TYPE", "org.matrix.login.jwt")]),
        Login::Jwt { login_type: "org.matrix.login.jwt".to_owned(), source: source(Some(Secret::new("client"))) }
    );
}

#[test]
fn jwt_without_keycloak_says_what_is_missing() {
    let text = Place::new(None, &and(&[("AUTH_METHOD", "jwt")])).faults();
    for variable in ["KEYCLOAK_URL", "KEYCLOAK_REALM", "KEYCLOAK_CLIENT_ID"] {
        assert!(text.contains(&format!("needs it. Give it in the file, or set {variable}.")), "{text}");
    }
}

#[test]
fn keycloak_variables_count_with_jwt_alone() {
    let config = load(None, &and(&[("KEYCLOAK_URL", "https://keycloak.example.com")])).unwrap().config;
    assert_eq!(config.matrix.login, Login::Password { password: Secret::new("secret") });
}

#[test]
fn jwt_from_a_file_is_read_at_each_login_and_needs_no_password() {
    let environment = and(&[("AUTH_METHOD", "jwt"), ("JWT_TOKEN_FILE", "/run/secrets/jwt")]);
    let loaded = load(None, &environment).unwrap();
    let Login::Jwt { source: JwtSource::File { path }, .. } = &loaded.config.matrix.login else {
        panic!("{:?}", loaded.config.matrix.login);
    };
    assert_eq!(path.to_str(), Some("/run/secrets/jwt"));
    assert_eq!(
        loaded.warnings.last().unwrap(),
        "matrix.jwt.token_file (JWT_TOKEN_FILE): /run/secrets/jwt cannot be read now: No such file or directory (os error \
         2). It must be there when a login needs it."
    );
}

#[test]
fn a_file_or_an_own_variable_ends_the_habits() {
    let with_file = load(Some("[drift]\nenabled = false"), &LEAST).unwrap().config.matrix;
    assert!(!with_file.bare_words_everywhere && with_file.require_signed_device);
    let with_variable = load(None, &and(&[("PILOTHOUSE__DRIFT__ENABLED", "false")])).unwrap().config.matrix;
    assert!(!with_variable.bare_words_everywhere && with_variable.require_signed_device);
    let kept = [
        ("PILOTHOUSE__DRIFT__ENABLED", "false"),
        ("PILOTHOUSE__MATRIX__BARE_WORDS_EVERYWHERE", "true"),
        ("PILOTHOUSE__MATRIX__REQUIRE_SIGNED_DEVICE", "false"),
    ];
    let kept = load(None, &and(&kept)).unwrap().config.matrix;
    assert!(kept.bare_words_everywhere && !kept.require_signed_device, "what the README says for whoever keeps them");
    let with_empty = load(None, &and(&[("PILOTHOUSE__DRIFT__ENABLED", "")])).unwrap().config.matrix;
    assert!(with_empty.bare_words_everywhere, "an empty variable counts as not set");
}
