//! The real binary, as an operator of the machine runs it: an environment, a configuration file, a store, signals.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use super::leash::{Folder, Leashed};
use super::synapse::{Account, Synapse};
use super::{environment, free_port, http};

/// What to run: arguments, environment and configuration. It can be started again and again on the same store.
pub(crate) struct Pilothouse {
    /// The folder of the store; it goes with this value and what it has started.
    pub(crate) store: Arc<Folder>,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    /// Options of the file system under its store.
    volume: Option<&'static str>,
    port: u16,
    /// Held by the one that has the usual port.
    _usual_port: Option<MutexGuard<'static, ()>>,
}

/// The port of the probes where nothing is configured: one daemon of this machine has it.
static USUAL_PORT: Mutex<()> = Mutex::const_new(());

/// Mounts `$1` with the options `$0`, for this process and what it becomes alone.
const MOUNT: &str = r#"mkdir -p "$1" && mount -t tmpfs -o "$0" tmpfs "$1" && shift && exec "$@""#;

impl Pilothouse {
    /// The daemon with an empty environment besides its store (`CRYPTO_STORE_PATH` for the predecessor's variables,
    /// `PILOTHOUSE__MATRIX__STORE` for ours) and a free port for its probes.
    pub(crate) fn new() -> Self {
        let store = Arc::new(Folder::new("pilothouse-store-"));
        let port = free_port();
        let environment = BTreeMap::from([
            ("PILOTHOUSE__MATRIX__STORE".to_owned(), store.path().join("store").display().to_string()),
            ("PILOTHOUSE__ADMIN__LISTEN".to_owned(), format!("127.0.0.1:{port}")),
            ("HOME".to_owned(), store.path().display().to_string()),
            ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
        ]);
        Self { store, arguments: Vec::new(), environment, volume: None, port, _usual_port: None }
    }

    /// The daemon with the environment of the predecessor, for `clawdbot` in this namespace, and nothing beside it: that
    /// would end its being alone. So it has the usual port, and waits for another test that has it.
    pub(crate) async fn as_the_predecessor(synapse: &Synapse, bot: &Account, person: &str, namespace: &str) -> Self {
        let fresh = Self { _usual_port: Some(USUAL_PORT.lock().await), ..Self::new() };
        let store = fresh.store.path().join("store").display().to_string();
        fresh
            .without("PILOTHOUSE__MATRIX__STORE")
            .without("PILOTHOUSE__ADMIN__LISTEN")
            .variable("CRYPTO_STORE_PATH", store)
            .variable("MATRIX_HOMESERVER", synapse.url())
            .variable("MATRIX_USER", bot.user_id.clone())
            .variable("MATRIX_PASSWORD", bot.password.clone())
            .variable("ALLOWED_USERS", person)
            .variable("DEPLOYMENT_NAME", "clawdbot")
            .variable("DEPLOYMENT_NAMESPACE", namespace)
    }

    /// Adds arguments, for instance a subcommand.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Sets a variable.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Takes a variable away, for instance one of those that [`Self::new`] sets.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Gives its store a volume of its own with these options of tmpfs, seen by it alone and new at each start.
    ///
    /// # Panics
    /// Where nothing can be mounted.
    pub(crate) fn on_volume(mut self, options: &'static str) -> Self {
        let tried = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
        let tried = tried.expect("unshare, of util-linux");
        assert!(tried.status.success(), "run this as root, or allow user namespaces: {tried:?}");
        self.volume = Some(options);
        self
    }

    /// Lets it talk to an API server with this kubeconfig.
    pub(crate) fn kubeconfig(self, path: &Path) -> Self {
        self.variable("KUBECONFIG", path.display().to_string())
    }

    /// Writes its `pilothouse.toml`, and points `PILOTHOUSE_CONFIG` at it; while it runs, this is an edit of the file.
    pub(crate) fn configuration(mut self, toml: &str) -> Self {
        let path = self.write_configuration(toml);
        self.environment.insert("PILOTHOUSE_CONFIG".to_owned(), path.display().to_string());
        self
    }

    /// Writes the file of [`Self::configuration`] anew, as an editor would, and returns its path.
    pub(crate) fn write_configuration(&self, toml: &str) -> PathBuf {
        let path = self.store.path().join("pilothouse.toml");
        fs::write(&path, toml).expect("a configuration is written");
        path
    }

