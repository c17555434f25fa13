//! `pilothouse init`: the first configuration by question, by flags, or out of an environment that exists.
//!
//! | file | does |
//! |---|---|
//! | `answers` | what an answer means; pure |
//! | `questions` | asks, says what is wrong, asks again |
//! | `draft` | the configuration as it grows, its text, and what [`Config::load`] thinks of it |
//! | `credential`, `logins` | the login of a Claude installation: taken over or how to make one |
//! | `output`, `write` | what is written, with leave: files whole or not at all, manifests |
//! | `apply` | what is applied in a cluster besides that; pure |
//!
//! It talks on standard error; standard output is the Kubernetes Secret alone, ready for `kubectl apply -f -`. Nothing is
//! written before the last question is answered.

mod answers;
mod apply;
mod credential;
mod draft;
mod logins;
mod output;
mod questions;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use toml::Value;

pub use answers::{LoginChoice, Place, login_choice, place};
use draft::{Draft, Paths};
use logins::Logins;
use output::{farewell, may_replace, output};
use questions::{Dialogue, HOMESERVER, NEEDED, PASSWORD, PEOPLE, Stop, TARGETS, USER};
use write::Planned;

use crate::check;
use crate::config::{ClaudeFolder, Config, Secret, Sources, Surroundings, secret_in, variable};
use crate::shutdown;

/// What was said on the command line. Whatever is missing is looked for in the environment, then asked.
#[derive(Debug, Default)]
pub struct Flags {
    /// The configuration file to write; `PILOTHOUSE_CONFIG` or `pilothouse.toml` without it.
    pub file: Option<PathBuf>,
    /// Where Pilothouse will run.
    pub place: Option<Place>,
    /// Base URL of the homeserver.
    pub homeserver: Option<String>,
    /// The bot's account.
    pub user: Option<String>,
    /// File with its password.
    pub password_file: Option<PathBuf>,
    /// Allowed people.
    pub allow: Vec<String>,
    /// Targets, `namespace/name[:kind]`.
    pub targets: Vec<String>,
    /// Folder of the Matrix store.
    pub store: Option<PathBuf>,
    /// Usage sources, `[account:]kind[=detail]`.
    pub usage: Vec<String>,
    /// Folder of the Claude installation whose login may be taken; `CLAUDE_CONFIG_DIR` or `~/.claude` without it.
    pub claude_folder: Option<PathBuf>,
    /// Whether that login is taken.
    pub login: Option<LoginChoice>,
    /// Namespace of the Kubernetes Secret with the bot's own secrets.
    pub namespace: Option<String>,
    /// File for the manifest, in place of standard output.
    pub secret_manifest: Option<PathBuf>,
    /// Replaces files that exist.
    pub overwrite: bool,
    /// Leaves the check at the end out.
    pub no_check: bool,
}

impl Flags {
    /// Namespace of Pilothouse's own Secret.
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(apply::SECRET)
    }
}

/// Exit code where something is missing or in the way: nothing was written.
const STOPPED: u8 = 2;
/// Exit code after an interrupt, as shells count.
const INTERRUPTED: u8 = 130;

/// Asks, writes and checks. Exit code 0: written, and the check is content; 1: written, and the check found failures;
/// 2: nothing was written; 130: interrupted, which says whether anything was.
///
/// # Errors
/// Where a file cannot be read or written; what stood there before is untouched.
pub async fn run(flags: Flags, sources: &Sources) -> anyhow::Result<ExitCode> {
    let surroundings = Surroundings::of(sources);
    let written = {
        let mut dialogue = Dialogue::new(io::stdin().lock(), io::stderr(), io::stdin().is_terminal());
        session(&mut dialogue, &mut io::stdout(), &flags, &surroundings, now())?
    };
    match written {
        Ok(_) if flags.no_check => Ok(ExitCode::SUCCESS),
        Ok(draft) => try_it(&draft).await,
        Err(code) => Ok(ExitCode::from(code)),
    }
}

