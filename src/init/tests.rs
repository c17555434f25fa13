use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::credential::{FILE, keychain, own};
use super::*;
use crate::config::{Kind, Loaded, Login, UsageSource};

/// What a conversation came to.
struct Ended {
    code: Option<u8>,
    said: String,
    printed: String,
}

fn converse(flags: &Flags, variables: &[(&str, &str)], input: &str, terminal: bool) -> Ended {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    let sources = Sources { argument: None, environment, usual: vec![] };
    let (mut said, mut printed) = (Vec::new(), Vec::new());
    let mut dialogue = Dialogue::new(Cursor::new(input.to_owned()), &mut said, terminal);
    let now = "2026-11-01T12:00:00Z".parse().unwrap();
    let ended = session(&mut dialogue, &mut printed, flags, &Surroundings::of(&sources), now).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: ended.err(), said: text(said), printed: text(printed) }
}

fn load(folder: &Path) -> Loaded {
    let argument = Some(folder.join("pilothouse.toml"));
    Config::load(&Sources { argument, environment: BTreeMap::new(), usual: vec![] }).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Everything that is needed, so that nothing is asked.
fn flags(folder: &Path) -> Flags {
    std::fs::write(folder.join("given"), "correct horse\n").unwrap();
    Flags {
        file: Some(folder.join("pilothouse.toml")),
        place: Some(Place::Here),
        homeserver: Some("https://matrix.example.org".to_owned()),
        user: Some("pilothouse".to_owned()),
        password_file: Some(folder.join("given")),
        allow: vec!["@you:example.org".to_owned()],
        targets: vec!["apps/web".to_owned()],
        usage: vec!["none".to_owned()],
        ..Flags::default()
    }
}

fn claude(folder: &Path, refresh: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let login = json!({
        "claudeAiOauth": {
            "accessToken": "sk-ant-oat01-a", "refreshToken": refresh, "expiresAt": 1_793_600_000_000_i64,
            "refreshTokenExpiresAt": 1_795_000_000_000_i64, "scopes": ["user:inference", "user:profile"], "new": 1,
        },
        "mcpOAuth": {"elsewhere": "another secret"},
    });
    std::fs::write(folder.join(FILE), login.to_string()).unwrap();
}

#[test]
fn with_every_flag_nothing_is_asked_and_the_file_loads_as_it_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = flags(folder.path());
    flags.targets = vec!["apps/web".to_owned(), "shop=apps/db-main:sts".to_owned()];
    let ended = converse(&flags, &[], "", false);
    assert_eq!(ended.code, None, "{}", ended.said);
    assert!(!ended.said.contains(": \n") && ended.printed.is_empty(), "{}", ended.said);
    let Loaded { config, warnings, .. } = load(folder.path());
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.matrix.homeserver.as_str(), "https://matrix.example.org/");
    assert_eq!(config.matrix.login, Login::Password { password: Secret::new("correct horse") });
    assert_eq!(config.matrix.store, folder.path().join("pilothouse-store"));
    assert_eq!(config.policy.users, ["@you:example.org"]);
    let targets: Vec<_> = config.targets.iter().map(|t| (t.name.as_str(), t.kind, t.object.as_str())).collect();
    assert_eq!(targets, [("web", Kind::Deployment, "web"), ("shop", Kind::StatefulSet, "db-main")]);
    assert_eq!(mode(&folder.path().join("pilothouse.toml")), 0o644);
    assert_eq!(mode(&folder.path().join("pilothouse.password")), 0o600);
    assert!(!std::fs::read_to_string(folder.path().join("pilothouse.toml")).unwrap().contains("horse"));
}

