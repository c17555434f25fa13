//! Every fault names the key, the source and the remedy.

use super::{COMPLETE, Place, load};

/// Adds lines to a section of the complete configuration, before the lines that it has.
fn with(section: &str, lines: &str) -> String {
    let header = format!("[{section}]\n");
    if COMPLETE.contains(&header) {
        COMPLETE.replacen(&header, &format!("{header}{lines}\n"), 1)
    } else {
        format!("{COMPLETE}\n{header}{lines}\n")
    }
}

/// Section, lines in it, what a person reads.
const OF_A_FILE: &[(&str, &str, &str)] = &[
    (
        "matrix",
        "homeserver = \"matrix.example.org\"",
        "matrix.homeserver (pilothouse.toml): is not a URL. Write for instance homeserver = \"https://matrix.example.org\".",
    ),
    (
        "matrix",
        "homeserver = \"ftp://example.org\"",
        "matrix.homeserver (pilothouse.toml): ftp is no way to reach a server. Write a URL that begins with https:// (or http://).",
    ),
    (
        "matrix",
        "homeserver = \"https://me:word@example.org\"",
        "matrix.homeserver (pilothouse.toml): has a user or a password in it. Keep only scheme, host and path.",
    ),
    ("matrix", "echo = \"yes\"", "matrix.echo (pilothouse.toml): is text, not true or false. Write true or false."),
    (
        "matrix",
        "rooms = \"!a:b\"",
        "matrix.rooms (pilothouse.toml): is text, not a list of texts. Write for instance rooms = [\"!room:example.org\"].",
    ),
    (
        "matrix",
        "rooms = [\"ops:example.org\"]",
        "matrix.rooms (pilothouse.toml): \"ops:example.org\" is neither a room id nor an alias. Write for instance !abcdef:example.org or #ops:example.org.",
    ),
    (
        "matrix",
        "home_room = \"ops\"",
        "matrix.home_room (pilothouse.toml): \"ops\" is neither a room id nor an alias. Write for instance !abcdef:example.org or #ops:example.org.",
    ),
    (
        "matrix",
        "prefix = \"\"",
        "matrix.prefix (pilothouse.toml): is empty or has blanks in it. Write one word, for instance prefix = \"!ph\".",
    ),
    (
        "matrix",
        "ca_file = \"/nowhere/ca.pem\"",
        "matrix.ca_file (pilothouse.toml): /nowhere/ca.pem cannot be read: No such file or directory (os error 2). Name an existing file that the user of pilothouse may read.",
    ),
    (
        "matrix",
        "proxy = \"socks5://localhost:1\"",
        "matrix.proxy (pilothouse.toml): a proxy cannot be reached by socks5. Write a URL that begins with http:// or https://.",
    ),
    (
        "matrix",
        "jwt = 3",
        "matrix.jwt (pilothouse.toml): is a section, not a value. Write its keys below a line [matrix.jwt].",
    ),
    (
        "trust",
        "mode = \"trusting\"",
        "trust.mode (pilothouse.toml): is not a word for this. Write one of identity, devices, any.",
    ),
    (
        "trust",
        "pins = { \"@you:example.org\" = \"abc\" }",
        "trust.pins (pilothouse.toml): the key of @you:example.org is not an ed25519 key in base64. Write the 43 letters and digits of the user's master key, as `trust` shows it.",
    ),
    (
        "trust",
        "plaintext = [\"all\"]",
        "trust.plaintext (pilothouse.toml): \"all\" is not a room id. Write the id that begins with an exclamation mark; clients show it in the room's settings, often as Advanced.",
    ),
    (
        "policy",
        "staleness = 300",
        "policy.staleness (pilothouse.toml): is a number, not text. Write for instance staleness = \"5m\".",
    ),
    (
        "policy",
        "staleness = \"soon\"",
        "policy.staleness (pilothouse.toml): is not a duration. Write for instance staleness = \"5m\".",
    ),
    (
        "policy",
        "staleness = \"0s\"",
        "policy.staleness (pilothouse.toml): 0s is out of range. Choose between 1s and 24h.",
    ),
    (
        "policy",
        "rules = [{ verbs = [\"on\"] }]",
        "policy.rules[0].verbs (pilothouse.toml): \"on\" is another name of a command. Write \"start\".",
    ),
    (
        "policy",
        "rules = [{ verbs = [\"stats\"] }]",
        "policy.rules[0].verbs (pilothouse.toml): \"stats\" is no command. Write \"status\", if that is meant.",
    ),
    (
        "policy",
        "rules = [{ users = [\"@yu:example.org\"] }]",
        "policy.rules[0].users (pilothouse.toml): \"@yu:example.org\" is no user of policy.users. Write \"@you:example.org\", if that is meant.",
    ),
    (
        "policy",
        "rules = [{ targets = [\"db\"] }]",
        "policy.rules[0].targets (pilothouse.toml): \"db\" is no target. Known are web.",
    ),
    (
        "kubernetes",
        "timeout = \"1h\"",
        "kubernetes.timeout (pilothouse.toml): 1h is out of range. Choose between 1s and 5m.",
    ),
    (
        "kubernetes",
        "source = \"in_cluster\"\ncontext = \"home\"",
        "kubernetes.context (pilothouse.toml): is given, but kubernetes.source is in_cluster, which has no contexts. Remove it, or set source = \"kubeconfig\".",
    ),
    (
        "admin",
        "listen = \"localhost\"",
        "admin.listen (pilothouse.toml): is not an address with a port. Write for instance listen = \"127.0.0.1:9090\".",
    ),
    (
        "log",
        "filter = \"pilothouse=loud\"",
        "log.filter (pilothouse.toml): \"pilothouse=loud\" is not a filter (error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5). Write for instance info or info,pilothouse=debug.",
    ),
];

