//! Everything at once: a homeserver, a person, an API server, and the daemon between them.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::control_plane::Namespace;
use super::person::{Person, RoomEvent, Sent};
use super::process::{Ended, Pilothouse, Running};
use super::synapse::{Account, Synapse, synapse};

/// Longest wait for anything that takes a moment: a machine that is three times slower than usual is no fault.
pub(crate) const SOON: Duration = Duration::from_mins(2);

/// A running daemon with a person in its room.
pub(crate) struct House {
    pub(crate) synapse: Arc<Synapse>,
    pub(crate) bot: Account,
    pub(crate) account: Account,
    pub(crate) person: Person,
    pub(crate) pilothouse: Pilothouse,
    pub(crate) running: Running,
    pub(crate) room: String,
}

/// What stands in the configuration of a house.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Names of Deployments in the test's namespace.
    pub(crate) targets: Vec<&'static str>,
    /// More TOML, at the end.
    pub(crate) more: String,
    /// Base URL of what stands before the homeserver.
    pub(crate) homeserver: Option<String>,
    /// More keys of `[matrix]`.
    pub(crate) matrix: String,
    /// More allowed people.
    pub(crate) users: Vec<String>,
    /// Kubeconfig other than the administrator's.
    pub(crate) kubeconfig: Option<std::path::PathBuf>,
    /// Options of a volume of its own for the store.
    pub(crate) volume: Option<&'static str>,
}

impl Plan {
    /// These Deployments, and nothing else out of the ordinary.
    pub(crate) fn of(targets: &[&'static str]) -> Self {
        Self { targets: targets.to_vec(), ..Self::default() }
    }

    /// Writes the configuration.
    pub(crate) fn toml(&self, synapse: &Synapse, bot: &Account, person: &str, namespace: &str) -> String {
        let mut users = vec![format!("{person:?}")];
        users.extend(self.users.iter().map(|user| format!("{user:?}")));
        let mut toml = format!(
            "[matrix]\nhomeserver = {:?}\nuser = {:?}\npassword = {:?}\n{}\n[policy]\nusers = [{}]\n",
            self.homeserver.as_deref().unwrap_or(synapse.url()),
            bot.user_id,
            bot.password,
            self.matrix,
            users.join(", "),
        );
        for target in &self.targets {
            let _ = writeln!(toml, "[[targets]]\nname = {target:?}\nnamespace = {namespace:?}");
        }
        toml + self.more.as_str()
    }
}

impl House {
    /// Builds it: the bot has joined the person's encrypted room and is ready.
    pub(crate) async fn build(namespace: &Namespace, plan: Plan) -> Self {
        Self::build_on(synapse().await, namespace, plan).await
    }

    /// Builds it on a homeserver of its own.
    pub(crate) async fn build_on(synapse: Arc<Synapse>, namespace: &Namespace, plan: Plan) -> Self {
        let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
        let person = Person::with_identity(&synapse, &account).await;
        let toml = plan.toml(&synapse, &bot, &person.user_id, &namespace.name);
        let kubeconfig = plan.kubeconfig.unwrap_or_else(|| namespace.cluster.kubeconfig());
        let mut pilothouse = daemon(&toml, &kubeconfig);
        if let Some(options) = plan.volume {
            pilothouse = pilothouse.on_volume(options);
        }
        let mut running = pilothouse.start();
        running.ready(SOON).await;
        let room = person.create_room(&[&bot.user_id]).await;
        person.member(&room, &bot.user_id, "join", SOON).await;
        Self { synapse, bot, account, person, pilothouse, running, room }
    }

    /// Says something in the room.
    pub(crate) async fn say(&self, text: &str) -> Sent {
        self.person.send(&self.room, text).await
    }

    /// Says something and waits for the first answer.
    pub(crate) async fn ask(&self, text: &str) -> RoomEvent {
        let sent = self.say(text).await;
        self.person.expect_reply(&sent, SOON).await
    }

    /// Says something, and waits until the answer or an edit of it contains `end`.
    pub(crate) async fn ask_until(&self, text: &str, end: &str) -> RoomEvent {
        let answer = self.ask(text).await;
        self.person.expect_text(&answer, end, SOON).await
    }

    /// A subcommand with the daemon's own store, configuration and kubeconfig.
    pub(crate) fn beside(&self, arguments: &[&str]) -> Beside<'_> {
        Beside { house: self, arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect() }
    }

    /// Starts the daemon again after it has ended.
    pub(crate) async fn start_again(&mut self) {
        self.running = self.pilothouse.start();
        self.running.ready(SOON).await;
    }
}

/// A subcommand beside the running daemon.
pub(crate) struct Beside<'a> {
    house: &'a House,
    arguments: Vec<String>,
}

impl Beside<'_> {
    /// Runs it to its end.
    pub(crate) async fn run(&self, deadline: Duration) -> Ended {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.house.pilothouse.run_with(&arguments, deadline).await
    }
}

/// A daemon with this configuration, not started yet.
pub(crate) fn daemon(toml: &str, kubeconfig: &Path) -> Pilothouse {
    Pilothouse::new().configuration(toml).kubeconfig(kubeconfig)
}