#[test]
fn a_wrong_answer_is_told_and_asked_again_at_every_question() {
    let folder = tempfile::tempdir().unwrap();
    let input = "\
        moon\nhere\n\
        matrix\nftp://matrix.example.org\n\nhttps://matrix.example.org\n\
        two words\npilothouse\n\
        \n correct horse \n\
        alice\n\n@alice:example.org @bob:example.org\n\
        web\napps/web:Job\nApps/web\napps/start\na/web b/web\napps/web\n\
        cloud\npush\nwork:command\n'a b'\nclaude-usage --json\nbad name:push\n\
        home:directory=claude\n/nowhere/claude\nnone\n";
    let flags = Flags { file: Some(folder.path().join("pilothouse.toml")), ..Flags::default() };
    let ended = converse(&flags, &[], input, false);
    assert_eq!(ended.code, None, "{}", ended.said);
    for fault in [
        "\"moon\" is no place",
        "the homeserver: is not a URL. Write for instance https://matrix.example.org",
        "ftp is no way to reach a server",
        "\"two words\" is neither a localpart nor a full user id",
        "the password is empty",
        "\"alice\" is not a full user id",
        "nobody is allowed to give commands",
        "\"web\" is no target",
        "\"job\" is no kind that can be scaled",
        "\"Apps\" is no name in Kubernetes",
        "\"start\" is a command",
        "\"web\" is the name of targets[0], too",
        "\"cloud\" is no usage source",
        "\"claude\" is no absolute path",
        "quotes and backslashes are not understood here",
        "\"bad name\" is no name",
    ] {
        assert!(ended.said.contains(fault), "{fault} in {}", ended.said);
    }
    assert_eq!(ended.said.matches("  ✗ ").count(), 17, "{}", ended.said);
    let config = load(folder.path()).config;
    assert_eq!(config.matrix.login, Login::Password { password: Secret::new(" correct horse ") });
    assert_eq!(config.policy.users, ["@alice:example.org", "@bob:example.org"]);
    let accounts: Vec<_> = config.usage.accounts.iter().map(|a| (a.name.as_str(), a.source)).collect();
    assert_eq!(
        accounts,
        [("default", UsageSource::Push), ("work", UsageSource::Command), ("home", UsageSource::AnthropicOauth)]
    );
    assert_eq!(config.usage.accounts[2].directory, Some("/nowhere/claude".into()));
    assert_eq!(config.usage.accounts[1].command, ["claude-usage", "--json"]);
    let token = folder.path().join("pilothouse.push-token-default");
    assert_eq!((mode(&token), config.usage.accounts[0].push_token_file.clone()), (0o600, Some(token.clone())));
    assert_eq!(std::fs::read_to_string(token).unwrap().trim().len(), 43);
}

#[test]
fn an_end_of_the_answers_names_what_is_missing_and_writes_nothing() {
    let needed = ["--homeserver", "--user", "--password-file", "--allow", "--target"];
    let answers = ["", "here\n", "https://a.example\n", "pilothouse\n", "secret\n", "@you:example.org\n"];
    for count in 1..=answers.len() {
        let folder = tempfile::tempdir().unwrap();
        let flags = Flags { file: Some(folder.path().join("pilothouse.toml")), ..Flags::default() };
        let ended = converse(&flags, &[], &answers[..count].concat(), false);
        assert_eq!(ended.code, Some(2), "{}", ended.said);
        let told = ended.said.split("Missing:").nth(1).unwrap();
        let known = count.saturating_sub(2);
        for (index, flag) in needed.iter().enumerate() {
            assert_eq!(told.contains(flag), index >= known, "{count}: {flag} in {told}");
        }
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
    // A person who ends the input has not chosen a default.
    let folder = tempfile::tempdir().unwrap();
    let ended = converse(&Flags { place: None, ..flags(folder.path()) }, &[], "", true);
    assert_eq!((ended.code, names(folder.path())), (Some(2), vec!["given".to_owned()]));
}

#[test]
fn what_exists_is_replaced_only_with_leave() {
    let folder = tempfile::tempdir().unwrap();
    let (toml, password) = (folder.path().join("pilothouse.toml"), folder.path().join("pilothouse.password"));
    let now = || (std::fs::read_to_string(&toml).ok(), std::fs::read_to_string(&password).ok());
    std::fs::write(&password, "old").unwrap();
    for (answers, terminal) in
        [("", false), ("y\n", false), ("", true), ("n\n", true), ("\n", true), ("perhaps\nn\n", true)]
    {
        let ended = converse(&flags(folder.path()), &[], answers, terminal);
        assert_eq!((ended.code, now()), (Some(2), (None, Some("old".to_owned()))), "{}", ended.said);
    }
    std::fs::write(&toml, "old").unwrap();
    for (answers, terminal) in [("y\ny\n", false), ("n\n", true), ("y\nn\n", true)] {
        let ended = converse(&flags(folder.path()), &[], answers, terminal);
        assert_eq!((ended.code, now().0), (Some(2), Some("old".to_owned())), "{}", ended.said);
        assert!(ended.said.contains("stays as it is") && ended.said.contains("--overwrite"), "{}", ended.said);
    }
    assert_eq!(converse(&flags(folder.path()), &[], "y\ny\n", true).code, None);
    assert_eq!(now().1.unwrap(), "correct horse\n");
    std::fs::write(&password, "old").unwrap();
    assert_eq!(converse(&Flags { overwrite: true, ..flags(folder.path()) }, &[], "", false).code, None);
    assert_eq!((now().1.unwrap().as_str(), mode(&password)), ("correct horse\n", 0o600));
    // A secret that is the same already is in nobody's way.
    std::fs::remove_file(&toml).unwrap();
    assert_eq!(converse(&flags(folder.path()), &[], "", false).code, None);
    assert_eq!(names(folder.path()), ["given", "pilothouse.password", "pilothouse.toml"]);
}

#[test]
fn the_predecessors_environment_alone_becomes_a_file_with_its_habits() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [
        ("MATRIX_HOMESERVER", "https://matrix.example.org"),
        ("MATRIX_USER", "@bot:example.org"),
        ("MATRIX_PASSWORD", "correct horse"),
        ("ALLOWED_USERS", "@you:example.org, nobody"),
        ("DEPLOYMENT_NAME", "llama"),
        ("DEPLOYMENT_NAMESPACE", "gpu"),
        ("CRYPTO_STORE_PATH", "/data/old"),
        ("ECHO_MODE", "yes"),
    ];
    let flags = Flags { file: Some(folder.path().join("pilothouse.toml")), ..Flags::default() };
    let ended = converse(&flags, &variables, "", false);
    assert_eq!(ended.code, None, "{}", ended.said);
    assert!(ended.said.contains("\"nobody\" is left out") && !ended.said.contains("horse"), "{}", ended.said);
    assert!(ended.said.contains("unset ALLOWED_USERS CRYPTO_STORE_PATH DEPLOYMENT_NAME"), "{}", ended.said);
    let written = load(folder.path()).config;
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    let direct = Config::load(&Sources { argument: None, environment, usual: vec![] }).unwrap().config;
    assert_eq!(written, direct);
}

