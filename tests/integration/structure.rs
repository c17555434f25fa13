//! The doors between the modules, held by reading the sources: who may use whom, and which crate has which home.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → modules of this crate that it must not name. Modules that are not listed build the others (`main`, `daemon`,
/// `check`, `init`, `trust`).
const NEVER: &[(&str, &[&str])] = &[
    ("chat", &["cluster", "operator", "command", "policy", "daemon", "check", "init", "admin", "usage"]),
    (
        "cluster",
        &["chat", "policy", "operator", "reply", "store", "command", "daemon", "check", "init", "admin", "usage"],
    ),
    (
        "command",
        &[
            "chat", "cluster", "config", "operator", "policy", "reply", "store", "daemon", "check", "init", "admin",
            "usage",
        ],
    ),
    ("policy", &["cluster", "config", "operator", "reply", "store", "daemon", "check", "init", "admin", "usage"]),
    ("reply", &["config", "operator", "daemon", "check", "init", "admin"]),
    ("operator", &["config", "daemon", "check", "init", "admin"]),
    (
        "store",
        &[
            "chat", "cluster", "command", "config", "operator", "policy", "reply", "daemon", "check", "init", "admin",
            "usage",
        ],
    ),
    (
        "config",
        &["chat", "cluster", "operator", "policy", "reply", "store", "daemon", "check", "init", "admin", "usage"],
    ),
    ("retry", &["chat", "cluster", "command", "config", "operator", "policy", "reply", "store", "usage"]),
    ("shutdown", &["chat", "cluster", "command", "config", "operator", "policy", "reply", "store", "usage"]),
    ("telemetry", &["chat", "operator", "policy", "reply", "store", "daemon", "check", "init", "usage"]),
    ("usage", &["cluster", "command", "operator", "policy", "daemon", "check", "init", "admin"]),
    ("admin", &["operator", "policy", "reply", "command", "daemon", "check", "init"]),
];

/// Crate → the modules that may name it; of a module with a path, that file alone.
const HOMES: &[(&str, &[&str])] = &[
    ("kube", &["cluster", "usage/credential/secret"]),
    ("k8s_openapi", &["cluster", "usage/credential/secret"]),
    ("matrix_sdk", &["chat"]),
    ("matrix_sdk_base", &["chat"]),
    ("rusqlite", &["store"]),
    ("figment", &["config"]),
    ("signal_hook", &["shutdown"]),
    ("signal_hook_tokio", &["shutdown"]),
    ("backoff", &["retry"]),
    ("axum", &["admin", "usage/source/push"]),
    ("reqwest", &["chat", "usage"]),
    ("prometheus_client", &["telemetry"]),
    ("clap", &["main"]),
    ("rpassword", &["init"]),
    ("std::env", &["config"]),
];

/// Modules in which nothing may be done, only decided or said.
const PURE: &[&str] = &["command", "policy", "reply"];
const IMPURE: &[&str] = &["tokio::", "std::fs", "std::net", "Timestamp::now", "SystemTime", "Instant", ".await"];

/// Every source file as (module, path, code without comments and tests).
fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
                walk(&path, files);
            } else if path.file_name().is_some_and(|name| name != "tests.rs")
                && path.extension().is_some_and(|extension| extension == "rs")
            {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let inner = path.strip_prefix(&root).unwrap();
            let module = inner.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            (module, path, code.join("\n"))
        })
        .collect()
}

/// Says whether code names a path, as a whole word.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !word(before) && !word(after)
    })
}

#[test]
fn no_module_names_one_that_its_door_is_closed_to() {
    let never: BTreeMap<_, _> = NEVER.iter().copied().collect();
    let mut found = Vec::new();
    for (module, path, code) in sources() {
        for other in never.get(module.as_str()).copied().unwrap_or_default() {
            if names(&code, &format!("crate::{other}")) {
                found.push(format!("{} names crate::{other}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_crate_has_one_home() {
    let mut found = Vec::new();
    for (module, path, code) in sources() {
        for (name, homes) in HOMES {
            let file = path.with_extension("");
            let home = |home: &&str| *home == module || home.contains('/') && file.ends_with(home);
            if !homes.iter().any(home) && names(&code, &format!("{name}::")) {
                found.push(format!("{} names {name}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_decides_or_speaks_does_nothing() {
    let mut found = Vec::new();
    for (module, path, code) in sources() {
        if PURE.contains(&module.as_str()) {
            found.extend(IMPURE.iter().filter(|word| code.contains(**word)).map(|word| (path.clone(), *word)));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn an_order_is_made_in_policy_alone() {
    let mut found = Vec::new();
    for (module, path, code) in sources() {
        if module == "policy" {
            continue;
        }
        for making in [
            "Order::Scale(Scale {",
            "Order::Restart(Restart {",
            "Order::Repin(Repin {",
            "Order::Mute(Mute {",
            "Order::Tell(Tell {",
        ] {
            if code.contains(making) {
                found.push(format!("{}: {making}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_whole_configuration_stays_with_those_who_build() {
    let mut found = Vec::new();
    for (module, path, code) in sources() {
        let builds = ["config", "daemon", "check", "init", "trust", "subscription", "main"].contains(&module.as_str());
        if !builds && (names(&code, "config::Config") || names(&code, "Loaded")) {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_top_level_is_what_was_agreed() {
    let allowed = [
        "Cargo.toml",
        "src",
        "tests",
        "k8s",
        "Dockerfile",
        "Makefile",
        "CLAUDE.md",
        "README.md",
        "Cargo.lock",
        "LICENSE",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "CHANGELOG.md",
        "examples",
        "target",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let surplus: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str()))
        .collect();
    assert!(surplus.is_empty(), "{surplus:?}");
}
