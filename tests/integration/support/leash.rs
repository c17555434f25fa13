//! A server that cannot outlive the test process, however that ends.
//!
//! Statics are never dropped, so a server that all tests share would stay behind. Each child therefore runs under a
//! small shell that kills it when its own standard input closes, and the kernel closes that pipe with the test process.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

/// Runs `"$@"`; the first line out is the pid.
const LEASH: &str = r#"
exec 3<&0
sh -c 'echo $$; exec "$@"' leash "$@" </dev/null 3<&- &
child=$!
# A signal to the whole group (Ctrl-C) must not end the one who cleans up.
{ trap : INT TERM HUP; read -r _; kill -KILL "$child"; } <&3 3<&- >/dev/null 2>&1 &
watcher=$!
# The shell itself says when a child was killed, and nobody may be left to read that.
exec 3<&- >/dev/null 2>&1
wait "$child"; status=$?
kill -KILL "$watcher"
exit "$status"
"#;

/// A running child and everything it has said.
pub(crate) struct Leashed {
    name: String,
    shell: Child,
    pid: u32,
    said: Arc<Said>,
    readers: [JoinHandle<()>; 2],
}

/// Lines of standard output and standard error, in the order of their arrival.
struct Said {
    lines: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
}

impl Leashed {
    /// Starts `command`; a program that is missing shows as an end with status 127.
    pub(crate) fn start(name: &str, command: &Command) -> Self {
        Self::on(Command::new("sh"), name, command)
    }

    /// Starts `command` with no other environment than its own.
    pub(crate) fn start_clean(name: &str, command: &Command) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().env("PATH", "/usr/bin:/bin");
        Self::on(shell, name, command)
    }

    fn on(mut leash: Command, name: &str, command: &Command) -> Self {
        leash.arg("-c").arg(LEASH).arg("leash").arg(command.get_program()).args(command.get_args());
        leash.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        if let Some(directory) = command.get_current_dir() {
            leash.current_dir(directory);
        }
        leash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = leash.spawn().expect("a shell starts");

        let mut out = BufReader::new(shell.stdout.take().expect("standard output is piped"));
        let mut pid = String::new();
        out.read_line(&mut pid).expect("the leash writes the pid first");
        let pid = pid.trim().parse().expect("the first line is a pid");

        let said = Arc::new(Said { lines: Mutex::default(), count: watch::Sender::new(0) });
        let errors = BufReader::new(shell.stderr.take().expect("standard error is piped"));
        let readers = [collect(out, Arc::clone(&said)), collect(errors, Arc::clone(&said))];
        Self { name: name.to_owned(), shell, pid, said, readers }
    }

    /// Sends a signal by its name (`TERM`, `KILL`, `HUP`, `STOP`, `CONT`).
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg("-s").arg(name).arg(self.pid.to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} (pid {}) took no SIG{name}", self.name, self.pid);
    }

    /// Freezes it; when this returns, each of its threads stands. A signal that was only sent lets a busy machine answer
    /// one request more.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let start = std::time::Instant::now();
        while !self.stands() {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{} (pid {}) goes on after SIGSTOP",
                self.name,
                self.pid
            );
            // The kernel tells only the parent of a stop, and that is the shell.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// The state follows the name, which may hold anything (`proc_pid_stat(5)`).
    fn stands(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("its threads are listed");
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// Everything said so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.said.lines().clone()
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until a line satisfies `wanted` and returns it; those that have come already count.
    ///
    /// # Errors
    /// What the child said last, when the deadline passes first.
    pub(crate) async fn line(&self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let mut count = self.said.count.subscribe();
        let found = async {
            loop {
                if let Some(line) = self.said.lines().iter().find(|line| wanted(line)) {
                    return line.clone();
                }
                count.changed().await.expect("the sender lives as long as self");
            }
        };
        let found = tokio::time::timeout(deadline, found).await;
        found.map_err(|_| format!("no such line from {} within {deadline:?}{}", self.name, self.tail(60)))
    }

    /// The status if it has ended. A signal's number plus 128 stands for a death by signal, as in a shell.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.shell.try_wait().expect("the shell can be asked")
    }

    /// Waits for the end, and until everything that it said has been read.
    ///
    /// # Errors
    /// What the child said last, when the deadline passes first.
    pub(crate) async fn end(&mut self, deadline: Duration) -> Result<ExitStatus, String> {
        let start = tokio::time::Instant::now();
        loop {
            let status = self.ended().filter(|_| self.readers.iter().all(JoinHandle::is_finished));
            if let Some(status) = status {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                return Err(format!("{} has not ended within {deadline:?}{}", self.name, self.tail(60)));
            }
            // A child has no event to wait for without the runtime that started it.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The last lines, ready to be appended to a message.
    pub(crate) fn tail(&self, most: usize) -> String {
        let lines = self.said.lines();
        let mut text = format!("; the last lines of {}:\n", self.name);
        for line in lines.iter().skip(lines.len().saturating_sub(most)) {
            let _ = writeln!(text, "  {line}");
        }
        text
    }
}

impl Drop for Leashed {
    /// Lets go of the leash, which kills the child, and waits until it is gone.
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A folder that goes with the test process, however that ends.
pub(crate) struct Folder {
    path: PathBuf,
    shell: Child,
}

impl Folder {
    /// Makes a folder whose name begins with `prefix`.
    pub(crate) fn new(prefix: &str) -> Self {
        let path = tempfile::Builder::new().prefix(prefix).tempdir().expect("a folder").keep();
        // A server in it may be dying at the same moment, and still write.
        let remove = r#"trap : INT TERM HUP; read -r _; rm -rf "$1" || { sleep 1; rm -rf "$1"; }"#;
        let mut shell = Command::new("sh");
        shell.args(["-c", remove, "folder"]).arg(&path);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { path, shell: shell.spawn().expect("a shell starts") }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

impl Said {
    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn collect(from: BufReader<impl Read + Send + 'static>, said: Arc<Said>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in from.split(b'\n') {
            let Ok(line) = line else { break };
            said.lines().push(String::from_utf8_lossy(&line).into_owned());
            said.count.send_modify(|count| *count += 1);
        }
    })
}