#[test]
fn every_key_of_the_environment_is_taken_over_and_a_wrong_one_told() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "EsTx y\n").unwrap();
    let variables = [
        ("AUTH_METHOD", "jwt"),
        ("KEYCLOAK_URL", "https://keycloak.example.org"),
        ("KEYCLOAK_REALM", "matrix"),
        ("KEYCLOAK_CLIENT_ID", "pilothouse"),
        ("KEYCLOAK_CLIENT_SECRET", "client secret"),
        ("PILOTHOUSE__MATRIX__RECOVERY_KEY_FILE", key.to_str().unwrap()),
        ("PILOTHOUSE__TRUST__MODE", "devices"),
        ("PILOTHOUSE__POLICY__RULES", r#"[{ verbs = ["status"], targets = ["web"] }]"#),
        ("PILOTHOUSE__USAGE__PROBABILITY", "0.7"),
        ("PILOTHOUSE__USAGE__THRESHOLDS__WEEKLY", "60,80.5"),
        ("PILOTHOUSE__USAGE__MENTION", r#"{ critical = "@you:example.org" }"#),
        ("PILOTHOUSE__MATRIX__PASWORD", "typo"),
        ("LOCAL_MODE", "true"),
        ("CLAUDE_CONFIG_DIR", "/home/you/.claude-work"),
    ];
    let flags = || Flags { usage: vec![], ..flags(folder.path()) };
    let ended = converse(&flags(), &variables, "", false);
    assert_eq!(ended.code, None, "{}", ended.said);
    assert!(ended.said.contains("matrix.pasword") && !ended.said.contains("client secret"), "{}", ended.said);
    let config = load(folder.path()).config;
    let Login::Jwt { source, .. } = config.matrix.login else { panic!("a JWT") };
    assert!(format!("{source:?}").contains("keycloak.example.org"));
    assert_eq!(config.matrix.recovery_key, Some(Secret::new("EsTx y")));
    assert_eq!((config.usage.probability, config.usage.thresholds.weekly), (0.7, vec![60.0, 80.5]));
    assert_eq!(config.usage.accounts[0].directory.as_deref(), Some(Path::new("/home/you/.claude-work")));
    assert_eq!((config.policy.rules.len(), config.usage.mention.len()), (1, 1));
    // What nobody is asked for cannot be asked again.
    let wrong = [("PILOTHOUSE__TRUST__MODE", "none")];
    let ended = converse(&Flags { overwrite: true, ..flags() }, &wrong, "", false);
    assert_eq!(ended.code, Some(2), "{}", ended.said);
    assert!(ended.said.contains("✗ trust.mode"), "{}", ended.said);
    assert_eq!(load(folder.path()).config.trust.mode, crate::config::TrustMode::Devices);
}

#[test]
fn in_the_cluster_the_secrets_are_in_the_manifest_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    claude(&folder.path().join("work"), "sk-ant-ort01-r");
    let flags = |folder: &Path| Flags {
        place: Some(Place::Cluster),
        homeserver: None,
        usage: vec!["work:secret=bots/claude-work".to_owned(), "work:push".to_owned()],
        claude_folder: Some(folder.join("work")),
        login: Some(LoginChoice::Take),
        ..flags(folder)
    };
    let ended = converse(&flags(folder.path()), &[], "\n", false);
    assert_eq!(ended.code, None, "{}", ended.said);
    let secrets: Vec<serde_json::Value> = serde_saphyr::from_multiple(&ended.printed).unwrap();
    let at = |index: usize, key: &str| {
        let value = secrets[index]["data"][key].as_str().unwrap();
        String::from_utf8(STANDARD.decode(value).unwrap()).unwrap()
    };
    assert_eq!(
        (&secrets[0]["metadata"]["name"], &secrets[0]["metadata"]["namespace"]),
        (&json!("pilothouse"), &json!("pilothouse"))
    );
    assert_eq!((at(0, "password"), at(0, "push-token-work").len()), ("correct horse".to_owned(), 43));
    assert_eq!(
        (&secrets[1]["metadata"]["name"], &secrets[1]["metadata"]["namespace"]),
        (&json!("claude-work"), &json!("bots"))
    );
    let login: serde_json::Value = serde_json::from_str(&at(1, "credentials.json")).unwrap();
    assert_eq!(
        (&login["claudeAiOauth"]["refreshToken"], &login["claudeAiOauth"]["new"]),
        (&json!("sk-ant-ort01-r"), &json!(1))
    );
    // What the CLI keeps for other servers is none of ours.
    assert!(login.get("mcpOAuth").is_none());
    assert!(ended.said.contains("logs the other out") && ended.said.contains("in 16 days"), "{}", ended.said);
    let toml = std::fs::read_to_string(folder.path().join("pilothouse.toml")).unwrap();
    for line in [
        "password_file = \"/run/secrets/pilothouse/password\"",
        "push_token_file = \"/run/secrets/pilothouse/push-token-work\"",
        "homeserver = \"http://synapse.matrix.svc.cluster.local:8008\"",
        "source = \"in_cluster\"",
    ] {
        assert!(toml.contains(line), "{line} in {toml}");
    }
    assert_eq!(names(folder.path()), ["given", "pilothouse.toml", "work"]);
    for line in [
        "Role pilothouse-usage: get, patch secrets/claude-work in bots",
        "- ../../components/usage\n- ../../components/push\n",
        "value: [\"claude-work\"]}",
        "kubectl apply -k k8s/overlays/own",
        "https://<your host>/usage/v1/work",
        "--output 'jsonpath={.data.push-token-work}' | base64 --decode",
    ] {
        assert!(ended.said.contains(line), "{line} in {}", ended.said);
    }

    // Written instead of printed.
    let manifest = folder.path().join("secret.yaml");
    let more = Flags { overwrite: true, secret_manifest: Some(manifest.clone()), ..flags(folder.path()) };
    let ended = converse(&more, &[], "", false);
    assert_eq!((ended.code, ended.printed.as_str(), mode(&manifest)), (None, "", 0o600));
}