#[test]
fn each_fault_of_a_file_reads_as_this() {
    for (section, lines, expected) in OF_A_FILE {
        let text = Place::new(Some(&with(section, lines)), &[]).faults();
        assert_eq!(text, format!("the configuration has a fault:\n  - {expected}"), "for {lines}");
    }
}

/// Lines of a second target, the faulty key, what a person reads.
const OF_A_TARGET: &[(&str, &str, &str)] = &[
    (
        "name = \"all\"\nnamespace = \"apps\"",
        "name",
        "\"all\" means every target. Choose another name; object keeps the real one.",
    ),
    (
        "name = \"Start\"\nnamespace = \"apps\"\nobject = \"start\"",
        "name",
        "\"Start\" is a command. Choose another name; object keeps the real one.",
    ),
    (
        "name = \"off\"\nnamespace = \"apps\"",
        "name",
        "\"off\" is a command. Choose another name; object keeps the real one.",
    ),
    (
        "name = \"3\"\nnamespace = \"apps\"",
        "name",
        "\"3\" would be read as a number of replicas. Choose another name; object keeps the real one.",
    ),
    (
        "name = \"two words\"\nnamespace = \"apps\"\nobject = \"a\"",
        "name",
        "\"two words\" has more in it than letters, digits and '-_./'. Choose another name; object keeps the real one.",
    ),
    (
        "name = \"Web\"\nnamespace = \"apps\"\nobject = \"web\"",
        "name",
        "\"Web\" is the name of targets[0], too. Choose another name; object keeps the real one.",
    ),
    (
        "name = \"db\"\nnamespace = \"Apps\"",
        "namespace",
        "\"Apps\" is no name in Kubernetes. Use small letters, digits, '-' and '.'.",
    ),
    (
        "name = \"db\"\nnamespace = \"apps\"\nkind = \"deployment\"",
        "kind",
        "is not a word for this. Write one of Deployment, StatefulSet.",
    ),
    (
        "name = \"db\"\nnamespace = \"apps\"\nreplicas = 11",
        "replicas",
        "11 is more than max_replicas, 10. Raise max_replicas or lower replicas.",
    ),
    ("name = \"db\"\nnamespace = \"apps\"\nreplicas = -1", "replicas", "-1 is less than 0. Write 0 or more."),
    (
        "name = \"db\"\nnamespace = \"apps\"\nmax_replicas = 99999999999",
        "max_replicas",
        "is out of range. Write a whole number.",
    ),
    (
        "name = \"db\"\nnamespace = \"apps\"\nreplicas = 1.5",
        "replicas",
        "is a number with a fraction, not a whole number. Write a whole number.",
    ),
];

#[test]
fn each_fault_of_a_target_reads_as_this() {
    for (lines, key, expected) in OF_A_TARGET {
        let file = format!("{COMPLETE}\n[[targets]]\n{lines}\n");
        let text = Place::new(Some(&file), &[]).faults();
        assert_eq!(text, format!("the configuration has a fault:\n  - targets[1].{key} (pilothouse.toml): {expected}"));
    }
}