/// The whole conversation and its writing. An inner error is an exit code whose reason was told.
fn session<R: BufRead, W: Write>(
    dialogue: &mut Dialogue<R, W>,
    manifests: &mut impl Write,
    flags: &Flags,
    surroundings: &Surroundings,
    now: Timestamp,
) -> anyhow::Result<Result<Draft, u8>> {
    let file = flags.file.clone().or_else(|| surroundings.file.clone()).unwrap_or_else(|| "pilothouse.toml".into());
    let file = std::path::absolute(&file).with_context(|| format!("{} is no path", file.display()))?;
    let paths = Paths { file, place: flags.place.unwrap_or(Place::Here) };
    let mut draft = Draft { keys: BTreeMap::new(), secrets: BTreeMap::new(), tokens: BTreeMap::new(), paths };
    let mut converse = || -> Result<Option<Logins>, Stop> {
        if !may_replace(dialogue, &[&draft.paths.file], flags.overwrite)? {
            return Ok(None);
        }
        take_over(dialogue, &mut draft, surroundings)?;
        answer(dialogue, &mut draft, flags)?;
        let installation = installation(flags, surroundings);
        let login = (installation.as_ref(), flags.login);
        let logins = logins::prepare(dialogue, &draft, login, flags.namespace(), now)?;
        if !complete(dialogue, &draft)? {
            return Ok(None);
        }
        Ok(Some(logins))
    };
    let outcome = converse();
    let prepared = match outcome {
        Ok(Some(logins)) => output(dialogue, manifests, &draft, flags, logins),
        Ok(None) => return Ok(Err(STOPPED)),
        Err(stop) => Err(stop),
    };
    match prepared {
        Ok(true) => {}
        Ok(false) => return Ok(Err(STOPPED)),
        Err(Stop::Ended) => {
            let _ = dialogue.say(&missing(&draft));
            return Ok(Err(STOPPED));
        }
        Err(Stop::Failed(error)) if error.kind() == io::ErrorKind::Interrupted => {
            let _ = dialogue.say("\nStopped; nothing was written.");
            return Ok(Err(INTERRUPTED));
        }
        Err(Stop::Failed(error)) => return Err(error).context("the conversation could not go on; nothing was written"),
        Err(Stop::Unwritten(path, error)) => {
            return Err(error)
                .with_context(|| format!("{} cannot be written; give its folder to this user", path.display()));
        }
    }
    let _ = dialogue.say(&farewell(&draft, flags.namespace(), surroundings));
    Ok(Ok(draft))
}

/// Begins with what the environment says.
fn take_over<R: BufRead, W: Write>(
    dialogue: &mut Dialogue<R, W>,
    draft: &mut Draft,
    surroundings: &Surroundings,
) -> Result<(), Stop> {
    for finding in &surroundings.findings {
        dialogue.say(&format!("Not taken over: {finding}"))?;
    }
    for warning in &surroundings.warnings {
        dialogue.say(warning)?;
    }
    if !surroundings.variables.is_empty() {
        let taken = surroundings.variables.iter().map(|(key, variable)| format!("  {key} from {variable}"));
        dialogue.say(&format!("Taken from the environment:\n{}", taken.collect::<Vec<_>>().join("\n")))?;
    }
    draft.keys.clone_from(&surroundings.keys);
    draft.secrets.clone_from(&surroundings.secrets);
    Ok(())
}

/// Settles everything that is needed, and the usage sources.
fn answer<R: BufRead, W: Write>(dialogue: &mut Dialogue<R, W>, draft: &mut Draft, flags: &Flags) -> Result<(), Stop> {
    draft.paths.place = match flags.place {
        Some(place) => place,
        None => dialogue.place()?,
    };
    let inside = draft.paths.place == Place::Cluster;
    dialogue.settle(draft, &HOMESERVER, inside.then_some(IN_CLUSTER), flags.homeserver.clone())?;
    dialogue.settle(draft, &USER, None, flags.user.clone())?;
    if let Some(path) = &flags.password_file {
        match secret_in(path) {
            Ok(secret) => {
                draft.secrets.insert(PASSWORD.key.to_owned(), secret);
            }
            Err(finding) => {
                draft.forget(PASSWORD.key);
                dialogue.say(&format!("  ✗ {finding}"))?;
            }
        }
    }
    if !knows_login(draft) {
        let password = dialogue.password()?;
        draft.secrets.insert(PASSWORD.key.to_owned(), password);
    }
    let joined = |words: &[String]| (!words.is_empty()).then(|| words.join(" "));
    dialogue.settle(draft, &PEOPLE, None, joined(&flags.allow))?;
    dialogue.settle(draft, &TARGETS, None, joined(&flags.targets))?;
    match &flags.store {
        Some(store) => draft.set("matrix.store", std::path::absolute(store)?.display().to_string()),
        None if inside => draft.default("matrix.store", "/data/crypto_store"),
        None => {
            let store = draft.paths.beside('-', "store").display().to_string();
            draft.default("matrix.store", store);
        }
    }
    if inside {
        draft.default("kubernetes.source", "in_cluster");
        draft.default("admin.listen", "0.0.0.0:9090");
        draft.default("log.format", "json");
    }
    dialogue.usage(draft, flags.usage.clone())?;
    push_tokens(draft);
    Ok(())
}

