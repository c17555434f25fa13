//! `make demo TOUR=1`: it ends by itself, and well, and shows what it promises.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::leash::Leashed;
use crate::support::synapse::python;

/// Half a minute on an idle machine; among all other tests it takes its time.
const TOUR: Duration = Duration::from_mins(5);

/// The demo, built; `make test` has built it before, so that it is not compiled beside tests that have deadlines.
fn demo() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--example", "demo", "--message-format=json"]);
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().expect("cargo starts");
    assert!(built.status.success(), "{}", built.status);
    let messages =
        built.stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == "demo");
    programs.find_map(|message| Some(message["executable"].as_str()?.into())).expect("cargo names what it has built")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_shows_a_start_a_failing_image_a_stop_and_a_refusal_and_ends() {
    let mut command = Command::new(demo());
    let venv = python().ancestors().nth(2).expect("a venv").to_owned();
    command.env("TOUR", "1").env("HOME", "/nowhere").env("PILOTHOUSE_SYNAPSE_VENV", venv);
    let mut tour = Leashed::start_clean("the tour", &command);
    let status = tour.end(TOUR).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(status.success(), "{status}{}", tour.tail(100));
    let said = tour.lines().join("\n");
    let mut rest = said.as_str();
    for part in [
        "you │ start website 3",
        "is ready: 3/3",
        "you │ start llama",
        "image cannot be pulled",
        "you │ stop llama",
        "is stopped: no pod left",
        "you │ stop database",
        "do not let you stop database",
        "you │ history",
        "→ refused: not allowed",
        "That was the tour",
    ] {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part:?} does not come where it should:\n{said}")).1;
    }
}
