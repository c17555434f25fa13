//! Runs a program that prints the CLI's own usage output, for people who want no login in another's hands.
//!
//! What it prints is JSON: the answer of the usage endpoint, or that of the CLI's `get_usage` control request, bare or as
//! the line of a stream. The program starts with no other environment than the configured one, so that it sees none of
//! this process's secrets, and what it says on standard error is not repeated anywhere.

use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::{SourceError, answer};
use crate::usage::bucket::{Snapshot, Source};

/// How long the program may take, unless configured.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// So much of its output is read.
const LONGEST_OUTPUT: u64 = 1024 * 1024;
/// So deep the numbers may be wrapped.
const DEEPEST: usize = 4;

/// What is configured of one account.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the account.
    pub account: String,
    /// The program and its arguments; no shell is between.
    pub argv: Vec<String>,
    /// The program's whole environment: `PATH` and `HOME` are missed by most, `CLAUDE_CONFIG_DIR` chooses the login.
    pub environment: Vec<(String, String)>,
    /// Limit for the whole run; the program is killed then.
    pub timeout: Duration,
}

/// A program that knows one account's usage.
#[derive(Debug)]
pub struct Program {
    settings: Settings,
}

impl Program {
    /// Runs nothing yet.
    ///
    /// # Errors
    /// Where no program is named.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        anyhow::ensure!(
            settings.argv.first().is_some_and(|program| !program.is_empty()),
            "the usage command of account {} is empty; name a program",
            settings.account
        );
        Ok(Self { settings })
    }

    /// Name of the account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.settings.account
    }

    /// Runs the program once and reads what it prints.
    ///
    /// # Errors
    /// [`SourceError::Program`] where it cannot be started or fails, the decoder's errors, else [`SourceError::Transient`].
    pub async fn ask(&self, now: Timestamp) -> Result<Snapshot, SourceError> {
        let limit = self.settings.timeout;
        let Ok(output) = tokio::time::timeout(limit, self.run()).await else {
            return Err(SourceError::Transient(format!(
                "{} did not end within {limit:?} and was killed",
                self.named()
            )));
        };
        let output = output?;
        let Some(found) = usage(&output) else {
            return Err(SourceError::Program(format!(
                "{} printed no usage: JSON with rate_limits, five_hour or limits is expected; run it by hand and look",
                self.named()
            )));
        };
        answer::decode(self.account(), Source::Command, now, found.plan.as_deref(), &found.body)
    }

    async fn run(&self) -> Result<Vec<u8>, SourceError> {
        let failed = |why: String| SourceError::Program(format!("{} {why}; run it by hand and look", self.named()));
        let (program, arguments) = self.settings.argv.split_first().ok_or_else(|| failed("is not named".to_owned()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.settings.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("cannot be started ({error})")))?;
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(LONGEST_OUTPUT + 1).read_to_end(&mut output).await;
            read.map_err(|error| failed(format!("cannot be read ({error})")))?;
        }
        if u64::try_from(output.len()).is_ok_and(|length| length > LONGEST_OUTPUT) {
            return Err(failed(format!("printed more than {} KiB", LONGEST_OUTPUT / 1024)));
        }
        let status = child.wait().await.map_err(|error| failed(format!("was lost ({error})")))?;
        if status.success() { Ok(output) } else { Err(failed(format!("ended with {status}"))) }
    }

    /// The program's name without its arguments, which may be nobody's business.
    fn named(&self) -> String {
        format!("the usage command {}", self.settings.argv.first().map_or("", String::as_str))
    }
}

/// An answer, taken out of what it was wrapped in.
struct Unwrapped {
    body: Value,
    plan: Option<String>,
}

/// Finds the last usage answer in one or several JSON values; what is printed between them ends the search.
fn usage(output: &[u8]) -> Option<Unwrapped> {
    let values = serde_json::Deserializer::from_slice(output).into_iter::<Value>();
    values.map_while(Result::ok).filter_map(|value| unwrapped(value, None, DEEPEST)).last()
}

fn unwrapped(value: Value, plan: Option<String>, depth: usize) -> Option<Unwrapped> {
    let Value::Object(mut object) = value else { return None };
    let said = object.get("subscription_type").and_then(Value::as_str).map(str::to_owned);
    let plan = said.or(plan);
    if answer::is_usage(&object) {
        return Some(Unwrapped { body: Value::Object(object), plan });
    }
    let inner = ["rate_limits", "response"].iter().find_map(|key| object.remove(*key))?;
    unwrapped(inner, plan, depth.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(script: &str, timeout: Duration) -> Program {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        Program::new(Settings { account: "work".to_owned(), argv, environment, timeout }).unwrap()
    }

    async fn ask(script: &str) -> Result<Snapshot, SourceError> {
        program(script, Duration::from_secs(20)).ask(Timestamp::UNIX_EPOCH).await
    }

    #[tokio::test]
    async fn an_answer_is_found_in_every_wrapping() {
        let inner = r#"{"five_hour":{"utilization":50,"resets_at":1790000000}}"#;
        let get_usage = format!(r#"{{"session":{{}},"subscription_type":"max","rate_limits":{inner}}}"#);
        let stream = format!(
            "{{\"type\":\"system\"}}\n{{\"type\":\"control_response\",\"response\":{{\"subtype\":\"success\",\"response\":{get_usage}}}}}\n{{\"type\":\"result\"}}"
        );
        for (output, plan) in [(inner.to_owned(), None), (get_usage.clone(), Some("max")), (stream, Some("max"))] {
            let snapshot = ask(&format!("printf '%s' '{output}'")).await.unwrap();
            assert_eq!(snapshot.readings.len(), 1, "{output}");
            assert_eq!((snapshot.plan.as_deref(), snapshot.source), (plan, Source::Command), "{output}");
        }
    }

    #[tokio::test]
    async fn each_way_to_fail_has_a_sentence_and_no_word_of_the_program() {
        for (script, words) in [
            ("echo secret-word; exit 3", "exit status: 3"),
            ("echo secret-word >&2; echo '{}'", "printed no usage"),
            ("echo secret-word", "printed no usage"),
            ("yes secret-word", "printed more than 1024 KiB"),
        ] {
            let error = ask(script).await.unwrap_err();
            let said = error.to_string();
            assert!(matches!(error, SourceError::Program(_)) && said.contains(words), "{script}: {said}");
            assert!(!said.contains("secret-word"), "{said}");
        }
        let missing = Settings {
            account: "work".to_owned(),
            argv: vec!["/no/such/program".to_owned()],
            environment: vec![],
            timeout: TIMEOUT,
        };
        let error = Program::new(missing).unwrap().ask(Timestamp::UNIX_EPOCH).await.unwrap_err();
        assert!(error.to_string().contains("cannot be started"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", pid.display());
        let program = program(&script, Duration::from_secs(5));
        let error = program.ask(Timestamp::UNIX_EPOCH).await.unwrap_err();
        assert!(matches!(&error, SourceError::Transient(why) if why.contains("was killed")), "{error}");
        // The runtime reaps what it kills soon after.
        let pid = std::fs::read_to_string(pid).unwrap();
        let gone = async {
            while std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    }

    #[tokio::test]
    async fn it_sees_no_environment_but_its_own() {
        let snapshot = ask(r#"[ -z "$HOME$CARGO" ] && echo '{"spend":null}'"#).await.unwrap();
        assert!(snapshot.readings.is_empty());
    }
}