#[test]
fn a_key_that_does_not_exist_is_a_fault_and_the_near_one_is_named() {
    let table = [
        (
            with("matrix", "home_server = \"https://a.example\""),
            "matrix.home_server (pilothouse.toml): there is no such key. Did you mean matrix.homeserver? Otherwise remove it.",
        ),
        (
            with("matrix", "users = []"),
            "matrix.users (pilothouse.toml): there is no such key. Did you mean matrix.user? Otherwise remove it.",
        ),
        (
            with("matrix", "staleness = \"5m\""),
            "matrix.staleness (pilothouse.toml): there is no such key. Did you mean policy.staleness? Otherwise remove it.",
        ),
        (
            with("kubernets", "timeout = \"5s\""),
            "kubernets (pilothouse.toml): there is no such key. Did you mean kubernetes? Otherwise remove it.",
        ),
        (
            with("matrix.jwt", "mystery = 1"),
            "matrix.jwt.mystery (pilothouse.toml): there is no such key. Remove it; `pilothouse config` and the example file show the keys that exist.",
        ),
        (
            format!("{COMPLETE}replica = 2\n"),
            "targets[0].replica (pilothouse.toml): there is no such key. Did you mean targets[0].replicas? Otherwise remove it.",
        ),
    ];
    for (file, expected) in table {
        let text = Place::new(Some(&file), &[]).faults();
        assert_eq!(text, format!("the configuration has a fault:\n  - {expected}"));
    }
}

/// Variable, its text, what a person reads.
const OF_A_VARIABLE: &[(&str, &str, &str)] = &[
    (
        "PILOTHOUSE__MATRIX__HOME_SERVER",
        "x",
        "matrix.home_server (PILOTHOUSE__MATRIX__HOME_SERVER): there is no such key. Did you mean PILOTHOUSE__MATRIX__HOMESERVER? Otherwise remove it.",
    ),
    (
        "PILOTHOUSE__MATRIX__HOMESERVER",
        "x",
        "matrix.homeserver (PILOTHOUSE__MATRIX__HOMESERVER): is not a URL. Write for instance PILOTHOUSE__MATRIX__HOMESERVER=https://matrix.example.org.",
    ),
    (
        "PILOTHOUSE__MATRIX__ECHO",
        "loud",
        "matrix.echo (PILOTHOUSE__MATRIX__ECHO): is text, not true or false. Write true or false.",
    ),
    (
        "PILOTHOUSE__POLICY__USERS",
        "you, @me:example.org",
        "policy.users (PILOTHOUSE__POLICY__USERS): \"you\" is not a full user id. Write it as @name:server, for instance @you:example.org.",
    ),
    (
        "PILOTHOUSE__TARGETS",
        "web",
        "targets (PILOTHOUSE__TARGETS): is not TOML. Write a list of tables, for instance PILOTHOUSE__TARGETS='[{ name = \"web\", namespace = \"apps\" }]'.",
    ),
    (
        "PILOTHOUSE__TARGETS",
        "[1]",
        "targets (PILOTHOUSE__TARGETS): is not a list of tables. Write [[targets]] with its keys below.",
    ),
    (
        "PILOTHOUSE__TARGETS",
        "[{ name = \"db\" }]",
        "targets[0].namespace (PILOTHOUSE__TARGETS): is not given. Write for instance namespace = \"apps\".",
    ),
    (
        "MATRIX_HOMESERVER",
        "synapse:8008",
        "matrix.homeserver (MATRIX_HOMESERVER): synapse is no way to reach a server. Write a URL that begins with https:// (or http://).",
    ),
    (
        "AUTH_METHOD",
        "sso",
        "AUTH_METHOD: sso filled in Keycloak's web form, and is not done any more. Set it to jwt (with KEYCLOAK_URL, KEYCLOAK_REALM and KEYCLOAK_CLIENT_ID) or to password.",
    ),
];

#[test]
fn each_fault_of_a_variable_reads_as_this() {
    for (name, value, expected) in OF_A_VARIABLE {
        let text = Place::new(Some(COMPLETE), &[(name, value)]).faults();
        assert_eq!(text, format!("the configuration has a fault:\n  - {expected}"), "for {name}={value}");
    }
}

#[test]
fn an_empty_configuration_says_all_that_is_needed_at_once() {
    let expected = "the configuration has 3 faults:\n  \
        - matrix.user: nothing says who the bot is. Write user = \"pilothouse\" below [matrix], or set PILOTHOUSE__MATRIX__USER or MATRIX_USER.\n  \
        - matrix.password: nothing says how to log in. Give one of matrix.password, matrix.access_token with matrix.device_id, or matrix.jwt; \
        each secret also as key with _file at its end, as variable (PILOTHOUSE__MATRIX__PASSWORD_FILE), or as MATRIX_PASSWORD.\n  \
        - policy.users (default): nobody is allowed to give commands. Write users = [\"@you:example.org\"] below [policy], or set PILOTHOUSE__POLICY__USERS or ALLOWED_USERS.";
    assert_eq!(load(None, &[]).unwrap_err().to_string(), expected);
}