    /// The address of its probes and metrics.
    pub(crate) fn admin(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Where its database is.
    pub(crate) fn database(&self) -> PathBuf {
        self.store.path().join("store").join(pilothouse::daemon::DATABASE)
    }

    /// What its metrics say now.
    pub(crate) async fn metrics(&self) -> String {
        let answer = reqwest::get(self.admin("/metrics")).await.expect("an answer");
        answer.text().await.expect("text")
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Running {
        self.start_with(&[])
    }

    fn start_with(&self, more: &[&str]) -> Running {
        let mut command = match self.volume {
            None => Command::new(binary()),
            Some(options) => {
                let mut command = Command::new("unshare");
                command.args(["-rm", "sh", "-c", MOUNT, options]).arg(self.store.path().join("store")).arg(binary());
                command
            }
        };
        command.args(&self.arguments).args(more).envs(&self.environment).current_dir(self.store.path());
        let child = Leashed::start_clean("pilothouse", &command);
        Running { child, ready: self.admin("/readyz"), _store: Arc::clone(&self.store) }
    }

    /// Runs it to its end, for a subcommand.
    ///
    /// # Panics
    /// With what it has said, when the deadline passes first.
    pub(crate) async fn run(&self, deadline: Duration) -> Ended {
        self.run_with(&[], deadline).await
    }

    /// Runs it to its end with more arguments, for a subcommand beside the daemon of the same store.
    pub(crate) async fn run_with(&self, more: &[&str], deadline: Duration) -> Ended {
        let mut running = self.start_with(more);
        let status = running.end(deadline).await;
        Ended { status, said: running.log().join("\n") }
    }
}

/// The binary to run: the one that was built with the tests, unless another is measured.
pub(crate) fn binary() -> PathBuf {
    environment("PILOTHOUSE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_pilothouse").into(), PathBuf::from)
}

/// A subcommand that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How.
    pub(crate) status: ExitStatus,
    /// Standard output and standard error.
    pub(crate) said: String,
}

/// A running process. Its log is printed when the test panics; it is killed when dropped.
pub(crate) struct Running {
    child: Leashed,
    ready: String,
    _store: Arc<Folder>,
}

impl Running {
    /// The lines so far, standard output and standard error as they came.
    pub(crate) fn log(&self) -> Vec<String> {
        self.child.lines()
    }

    /// Waits for a line of the log that contains `text`, those that have come already included.
    pub(crate) async fn line(&self, text: &str, deadline: Duration) -> String {
        let found = self.child.line(deadline, |line| line.contains(text)).await;
        found.unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    /// Waits until `/readyz` answers 200, and says how long that took.
    ///
    /// # Panics
    /// When it ends instead, or with the last answer, when the deadline passes first.
    pub(crate) async fn ready(&mut self, deadline: Duration) -> Duration {
        self.answers(deadline, |status, _| status == 200).await
    }

    /// Waits until `/readyz` answers anything but 200 with a text that contains `reason`.
    pub(crate) async fn unready(&mut self, reason: &str, deadline: Duration) -> Duration {
        self.answers(deadline, |status, text| status != 200 && text.contains(reason)).await
    }

    /// Sends a signal by its name: `TERM`, `INT`, `HUP`, `KILL`, `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        self.child.signal(name);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the deadline passes first.
    pub(crate) async fn end(&mut self, deadline: Duration) -> ExitStatus {
        self.child.end(deadline).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Asks it to stop, as Kubernetes does, and waits for its end.
    pub(crate) async fn stop(&mut self, deadline: Duration) -> ExitStatus {
        self.signal("TERM");
        self.end(deadline).await
    }

    /// Kills it on the spot.
    pub(crate) async fn kill(&mut self) {
        self.signal("KILL");
        self.end(Duration::from_mins(1)).await;
    }

    /// Its process id, for `/proc`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// A path as the process sees it, with the volumes that it alone has.
    pub(crate) fn sees(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.pid())).join(path)
    }

    async fn answers(&mut self, deadline: Duration, wanted: impl Fn(u16, &str) -> bool) -> Duration {
        let http = http();
        let start = tokio::time::Instant::now();
        let mut last = String::from("nothing");
        loop {
            if let Ok(answer) = http.get(&self.ready).timeout(Duration::from_secs(5)).send().await {
                let status = answer.status().as_u16();
                let text = answer.text().await.unwrap_or_default();
                if wanted(status, &text) {
                    return start.elapsed();
                }
                last = format!("{status} {text}");
            }
            if let Some(status) = self.child.ended() {
                panic!("pilothouse has ended with {status}");
            }
            assert!(start.elapsed() < deadline, "/readyz says {last} after {deadline:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("pilothouse{}", self.child.tail(200));
        }
    }
}
