//! The annotated example is whole and true.

use figment::value::{Dict, Value};

use super::super::finding::Origin;
use super::super::{ALIASES, VERBS, explain, keys};
use super::{Place, load};
use crate::command::Verb;

const EXAMPLE: &str = include_str!("../../../examples/pilothouse.example.toml");

#[test]
fn the_example_can_be_read() {
    let place = Place::new(None, &[]);
    let secret = place.path("password");
    std::fs::write(&secret, "word").unwrap();
    let text = EXAMPLE.replace("/run/secrets/pilothouse/password", secret.to_str().unwrap());
    let loaded = load(Some(&text), &[]).unwrap();
    assert_eq!(loaded.config.policy.rules.len(), 2);
    assert_eq!(loaded.config.targets[0].object, "web-frontend");
    assert!(
        explain(&loaded).contains("[[policy.rules]]\nusers = [\"@colleague:example.org\"]"),
        "{}",
        explain(&loaded)
    );
}

/// The example with everything that is commented out brought back: `#key = …` and `#[section]`.
fn whole() -> Dict {
    let uncommented = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[' || c == '"') => rest,
        _ => line,
    });
    let table: toml::Table = toml::from_str(&uncommented.collect::<Vec<_>>().join("\n")).unwrap();
    Value::serialize(table).unwrap().into_dict().unwrap()
}

fn has(tree: &Value, key: &str) -> bool {
    match key.split_once("[].") {
        Some((list, name)) => {
            let rows = tree.find_ref(list).and_then(Value::as_array).unwrap_or_default();
            rows.iter().any(|row| row.find_ref(name).is_some())
        }
        None => tree.find_ref(key).is_some(),
    }
}

#[test]
fn every_key_is_in_the_example_and_no_other() {
    let tree = whole();
    assert_eq!(keys::unknown(&tree, &Origin::Default), []);
    let tree = Value::from(tree);
    let missing: Vec<_> = keys::KEYS.iter().map(|(key, _)| *key).filter(|key| !has(&tree, key)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// Configuration knows no commands: their names are a list of its own, held against the real ones here.
#[test]
fn rules_name_the_commands_that_exist() {
    let mut real = Verb::ALL.map(Verb::word);
    let mut known = VERBS;
    real.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, real);
    for (alias, verb) in ALIASES {
        assert_eq!(Verb::parse(alias).map(Verb::word), Some(verb));
    }
}

/// The keys are a list beside the structs: here the two are held together.
#[test]
fn every_field_of_the_structs_is_a_key() {
    let config = load(
        Some(EXAMPLE.replace("password_file", "#").as_str()),
        &[
            ("PILOTHOUSE__MATRIX__PASSWORD", "word"),
            ("PILOTHOUSE__MATRIX__RECOVERY_KEY", "key"),
            ("PILOTHOUSE__MATRIX__HOME_ROOM", "!a:b"),
            ("PILOTHOUSE__MATRIX__CA_FILE", "/dev/null"),
            ("PILOTHOUSE__MATRIX__PROXY", "http://a"),
            ("PILOTHOUSE__KUBERNETES__CONTEXT", "home"),
            ("PILOTHOUSE__USAGE__CA_FILE", "/dev/null"),
        ],
    )
    .unwrap()
    .config;
    let entries = super::super::explain::entries(&config);
    let mut fields: Vec<String> = entries
        .iter()
        .map(|(key, _)| (0..4).fold(key.clone(), |key, n| key.replace(&format!("[{n}]"), "[]")))
        .collect();
    fields.sort();
    fields.dedup();
    // What the structs hold in another form: the ways to log in, and lists of tables, which are there as their rows.
    let elsewhere = |key: &str| {
        let login = ["matrix.jwt.", "matrix.access_token", "matrix.device_id"].iter().any(|part| key.starts_with(part));
        let file = key.starts_with("matrix.") && key.ends_with("_file") && key != "matrix.ca_file";
        login || file || ["targets", "policy.rules", "usage.accounts", "usage.rules"].contains(&key)
    };
    let mut known: Vec<&str> = keys::KEYS.iter().map(|(key, _)| *key).filter(|key| !elsewhere(key)).collect();
    known.sort_unstable();
    assert_eq!(fields, known);
}
