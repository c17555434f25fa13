//! The conversation: asks, says what is wrong with an answer, and asks again.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use toml::Value;

use super::answers::{self, Form, Kind, Place, Wanted};
use super::draft::Draft;
use crate::config::{Finding, Secret};

/// Why a conversation ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The answers ended where one was needed.
    Ended,
    /// Reading or writing the conversation failed.
    Failed(io::Error),
    /// A file could not be read or written.
    Unwritten(PathBuf, io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Something that is asked and becomes one key.
pub(super) struct Question {
    /// The key.
    pub(super) key: &'static str,
    /// What it is called in front of people.
    pub(super) noun: &'static str,
    /// Its flag.
    pub(super) flag: &'static str,
    /// What is asked.
    prompt: &'static str,
    /// An example, for a value whose fault gives none.
    example: Option<&'static str>,
    /// The form of the answer.
    form: Form,
}

/// The question for the homeserver.
pub(super) const HOMESERVER: Question = Question {
    key: "matrix.homeserver",
    noun: "the homeserver",
    flag: "--homeserver",
    prompt: "Homeserver, base URL",
    example: Some("Write for instance https://matrix.example.org"),
    form: Form::Line,
};
/// The question for the bot's account.
pub(super) const USER: Question = Question {
    key: "matrix.user",
    noun: "the bot's account",
    flag: "--user",
    prompt: "The bot's account there, localpart or full user id",
    example: None,
    form: Form::Line,
};
/// The question for the password, which is read by [`Dialogue::password`].
pub(super) const PASSWORD: Question = Question {
    key: "matrix.password",
    noun: "the bot's password",
    flag: "--password-file",
    prompt: "Its password",
    example: None,
    form: Form::Line,
};
/// The question for the people.
pub(super) const PEOPLE: Question = Question {
    key: "policy.users",
    noun: "the allowed people",
    flag: "--allow",
    prompt: "Who may give commands: full user ids, separated by blanks",
    example: Some("Write for instance @you:example.org"),
    form: Form::Words,
};
/// The question for the workloads.
pub(super) const TARGETS: Question = Question {
    key: "targets",
    noun: "the targets",
    flag: "--target",
    prompt: "Targets: namespace/name, namespace/name:StatefulSet, word=namespace/name, separated by blanks",
    example: None,
    form: Form::Targets,
};
/// Everything that is needed, in the order in which it is asked.
pub(super) const NEEDED: [&Question; 5] = [&HOMESERVER, &USER, &PASSWORD, &PEOPLE, &TARGETS];

/// What each usage source costs, for whoever is asked.
const SOURCES: &str = "\nPilothouse can watch the limits of an AI subscription. Where would its numbers come from?\n\
    \x20 none       nothing is watched\n\
    \x20 directory  a login in a folder of this machine or of the volume; the provider is asked\n\
    \x20 secret     the same with a login in a Kubernetes Secret\n\
    \x20 push       workstations send what their CLI shows; no login leaves them\n\
    \x20 command    a program prints it; no login is needed here\n\
    directory and secret use a login of the subscription, and its terms may not permit that: your decision.\n";

/// Asks one person, or reads a pipe.
pub(super) struct Dialogue<R, W> {
    input: R,
    output: W,
    /// Somebody sits there: answers can be hidden, and a default is no answer to an end of input.
    pub(super) terminal: bool,
}

impl<R: BufRead, W: Write> Dialogue<R, W> {
    pub(super) fn new(input: R, output: W, terminal: bool) -> Self {
        Self { input, output, terminal }
    }

    /// Says something, on lines of its own.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Stop> {
        Ok(self.output.write_all(format!("{text}\n").as_bytes())?)
    }

    fn wrong(&mut self, text: &str) -> Result<(), Stop> {
        self.say(&format!("  ✗ {}.", text.trim_end_matches('.')))
    }

    /// Asks once; nothing means the default.
    pub(super) fn ask(&mut self, prompt: &str, default: Option<&str>) -> Result<String, Stop> {
        let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
        // In one piece: standard error has no buffer, and an answer can be typed before it is asked.
        self.output.write_all(format!("{prompt}{shown}: ").as_bytes())?;
        self.output.flush()?;
        let mut line = String::new();
        let read = self.input.read_line(&mut line)?;
        if !self.terminal || read == 0 {
            // Nobody's return key has ended the line.
            writeln!(self.output)?;
        }
        match (line.trim(), default) {
            // An end of input in a pipe means that whatever has a default takes it.
            ("", Some(default)) if read > 0 || !self.terminal => Ok(default.to_owned()),
            ("", _) if read == 0 => Err(Stop::Ended),
            (answer, _) => Ok(answer.to_owned()),
        }
    }

    /// Asks until the answer can be read.
    pub(super) fn until<T>(
        &mut self,
        prompt: &str,
        default: Option<&str>,
        mut given: Option<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Stop> {
        loop {
            let text = match given.take() {
                Some(text) => text,
                None => self.ask(prompt, default)?,
            };
            match read(&text) {
                Ok(value) => return Ok(value),
                Err(fault) => self.wrong(&fault)?,
            }
        }
    }

    /// Asks for a yes; nothing means no.
    pub(super) fn agree(&mut self, prompt: &str) -> Result<bool, Stop> {
        match self.until(&format!("{prompt} (y/N)"), None, None, answers::yes) {
            Err(Stop::Ended) if !self.terminal => Ok(false),
            answer => answer,
        }
    }

    /// Asks until the configuration takes the answer. What a flag or the environment gave is judged like an answer.
    pub(super) fn settle(
        &mut self,
        draft: &mut Draft,
        question: &Question,
        default: Option<&str>,
        mut given: Option<String>,
    ) -> Result<(), Stop> {
        loop {
            if let Some(text) = given.take() {
                draft.forget(question.key);
                match question.form.read(&text) {
                    Ok(value) => draft.set(question.key, value),
                    Err(fault) => self.wrong(&fault)?,
                }
            }
            if draft.has(question.key) {
                let faults = draft.faults()?;
                let faults: Vec<&Finding> = faults.iter().filter(|fault| concerns(fault, question.key)).collect();
                if faults.is_empty() {
                    return Ok(());
                }
                for Finding { fault, remedy, .. } in faults {
                    let remedy = question.example.unwrap_or(remedy);
                    self.wrong(&format!("{}: {fault}. {remedy}", question.noun))?;
                }
                draft.forget(question.key);
            }
            given = Some(self.ask(question.prompt, default)?);
        }
    }

    /// Asks for the bot's password; on a terminal nothing shows.
    pub(super) fn password(&mut self) -> Result<Secret, Stop> {
        loop {
            let secret = if self.terminal { hidden(PASSWORD.prompt)? } else { self.line(PASSWORD.prompt)? };
            if !secret.trim().is_empty() {
                return Ok(Secret::new(secret));
            }
            self.wrong("the password is empty")?;
        }
    }

    /// A line whose blanks count.
    fn line(&mut self, prompt: &str) -> Result<String, Stop> {
        self.say(&format!("{prompt}: "))?;
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Err(Stop::Ended);
        }
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    }

    /// Asks for usage sources until there is no other, or takes those of flags. Those of the environment stay.
    pub(super) fn usage(&mut self, draft: &mut Draft, given: Vec<String>) -> Result<(), Stop> {
        if draft.has("usage.accounts") && given.is_empty() {
            return Ok(());
        }
        draft.forget("usage.accounts");
        let asking = given.is_empty();
        let mut given = given.into_iter();
        if asking {
            self.say(SOURCES)?;
        }
        let mut rows: Vec<Value> = Vec::new();
        loop {
            let flag = given.next();
            if !asking && flag.is_none() {
                return Ok(());
            }
            let prompt = if rows.is_empty() {
                "Usage source: none, directory, secret, push, command"
            } else {
                "Another account, as account:source, or none"
            };
            let Some(wanted) = self.until(prompt, Some("none"), flag, answers::usage)? else {
                if asking {
                    return Ok(());
                }
                continue;
            };
            match self.account(draft, &rows, wanted, asking)? {
                Some(row) => rows.push(row),
                // Told what is wrong: a flag is asked for again.
                None if !asking => return self.usage(draft, Vec::new()),
                None => {}
            }
            draft.forget("usage.accounts");
            if !rows.is_empty() {
                draft.set("usage.accounts", rows.clone());
            }
        }
    }

    /// Completes one account, and lets the configuration judge it.
    fn account(
        &mut self,
        draft: &mut Draft,
        before: &[Value],
        mut wanted: Wanted,
        asking: bool,
    ) -> Result<Option<Value>, Stop> {
        let place = draft.paths.place;
        let row = loop {
            if wanted.detail.is_none() {
                let usual = wanted.usual(|name| draft.paths.beside('-', name), place);
                wanted.detail = match (asking, wanted.kind) {
                    (true, Kind::Directory) => Some(self.ask("  Folder of the login", usual.as_deref())?),
                    (true, Kind::Secret) => Some(self.ask("  Secret, as namespace/name", usual.as_deref())?),
                    (true, Kind::Command) => Some(self.ask("  Program and arguments", None)?),
                    (_, Kind::Push) | (false, _) => usual,
                };
            }
            match wanted.row() {
                Ok(row) => break Value::from(row),
                Err(fault) => self.wrong(&fault)?,
            }
            // Whoever has nothing to name is asked for the source again.
            let given = wanted.detail.take().is_some_and(|detail| !detail.trim().is_empty());
            if !asking || !given {
                return Ok(None);
            }
        };
        let mut rows = before.to_vec();
        rows.push(row.clone());
        let key = format!("usage.accounts[{}]", before.len());
        draft.set("usage.accounts", rows);
        let faults = draft.faults()?;
        let faults: Vec<&Finding> = faults.iter().filter(|fault| concerns(fault, &key)).collect();
        if faults.is_empty() {
            return Ok(Some(row));
        }
        for Finding { fault, remedy, .. } in faults {
            self.wrong(&format!("the account: {fault}. {remedy}"))?;
        }
        Ok(None)
    }

    /// Asks where Pilothouse will run.
    pub(super) fn place(&mut self) -> Result<Place, Stop> {
        let prompt = "Where will Pilothouse run: here (this machine) or cluster (as in k8s/base)";
        self.until(prompt, Some("here"), None, answers::place)
    }
}

/// `targets[0].name` concerns `targets`.
fn concerns(finding: &Finding, key: &str) -> bool {
    finding.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
}

/// Reads from the terminal itself, without showing what is typed.
fn hidden(prompt: &str) -> Result<String, Stop> {
    let kept = crate::shutdown::InterruptHeld::begin();
    let read = rpassword::prompt_password(format!("{prompt} (it does not show): "));
    drop(kept);
    match read {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Stop::Ended),
        Err(error) => Err(error.into()),
    }
}
