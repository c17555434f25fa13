//! Secrets come from files, too, and reach no text.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::super::{Login, Origin, Secret, explain};
use super::{COMPLETE, Place, load};

/// Every key of a secret, with what the rest of the login must be.
const SECRETS: [(&str, &str); 5] = [
    ("password", ""),
    ("access_token", "device_id = \"DEVICE\""),
    ("recovery_key", "password = \"other\""),
    ("jwt.token", ""),
    (
        "jwt.keycloak.client_secret",
        "password = \"other\"\njwt.keycloak.url = \"https://k.example\"\njwt.keycloak.realm = \"r\"\n\
         jwt.keycloak.client_id = \"c\"",
    ),
];

fn file(lines: &str) -> String {
    COMPLETE.replace("password = \"correct horse\"", lines)
}

fn write(place: &Place, name: &str, text: &str, mode: u32) -> String {
    let path = place.path(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

#[test]
fn every_secret_comes_from_a_file_named_by_the_file_or_by_a_variable() {
    for (key, rest) in SECRETS.into_iter().filter(|(key, _)| *key != "jwt.token") {
        let place = Place::new(None, &[]);
        let path = write(&place, "secret", "swordfish 17\n", 0o600);
        std::fs::write(place.path("pilothouse.toml"), file(&format!("{rest}\n{key}_file = {path:?}"))).unwrap();
        let loaded = place.load().unwrap();
        let direct = load(Some(&file(&format!("{rest}\n{key} = \"swordfish 17\""))), &[]).unwrap();
        assert_eq!(loaded.config, direct.config, "{key}: the newline at the end is cut off");
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let named_by = Box::new(Origin::File(place.path("pilothouse.toml")));
        let origin = Origin::SecretFile { path: path.clone().into(), named_by };
        assert_eq!(loaded.origins[&format!("matrix.{key}")], origin);

        let variable = format!("PILOTHOUSE__MATRIX__{}_FILE", key.replace('.', "__").to_uppercase());
        let loaded = load(Some(&file(rest)), &[(&variable, &path)]).unwrap();
        assert_eq!(loaded.config, direct.config, "{variable}");
    }
}

#[test]
fn the_predecessors_secrets_come_from_files_too() {
    let place = Place::new(None, &[]);
    let (password, client) = (write(&place, "password", "one\r\n", 0o600), write(&place, "client", " two \n\n", 0o600));
    let environment = [
        ("MATRIX_USER", "bot"),
        ("ALLOWED_USERS", "@a:b.example"),
        ("MATRIX_PASSWORD_FILE", password.as_str()),
        ("AUTH_METHOD", "jwt"),
        ("KEYCLOAK_URL", "https://k.example"),
        ("KEYCLOAK_REALM", "r"),
        ("KEYCLOAK_CLIENT_ID", "c"),
        ("KEYCLOAK_CLIENT_SECRET_FILE", client.as_str()),
    ];
    let config = load(None, &environment).unwrap().config;
    let Login::Jwt { source: super::super::JwtSource::Keycloak { password, client_secret, .. }, .. } =
        config.matrix.login
    else {
        panic!("not Keycloak");
    };
    assert_eq!(password.expose(), "one");
    assert_eq!(client_secret, Some(Secret::new(" two \n")), "one newline only");
}

#[test]
fn a_secret_file_that_is_missing_empty_or_open_is_told() {
    let place = Place::new(Some(&file("password_file = \"/nowhere/password\"")), &[]);
    assert_eq!(
        place.faults(),
        "the configuration has a fault:\n  - matrix.password_file (pilothouse.toml): /nowhere/password cannot be read: No \
         such file or directory (os error 2). Write the secret into /nowhere/password, readable for the user of pilothouse."
    );
    let empty = write(&place, "empty", "\n", 0o600);
    let place = Place::new(Some(&file(&format!("password_file = {empty:?}"))), &[]);
    assert!(place.faults().contains(&format!("{empty} is empty. Write the secret into {empty}")), "{}", place.faults());
    let open = write(&place, "open", "word", 0o644);
    let loaded = load(Some(&file(&format!("password_file = {open:?}"))), &[]).unwrap();
    assert_eq!(
        loaded.warnings,
        [format!(
            "matrix.password: {open} can be read by every user (mode 644). Take that away: chmod o-r, or in Kubernetes \
             `defaultMode: 0440` for the Secret's volume."
        )]
    );
}

#[test]
fn a_secret_given_twice_is_a_fault() {
    let text = Place::new(Some(COMPLETE), &[("MATRIX_PASSWORD_FILE", "/run/secrets/password")]).faults();
    assert_eq!(
        text,
        "the configuration has a fault:\n  - matrix.password (pilothouse.toml): is given by pilothouse.toml, and as \
         matrix.password_file by MATRIX_PASSWORD_FILE. Keep one of the two."
    );
}

/// Everything that a person or a log could see of a configuration.
fn seen(place: &Place) -> String {
    let loaded = place.load();
    let mut text = format!("{loaded:?}\n{loaded:#?}\n{:?}\n", place.sources);
    match loaded {
        Ok(loaded) => {
            text.push_str(&explain(&loaded));
            text.push_str(&serde_json::to_string(&loaded.config).unwrap());
            text.extend(loaded.warnings);
        }
        Err(findings) => text.push_str(&findings.to_string()),
    }
    text
}

#[test]
fn no_secret_reaches_a_text() {
    // As text, as a number, as something else, quoted, without quotes (not TOML), and from a file; alone and with a fault.
    let values =
        ["\"48151623\"", "48151623", "[48151623]", "48151623.5", "{ a = 48151623 }", "'\"48151623\"'", "x48151623"];
    for (key, rest) in SECRETS {
        for value in values {
            for fault in ["", "echo = 5"] {
                let place = Place::new(Some(&file(&format!("{fault}\n{rest}\n{key} = {value}"))), &[]);
                assert!(!seen(&place).contains("48151623"), "{key} = {value}: {}", seen(&place));
            }
        }
        for fault in ["", "echo = 5"] {
            let place = Place::new(Some(&file(&format!("{fault}\n{rest}"))), &[]);
            let path = write(&place, "secret", "48151623", 0o644);
            for value in ["48151623", "\"48151623\"", "[48151623]"] {
                let mut place = Place::new(Some(&file(&format!("{fault}\n{rest}"))), &[]);
                let variable = format!("PILOTHOUSE__MATRIX__{}", key.replace('.', "__").to_uppercase());
                place.sources.environment.insert(variable.clone(), value.into());
                assert!(!seen(&place).contains("48151623"), "{variable}={value}: {}", seen(&place));
                place.sources.environment.clear();
                place.sources.environment.insert(format!("{variable}_FILE"), path.clone().into());
                assert!(!seen(&place).contains("48151623"), "{variable}_FILE: {}", seen(&place));
            }
        }
    }
}

#[test]
fn no_secret_of_the_predecessors_environment_reaches_a_text() {
    for value in ["48151623", "\"48151623\"", "[48151623"] {
        for user in ["bot", ""] {
            let environment = [
                ("MATRIX_USER", user),
                ("ALLOWED_USERS", "@a:b.example"),
                ("MATRIX_PASSWORD", value),
                ("AUTH_METHOD", "jwt"),
                ("KEYCLOAK_URL", "https://k.example"),
                ("KEYCLOAK_REALM", "r"),
                ("KEYCLOAK_CLIENT_ID", "c"),
                ("KEYCLOAK_CLIENT_SECRET", value),
            ];
            for environment in [&environment[..], &environment[..3]] {
                let place = Place::new(None, environment);
                assert!(!seen(&place).contains("48151623"), "{}", seen(&place));
            }
        }
    }
}

#[test]
fn the_password_of_a_proxy_reaches_no_text() {
    for proxy in ["http://me:48151623@proxy.example:3128", "ftp://me:48151623@proxy.example", "//me:48151623@proxy"] {
        let place = Place::new(Some(COMPLETE), &[("PILOTHOUSE__MATRIX__PROXY", proxy)]);
        assert!(!seen(&place).contains("48151623"), "{}", seen(&place));
    }
    let homeserver = Place::new(Some(COMPLETE), &[("PILOTHOUSE__MATRIX__HOMESERVER", "http://me:48151623@h.example")]);
    assert!(!seen(&homeserver).contains("48151623"));
}
