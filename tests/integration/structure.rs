//! The doors between the modules, held by reading the sources: who may use whom, and which crate has which home.

use std::collections::{BTreeMap, BTreeSet};
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
    (
        "message",
        &[
            "chat", "cluster", "command", "config", "operator", "policy", "reply", "store", "daemon", "check", "init",
            "admin", "usage",
        ],
    ),
    (
        "policy",
        &["chat", "cluster", "config", "operator", "reply", "store", "daemon", "check", "init", "admin", "usage"],
    ),
    ("reply", &["chat", "config", "operator", "daemon", "check", "init", "admin"]),
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
    ("file", &["chat", "cluster", "command", "config", "operator", "policy", "reply", "store", "usage"]),
    ("tls", &["chat", "cluster", "command", "config", "operator", "policy", "reply", "store", "usage"]),
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
    ("reqwest", &["chat", "tls", "usage"]),
    ("prometheus_client", &["telemetry"]),
    ("clap", &["main"]),
    ("rpassword", &["init"]),
    ("tiny_skia", &["usage"]),
    ("csv", &["usage"]),
    ("std::env", &["config"]),
];

/// Modules in which nothing may be done, only decided or said.
const PURE: &[&str] = &["command", "message", "policy", "reply"];
const IMPURE: &[&str] = &["tokio::", "std::fs", "std::net", "Timestamp::now", "SystemTime", "Instant", ".await"];

/// Words that say nothing: they stand in no name.
const EMPTY_WORDS: &[&str] = &["manager", "handler", "service", "helper", "helpers", "util", "utils"];

/// Every source file as (module, path, code without comments and tests, every path in full).
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
            let inside: Vec<String> =
                inner.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
            (module, path, in_full(&code.join("\n"), &inside))
        })
        .collect()
}

/// The code with `super::` written from the crate's root, and after it each path of its `use` declarations in full.
fn in_full(code: &str, module: &[String]) -> String {
    let mut full = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("super::") {
        let (before, chain) = rest.split_at(at);
        let below = chain.trim_start_matches("super::");
        let levels = (chain.len() - below.len()) / "super::".len();
        full.push_str(before);
        full.push_str("crate::");
        for part in &module[..module.len().saturating_sub(levels)] {
            full.push_str(part);
            full.push_str("::");
        }
        rest = below;
    }
    full.push_str(rest);
    let mut paths = Vec::new();
    for (at, _) in
        full.match_indices("use ").filter(|(at, _)| !full[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    {
        let tree = &full[at + "use ".len()..];
        spread("", tree.split(';').next().unwrap_or_default(), &mut paths);
    }
    format!("{full}\n{}", paths.join("\n"))
}

/// Spreads a tree of `use` into its paths.
fn spread(base: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((stem, group)) = tree.split_once('{') else { return paths.push(format!("{base}{tree}::")) };
    let base = format!("{base}{stem}");
    let (mut depth, mut from) = (0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                spread(&base, &group[from..at], paths);
                from = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
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
fn groups_and_parents_hide_nothing() {
    let module = ["chat".to_owned(), "sync".to_owned()];
    let code = "use crate::{policy, store::{self, inbox::Entry}};\nuse std::{env, fs};\nfn f() { super::super::operator::run(super::gap::fill()) }";
    let full = in_full(code, &module);
    for path in ["crate::policy", "crate::store::inbox", "std::env", "crate::operator", "crate::chat::gap"] {
        assert!(names(&full, path), "{path} is not in:\n{full}");
    }
    assert!(!names(&full, "crate::inbox"));
}

#[test]
fn names_say_what_a_thing_is() {
    let mut found = Vec::new();
    for (_, path, code) in sources() {
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect::<Vec<_>>();
        for pair in words.windows(2) {
            if !["struct", "enum", "trait", "type", "mod", "fn", "const", "static"].contains(&pair[0]) {
                continue;
            }
            let apart: String = pair[1]
                .chars()
                .flat_map(|c| if c.is_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] })
                .collect();
            let empty = apart.split('_').any(|word| EMPTY_WORDS.contains(&word));
            if empty || pair[0] == "fn" && pair[1].starts_with("get_") {
                found.push(format!("{}: {} {}", path.display(), pair[0], pair[1]));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The words in quotation marks between two places of a file.
fn quoted(file: &str, from: &str, to: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap();
    let text = text.split(from).nth(1).unwrap_or_default().split(to).next().unwrap_or_default();
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words that the README's table gives for a label of a metric.
fn listed(metric: &str, behind: &str) -> BTreeSet<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let row = readme.lines().find(|line| line.starts_with(&format!("| `{metric}"))).unwrap_or_default();
    let words = row.split(behind).nth(1).unwrap_or_default();
    words.split('`').skip(1).step_by(2).filter(|word| *word != "any").map(str::to_owned).collect()
}

#[test]
fn the_words_of_the_metrics_are_those_of_the_readme() {
    let outcomes: BTreeSet<String> = sources()
        .iter()
        .flat_map(|(_, _, code)| code.split("metrics.command(").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|call| call.split(';').next()?.rsplit('"').nth(1).map(str::to_owned))
        .collect();
    assert_eq!(listed("pilothouse_commands_total", "outcomes"), outcomes);
    let kinds = quoted("telemetry.rs", "let kind = match error {", "};");
    assert_eq!(listed("pilothouse_cluster_errors_total", "errors of"), kinds);
    let mut polls = quoted("usage/source.rs", "pub fn word(&self)", "\n    }\n");
    polls.insert("good".to_owned());
    assert_eq!(listed("pilothouse_usage_polls_total", "outcomes"), polls);
}

#[test]
fn a_pin_is_moved_by_an_order_or_by_the_configuration() {
    let calling = |call: &str| -> Vec<String> {
        let calls = |(_, _, code): &(String, PathBuf, String)| code.contains(call);
        let mut files: Vec<String> = sources()
            .into_iter()
            .filter(calls)
            .map(|(_, path, _)| path.display().to_string().split("/src/").last().unwrap_or_default().to_owned())
            .collect();
        files.sort();
        files
    };
    // In `pins.rs` itself the configuration's pin is written like another.
    assert_eq!(calling("store.repin("), ["operator/pinning.rs"]);
    assert_eq!(calling("self.repin("), ["operator/gate.rs"], "the gate carries an order out");
    assert_eq!(calling(".pin_configured("), ["chat/trust/contact.rs"]);
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
