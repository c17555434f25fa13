//! Programs that the demo starts, and that end with it, however it ends.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child as Process, ChildStdin, Command};

/// Runs a program until it ends or standard input closes, which the system does when the demo ends, even by `kill -9`.
/// The program gets a polite signal, and after twelve seconds the other one.
const WRAPPER: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
program=$!
{ read -r _; kill "$program"; sleep 12; kill -9 "$program"; } <&3 3<&- >/dev/null 2>&1 &
watcher=$!
exec 3<&- 2>/dev/null
wait "$program"
status=$?
kill "$watcher"
exit "$status"
"#;

/// A running program.
pub(crate) struct Child {
    name: &'static str,
    process: Process,
    /// Closing it ends the program.
    lifeline: Option<ChildStdin>,
    log: PathBuf,
}

impl Child {
    /// Starts a program; what it writes goes to a log file.
    pub(crate) fn start<A: AsRef<OsStr>>(
        name: &'static str,
        program: &Path,
        arguments: &[A],
        environment: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut process = Command::new("sh")
            .args(["-c", WRAPPER, "sh"])
            .arg(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C is for the demo, which ends its programs in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        let lifeline = process.stdin.take();
        Ok(Self { name, process, lifeline, log: log.to_owned() })
    }

    /// Waits until an address answers with success; fails when the program ends, or with the deadline.
    pub(crate) async fn wait_for(&mut self, url: &str, deadline: Duration) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answers = async {
            loop {
                if client.get(url).send().await.is_ok_and(|response| response.status().is_success()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = answers => Ok(()),
            _ = self.process.wait() => bail!("{} ended. It said last:\n{}", self.name, self.last_words()),
            () = tokio::time::sleep(deadline) => {
                let last = client.get(url).send().await;
                let answer = match last {
                    Ok(response) => response.text().await.unwrap_or_default(),
                    Err(error) => format!("{error:#}"),
                };
                bail!("{} is not ready after {} s: {answer}\nIt said last:\n{}", self.name, deadline.as_secs(), self.last_words())
            }
        }
    }

    /// Returns when the program ends.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let status = self.process.wait().await;
        anyhow::anyhow!("{} ended ({status:?}). It said last:\n{}", self.name, self.last_words())
    }

    /// Ends the program and waits for it.
    pub(crate) async fn stop(mut self) {
        drop(self.lifeline.take());
        self.process.wait().await.ok();
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("{last}\n(all of it: {})", self.log.display())
    }
}

/// The environment for programs that must not see what configures another Pilothouse, and that talk over loopback.
pub(crate) fn environment() -> Vec<(String, String)> {
    const FOREIGN: &[&str] = &[
        "MATRIX_",
        "PILOTHOUSE_",
        "KEYCLOAK_",
        "ALLOWED_USERS",
        "DEPLOYMENT_",
        "CRYPTO_STORE_PATH",
        "ECHO_MODE",
        "AUTH_METHOD",
        "JWT_",
    ];
    let mut environment: Vec<(String, String)> =
        std::env::vars().filter(|(name, _)| !FOREIGN.iter().any(|prefix| name.starts_with(prefix))).collect();
    for name in ["NO_PROXY", "no_proxy"] {
        match environment.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => value.push_str(",127.0.0.1,localhost"),
            None => environment.push((name.to_owned(), "127.0.0.1,localhost".to_owned())),
        }
    }
    environment
}

/// Finds a free port of the loopback interface, outside the range from which the kernel takes the ports of outgoing
/// connections: it is still free when the program binds it.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    (0..100)
        .map(|_| rand::random_range(10_000..32_000))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port on 127.0.0.1")
}