#[test]
fn what_is_applied_fits_what_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    for (usage, wanted, unwanted) in [
        (vec!["none"], vec!["kubectl apply -k k8s/base"], "components"),
        (vec!["command=claude-usage"], vec!["kubectl apply -k k8s/base"], "components"),
        (vec!["push"], vec!["kubectl apply -k k8s/overlays/push"], "components"),
        (
            vec!["secret"],
            vec!["kubectl apply -k k8s/overlays/usage", "get, patch secrets/pilothouse-claude in pilothouse"],
            "components",
        ),
        (
            vec!["secret", "work:secret"],
            vec!["value: [\"pilothouse-claude\", \"pilothouse-claude-work\"]}", "kubectl apply -k k8s/overlays/own"],
            "components/push",
        ),
        (
            vec!["secret", "work:secret=bots/claude"],
            vec!["value: [\"pilothouse-claude\"]}", "a copy for the namespace bots, with resourceNames: [claude]"],
            "components/push",
        ),
        (vec!["secret", "push"], vec!["components/push\n\nThen: kubectl apply -k k8s/overlays/own"], "patches"),
    ] {
        let flags = Flags {
            place: Some(Place::Cluster),
            usage: usage.iter().map(|&word| word.to_owned()).collect(),
            login: Some(LoginChoice::Own),
            overwrite: true,
            ..flags(folder.path())
        };
        let ended = converse(&flags, &[], "", false);
        assert_eq!(ended.code, None, "{}", ended.said);
        for words in wanted {
            assert!(ended.said.contains(words), "{usage:?}: {words} in {}", ended.said);
        }
        assert!(!ended.said.contains(unwanted), "{usage:?}: {unwanted} in {}", ended.said);
    }
}