/// The homeserver of the shipped manifests.
const IN_CLUSTER: &str = "http://synapse.matrix.svc.cluster.local:8008";

/// Whether something says how the bot logs in.
fn knows_login(draft: &Draft) -> bool {
    let ways = ["matrix.password", "matrix.access_token", "matrix.jwt.token", "matrix.jwt.token_file"];
    ways.iter().any(|key| draft.has(key))
}

/// Makes a bearer token for each account that is pushed. One that lies there already stays: workstations use it.
fn push_tokens(draft: &mut Draft) {
    let rows = draft.accounts().filter(|row| row.get("source").and_then(Value::as_str) == Some("push"));
    let names = rows.filter_map(|row| row.get("push_token_file").and_then(Value::as_str));
    let names: Vec<String> = names.filter(|name| !name.contains('/')).map(str::to_owned).collect();
    if names.is_empty() {
        return;
    }
    let (listen, here) = match draft.paths.place {
        Place::Here => ("127.0.0.1:9091", true),
        Place::Cluster => ("0.0.0.0:9091", false),
    };
    draft.default("usage.listen", listen);
    for name in names {
        let before = here.then(|| secret_in(&draft.paths.secret(&name)).ok()).flatten();
        let made = || Secret::new(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        draft.tokens.insert(name, before.unwrap_or_else(made));
    }
}

fn installation(flags: &Flags, surroundings: &Surroundings) -> Option<ClaudeFolder> {
    let flagged = flags.claude_folder.clone().map(|path| ClaudeFolder { path, named: true });
    flagged.or_else(|| surroundings.claude.clone())
}

/// Tells what is still wrong: something of the environment that nobody was asked for.
fn complete<R: BufRead, W: Write>(dialogue: &mut Dialogue<R, W>, draft: &Draft) -> Result<bool, Stop> {
    let faults = draft.faults()?;
    for fault in &faults {
        dialogue.say(&format!("  ✗ {}: {}. {}.", fault.key, fault.fault, fault.remedy))?;
    }
    if !faults.is_empty() {
        dialogue.say("Nothing was written. Correct the variable, or unset it.")?;
    }
    Ok(faults.is_empty())
}

/// Says what an ended conversation lacks.
fn missing(draft: &Draft) -> String {
    let lacks = |key: &str| if key == PASSWORD.key { !knows_login(draft) } else { !draft.has(key) };
    let missing = NEEDED.iter().filter(|question| lacks(question.key));
    let missing: Vec<String> = missing.map(|question| format!("  {} ({})", question.noun, question.flag)).collect();
    if missing.is_empty() {
        return "\nThe answers ended; nothing was written.".to_owned();
    }
    format!("\nThe answers ended, and nothing was written. Missing:\n{}", missing.join("\n"))
}

/// Runs `check` with what was written, and with nothing of the environment.
async fn try_it(draft: &Draft) -> anyhow::Result<ExitCode> {
    let mut environment = BTreeMap::new();
    // What the pod will find elsewhere lies here for as long as the check takes.
    let folder = tempfile::tempdir()?;
    if draft.paths.place == Place::Cluster {
        for (key, secret) in &draft.secrets {
            let path = folder.path().join(draft::name(key));
            Planned::secret(path.clone(), secret).write()?;
            environment.insert(variable(&format!("{key}_file")), path.into_os_string());
        }
        environment.insert(variable("kubernetes.source"), OsString::from("infer"));
        // Whatever this machine has under the name of the pod's volume is something else.
        environment.insert(variable("matrix.store"), folder.path().join("volume").into_os_string());
    }
    let sources = Sources { argument: Some(draft.paths.file.clone()), environment, usual: Vec::new() };
    let loaded = Config::load(&sources).context("what was written is not what was judged; please report it")?;
    eprintln!("\nChecking, from this machine:");
    // From here on an interruption is heard, so that no login of the check stays behind.
    let _held = shutdown::InterruptHeld::begin();
    let end = shutdown::listen()?.end;
    Ok(match check::told(&loaded, draft.paths.place != Place::Cluster, &end).await {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!("What was written stays; `pilothouse check` tries it again.");
            ExitCode::from(INTERRUPTED)
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "a subcommand happens now")]
fn now() -> Timestamp {
    Timestamp::now()
}
