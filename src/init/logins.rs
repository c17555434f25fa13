//! Gets the logins of watched accounts ready: found, taken over with leave, or told how to make.

use std::io::{BufRead, Write};
use std::path::Path;

use jiff::Timestamp;
use toml::{Table, Value};

use super::answers::{LoginChoice, Place};
use super::apply::{self, text};
use super::credential::{self, Found, Login};
use super::draft::Draft;
use super::questions::{Dialogue, Stop};
use super::write::{Manifest, Planned};
use crate::config::ClaudeFolder;

/// What became of the logins.
#[derive(Default)]
pub(super) struct Logins {
    /// Files to write.
    pub(super) files: Vec<Planned>,
    /// Secrets to make.
    pub(super) manifests: Vec<Manifest>,
    /// What is left to do, said after everything is written.
    pub(super) advice: Vec<String>,
}

/// Looks at each account that asks the provider. `namespace`: where Pilothouse's own Secret is made.
pub(super) fn prepare<R: BufRead, W: Write>(
    dialogue: &mut Dialogue<R, W>,
    draft: &Draft,
    (installation, choice): (Option<&ClaudeFolder>, Option<LoginChoice>),
    namespace: &str,
    now: Timestamp,
) -> Result<Logins, Stop> {
    let mut offer = Offer { dialogue, installation, choice, now, taken: false };
    let mut logins = Logins::default();
    let asks = |row: &&Table| text(row, "source").is_none_or(|source| source == "anthropic-oauth");
    for (index, row) in draft.accounts().filter(asks).enumerate() {
        if index == 0 {
            offer.dialogue.say(&format!("\n{}", credential::TERMS))?;
        }
        offer.dialogue.say(&format!("\nThe account {}:", text(row, "name").unwrap_or("default")))?;
        match (text(row, "directory"), text(row, "secret")) {
            (Some(folder), _) if draft.paths.place == Place::Cluster => logins.advice.push(format!(
                "{folder} is a folder of the pod's volume: put a login there as {}. In a cluster `--usage secret` is easier.",
                credential::FILE
            )),
            (Some(folder), _) => offer.directory(Path::new(folder), &mut logins)?,
            (None, Some(secret)) => offer.secret(row, secret, draft, &mut logins)?,
            (None, None) => {}
        }
    }
    logins.advice.extend(pushes(draft, namespace));
    Ok(logins)
}

/// Says where workstations send what they know.
fn pushes(draft: &Draft, namespace: &str) -> Vec<String> {
    let listen = draft.keys.get("usage.listen").and_then(Value::as_str).unwrap_or("the address of usage.listen");
    let said = |row: &Table| {
        let (account, token) = (text(row, "name")?, text(row, "push_token_file")?);
        let made = draft.tokens.contains_key(token);
        if made && draft.paths.place == Place::Cluster {
            return Some(apply::pushes(account, token, namespace));
        }
        let token = if made { draft.paths.secret(token) } else { token.into() };
        Some(format!(
            "Workstations of {account} send to http://{listen}/usage/v1/{account} with the bearer token in {}.",
            token.display()
        ))
    };
    draft.accounts().filter_map(said).collect()
}

/// The one login that may be taken, and whoever decides that.
struct Offer<'a, R, W> {
    dialogue: &'a mut Dialogue<R, W>,
    installation: Option<&'a ClaudeFolder>,
    choice: Option<LoginChoice>,
    now: Timestamp,
    taken: bool,
}

impl<R: BufRead, W: Write> Offer<'_, R, W> {
    fn directory(&mut self, folder: &Path, logins: &mut Logins) -> Result<(), Stop> {
        let shared = self.installation.is_some_and(|installation| same(&installation.path, folder));
        match credential::look(folder, self.now) {
            Found::Login(login) => {
                self.dialogue.say(&format!("{} has a login.", folder.display()))?;
                self.known(&login)?;
                if shared {
                    self.dialogue.say(credential::SHARED_FOLDER)?;
                }
            }
            Found::Nothing(why) => {
                self.dialogue.say(&format!("{}.", upper(&why)))?;
                let login = if shared { None } else { self.take(&folder.display().to_string())? };
                if let Some(login) = login {
                    logins.files.push(Planned::secret(folder.join(credential::FILE), &login.document));
                } else {
                    logins.advice.extend(how_to_make_one(folder));
                }
            }
        }
        Ok(())
    }

    fn secret(&mut self, row: &Table, name: &str, draft: &Draft, logins: &mut Logins) -> Result<(), Stop> {
        let namespace = text(row, "namespace").unwrap_or_default();
        let key = text(row, "secret_key").unwrap_or("credentials.json");
        if let Some(login) = self.take(&format!("the Secret {namespace}/{name}"))? {
            let data = vec![(key.to_owned(), login.document)];
            logins.manifests.push(Manifest { namespace: namespace.to_owned(), name: name.to_owned(), data });
            return Ok(());
        }
        let folder = draft.paths.beside('-', "claude");
        let document = folder.join(credential::FILE);
        logins.advice.extend(how_to_make_one(&folder));
        logins.advice.push(format!(
            "Then make the Secret of it, and delete the file: from then on the Secret's is the only good copy.\n  \
             kubectl create secret generic {name} --namespace {namespace} --from-file={key}={document} && rm {document}",
            document = credential::quoted(&document),
        ));
        Ok(())
    }

    /// Offers the login of the Claude installation.
    fn take(&mut self, into: &str) -> Result<Option<Login>, Stop> {
        let Some(installation) = self.installation.filter(|_| !self.taken) else { return Ok(None) };
        let login = match credential::look(&installation.path, self.now) {
            Found::Login(login) => login,
            Found::Nothing(why) => {
                if self.choice == Some(LoginChoice::Take) {
                    self.dialogue.say(&format!("No login can be taken: {why}."))?;
                }
                return Ok(None);
            }
        };
        if self.choice == Some(LoginChoice::Own) {
            return Ok(None);
        }
        let from = installation.path.display();
        self.dialogue.say(&format!("The Claude installation in {from} has a login."))?;
        self.known(&login)?;
        self.dialogue.say(credential::COST)?;
        let agreed = match self.choice {
            Some(_) => true,
            None => self.dialogue.agree(&format!("Copy it to {into} all the same?"))?,
        };
        self.taken = agreed;
        Ok(agreed.then_some(login))
    }

    fn known(&mut self, login: &Login) -> Result<(), Stop> {
        self.dialogue.say(&credential::life(login, self.now))?;
        login.warnings.iter().try_for_each(|warning| self.dialogue.say(warning))
    }
}

fn how_to_make_one(folder: &Path) -> Vec<String> {
    let installation = ClaudeFolder { path: folder.to_owned(), named: true };
    let keychain = cfg!(target_os = "macos").then(|| credential::keychain(&installation, folder));
    std::iter::once(credential::own(folder)).chain(keychain).collect()
}

fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(a) == real(b)
}

fn upper(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