#[test]
fn faults_of_several_sources_are_told_at_once() {
    let file = with("matrix", "echo = 1\nprefics = \"!\"").replace("@you:example.org", "you");
    let text = Place::new(Some(&file), &[("PILOTHOUSE__LOG__FORMAT", "xml"), ("PILOTHOUSE__DRIFT", "off")]).faults();
    let keys: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(
        keys,
        [
            "  - matrix.prefics (pilothouse.toml)",
            "  - drift (PILOTHOUSE__DRIFT)",
            "  - matrix.echo (pilothouse.toml)",
            "  - policy.users (pilothouse.toml)",
            "  - log.format (PILOTHOUSE__LOG__FORMAT)"
        ],
        "{text}"
    );
}

#[test]
fn login_is_exactly_one_way() {
    let login = |lines: &str| {
        let file = COMPLETE.replace("password = \"correct horse\"", lines);
        Place::new(Some(&file), &[]).faults().replace("the configuration has a fault:\n  - ", "")
    };
    assert_eq!(
        login("password = \"one\"\naccess_token = \"two\"\ndevice_id = \"three\""),
        "matrix: there is more than one way to log in: matrix.access_token (pilothouse.toml) and matrix.password \
         (pilothouse.toml). Keep one of them."
    );
    assert_eq!(
        login("password = \"one\"\njwt = { token = \"two\" }"),
        "matrix: there is more than one way to log in: matrix.jwt.token (pilothouse.toml) and matrix.password \
         (pilothouse.toml). Keep one of them."
    );
    assert_eq!(
        login("access_token = \"two\""),
        "matrix.device_id: is not given, but the access token belongs to a device. Write the device_id that came with the \
         token (GET /_matrix/client/v3/account/whoami tells it)."
    );
    assert_eq!(
        login("device_id = \"TWO\""),
        "matrix.device_id (pilothouse.toml): is given without matrix.access_token. Give the access token that belongs to \
         this device, or remove the device."
    );
    assert_eq!(
        login(
            "password = \"one\"\njwt = { keycloak = { url = \"https://keycloak.example.org\", realm = \"matrix\" } }"
        ),
        "matrix.jwt.keycloak.client_id: is not given, but the login by Keycloak needs it. Give it in the file, or set \
         KEYCLOAK_CLIENT_ID."
    );
}

#[test]
fn a_file_that_is_not_toml_is_told_by_its_line() {
    let place = Place::new(Some("[matrix]\nuser = \"a\"\npassword = hunter2\n"), &[]);
    assert_eq!(
        place.faults(),
        "the configuration has a fault:\n  - pilothouse.toml: line 3 is not TOML. Correct the TOML: text stands in quotes, \
         a section in [brackets]."
    );
}

#[test]
fn a_named_file_must_exist() {
    let mut place = Place::new(Some(COMPLETE), &[("PILOTHOUSE_CONFIG", "/nowhere/a.toml")]);
    let expected = "(PILOTHOUSE_CONFIG): there is no such file. Name an existing configuration file.";
    assert!(place.faults().ends_with(&format!("/nowhere/a.toml {expected}")), "{}", place.faults());
    place.sources.argument = Some("/nowhere/b.toml".into());
    assert!(place.faults().contains("/nowhere/b.toml (--config): there is no such file."), "{}", place.faults());
}

#[test]
fn a_file_that_cannot_be_seen_is_a_fault_and_not_taken_for_none() {
    let mut place = Place::new(Some(COMPLETE), &[]);
    // A folder that nobody can enter, root neither: a link to itself.
    std::os::unix::fs::symlink("closed", place.path("closed")).unwrap();
    let hidden = place.path("closed").join("pilothouse.toml");
    place.sources.usual.insert(0, hidden.clone());
    // What the system says of it is the C library's word.
    let is_told = |place: &Place| {
        let faults = place.faults();
        let told = faults.strip_prefix(
            "the configuration has a fault:\n  - closed/pilothouse.toml: whether it is there cannot be seen: ",
        );
        let way_out = "(os error 40). Let the user of pilothouse enter its folder, or name another file with --config.";
        assert!(told.is_some_and(|told| told.ends_with(way_out)), "{faults}");
    };
    is_told(&place);
    place.sources.argument = Some(hidden);
    is_told(&place);
    place.sources.argument = Some(place.path("pilothouse.toml"));
    assert!(place.load().is_ok(), "what is named is not looked for elsewhere");
}