#[test]
fn a_login_is_copied_with_leave_alone_and_one_that_is_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (installation, apart) = (folder.path().join("work"), folder.path().join("apart"));
    claude(&installation, "sk-ant-ort01-r");
    let flags = |choice, directory: &Path| Flags {
        usage: vec![format!("work:directory={}", directory.display())],
        claude_folder: Some(installation.clone()),
        login: choice,
        overwrite: true,
        ..flags(folder.path())
    };
    // Nobody agrees: told how to make an own one.
    for (choice, answers) in [(None, ""), (None, "n\n"), (Some(LoginChoice::Own), "y\n")] {
        let ended = converse(&flags(choice, &apart), &[], answers, false);
        assert_eq!((ended.code, apart.exists()), (None, false), "{}", ended.said);
        assert!(ended.said.contains(&own(&apart)) && ended.said.contains("terms may not permit"), "{}", ended.said);
    }
    let ended = converse(&flags(None, &apart), &[], "maybe\ny\n", false);
    assert_eq!((ended.code, mode(&apart), mode(&apart.join(FILE))), (None, 0o700, 0o600), "{}", ended.said);
    assert!(std::fs::read_to_string(apart.join(FILE)).unwrap().contains("sk-ant-ort01-r"));
    assert!(!ended.said.contains("sk-ant"), "{}", ended.said);
    // A login of its own is not touched, though another could be taken.
    claude(&apart, "sk-ant-ort01-own");
    let ended = converse(&flags(Some(LoginChoice::Take), &apart), &[], "", false);
    assert_eq!(ended.code, None, "{}", ended.said);
    assert!(std::fs::read_to_string(apart.join(FILE)).unwrap().contains("sk-ant-ort01-own"));
    assert!(!ended.said.contains("take turns"), "{}", ended.said);
    // The installation's own folder needs no copy, and a word.
    let ended = converse(&flags(None, &installation), &[], "", false);
    assert!(ended.code.is_none() && ended.said.contains("take turns"), "{}", ended.said);
}

#[test]
fn a_login_that_is_of_no_use_is_told_without_its_content() {
    let now: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
    let past = 1_700_000_000_000_i64;
    for (text, words) in [
        ("sk-ant-oat01-x".to_owned(), "not the JSON"),
        (json!({"mcpOAuth": {"x": "sk-ant"}}).to_string(), "no subscription is logged in"),
        (json!({"claudeAiOauth": {"accessToken": "", "refreshToken": ""}}).to_string(), "blank"),
        (json!({"claudeAiOauth": {"accessToken": "sk-ant", "refreshTokenExpiresAt": past}}).to_string(), "has ended"),
    ] {
        let why = credential::read(&text, now).err().unwrap();
        assert!(why.contains(words) && !why.contains("sk-ant"), "{why}");
    }
    let token = json!({"claudeAiOauth": {"accessToken": "a", "scopes": ["user:inference"]}}).to_string();
    let warnings = credential::read(&token, now).ok().unwrap().warnings;
    assert!(warnings.len() == 2 && warnings[0].contains("no refresh token") && warnings[1].contains("user:profile"));
}

#[test]
fn the_keychain_knows_an_installation_by_its_folder() {
    let usual = ClaudeFolder { path: "/Users/you/.claude".into(), named: false };
    let named = ClaudeFolder { path: "/Users/you/work claude".into(), named: true };
    assert!(keychain(&usual, &usual.path).contains("-s 'Claude Code-credentials' -w"));
    let text = keychain(&named, &named.path);
    assert!(
        text.contains("-s 'Claude Code-credentials-") && text.contains("> '/Users/you/work claude'/.credentials.json"),
        "{text}"
    );
}

#[test]
fn a_token_that_workstations_use_already_stays() {
    let folder = tempfile::tempdir().unwrap();
    let flags = || Flags { usage: vec!["push".to_owned()], overwrite: true, ..flags(folder.path()) };
    let token = || std::fs::read_to_string(folder.path().join("pilothouse.push-token-default")).unwrap();
    assert_eq!(converse(&flags(), &[], "", false).code, None);
    let first = token();
    assert_eq!(converse(&flags(), &[], "", false).code, None);
    assert_eq!(token(), first);
}
