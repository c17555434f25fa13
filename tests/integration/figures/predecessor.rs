//! The Python operator that Pilothouse replaces, on the same homeserver and API server: what there is to beat.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::bare::Bare;
use super::{Changes, turn};
use crate::support::control_plane::Namespace;
use crate::support::environment;
use crate::support::house::{House, SOON};
use crate::support::leash::{Folder, Leashed};
use crate::support::person::RoomEvent;

/// Exactly the rights that its people have given it.
const ROLE: &str = include_str!("../support/predecessor-role.yaml");

const VERSION: &str = "import platform, importlib.metadata as m; p = 'openclaw-k8s-toggle-operator'; \
                       print(p, m.version(p), 'on Python', platform.python_version())";

/// A running predecessor, in a room of its own with the house's person.
pub(super) struct Predecessor<'a> {
    /// What runs.
    pub(super) version: String,
    /// Until the replicas had changed.
    pub(super) moved: Vec<Duration>,
    /// Until the answer was there.
    pub(super) answered: Vec<Duration>,
    namespace: &'a Namespace,
    watch: Changes,
    user: String,
    room: String,
    process: Leashed,
    _folder: Folder,
}

impl<'a> Predecessor<'a> {
    const TARGET: &'static str = "clawdbot";

    /// Starts it and has it do its work once each way; nothing where `PILOTHOUSE_PREDECESSOR` names no Python that has it.
    pub(super) async fn meet(house: &House, namespace: &'a Namespace) -> Option<Self> {
        let python = environment("PILOTHOUSE_PREDECESSOR")?;
        let asked = Command::new(&python).arg("-c").arg(VERSION).output().expect("python starts");
        let version = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        namespace.deployment(Self::TARGET, "fine", 0).await;
        namespace.apply(ROLE).await;
        let folder = Folder::new("predecessor-");
        let token = folder.path().join("token");
        fs::write(&token, namespace.service_account_token("predecessor").await).expect("a token is written");
        let account = house.synapse.register("predecessor").await;
        let server = namespace.cluster.url().strip_prefix("https://").expect("TLS");
        let (host, port) = server.rsplit_once(':').expect("a port");

        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/predecessor/run.py"));
        command.arg(&token).arg(namespace.cluster.ca()).current_dir(folder.path());
        command.env("CRYPTO_STORE_PATH", folder.path().join("store"));
        command.envs([
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT", port),
            ("MATRIX_HOMESERVER", house.synapse.url()),
            ("MATRIX_USER", &account.user_id),
            ("MATRIX_PASSWORD", &account.password),
            ("ALLOWED_USERS", &house.person.user_id),
            ("DEPLOYMENT_NAME", Self::TARGET),
            ("DEPLOYMENT_NAMESPACE", &namespace.name),
            // One answer a command, as Pilothouse gives.
            ("ECHO_MODE", "false"),
        ]);
        let process = Leashed::start_clean("the predecessor", &command);
        let started = process.line(SOON, |line| line.contains("Initial sync complete")).await;
        started.unwrap_or_else(|error| panic!("{error}"));

        let person = &house.person;
        let room = person.create_room(&[&account.user_id]).await;
        person.member(&room, &account.user_id, "join", SOON).await;
        let watch = Changes::of(namespace, Self::TARGET);
        let (moved, answered) = (vec![], vec![]);
        let this =
            Self { version, moved, answered, namespace, watch, user: account.user_id, room, process, _folder: folder };
        for (word, replicas) in [("start", 1), ("stop", 0)] {
            person.send(&this.room, word).await;
            let answered = |answer: &RoomEvent| {
                answer.sender == this.user && answer.body().contains(&format!("replicas: {replicas}"))
            };
            person.expect(SOON, answered).await;
            this.rests(replicas).await;
        }
        Some(this)
    }

    /// A command, whose times are kept.
    pub(super) async fn measure(&mut self, house: &House, bare: &mut Bare, round: usize) {
        let (so, came) = self.command(house, bare, round).await;
        self.moved.push(so);
        self.answered.push(came);
    }

    /// A command: when the replicas have changed, and when the answer is there; ends when the cluster is at rest again.
    pub(super) async fn command(&mut self, house: &House, bare: &mut Bare, round: usize) -> (Duration, Duration) {
        let (words, replicas) = turn(round);
        let (kind, content) = house.person.seal(&self.room, &words).await;
        let (room, user, watch) = (&self.room, &self.user, &mut self.watch);
        let asking = async {
            let (at, _) = bare.send(room, &kind, &content).await;
            // It does not say to what it answers.
            let (came, _) = bare.wait(|event| event["sender"] == user.as_str() && event["type"] == kind).await;
            assert!(came > at, "it has said something that nobody asked for");
            (at, came)
        };
        let (so, (at, came)) = tokio::join!(watch.until(replicas), asking);
        self.rests(replicas).await;
        (so - at, came - at)
    }

    /// How many commands it answers of those that come while it stands still.
    pub(super) async fn burst(&self, house: &House, bare: &mut Bare, commands: usize) -> usize {
        self.process.freeze();
        for _ in 0..commands {
            let (kind, content) = house.person.seal(&self.room, "help").await;
            bare.send(&self.room, &kind, &content).await;
        }
        self.process.thaw();
        bare.count(|event| event["sender"] == self.user.as_str() && event["type"] == "m.room.encrypted").await
    }

    async fn rests(&self, replicas: i32) {
        super::rests(self.namespace, Self::TARGET, replicas).await;
    }

    /// Its process, for `/proc`.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }
}
