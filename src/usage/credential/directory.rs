//! A login in a directory: the CLI's configuration directory, or one file for each token.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::layout::{Entries, Layout};
use super::lock::Locks;
use super::{Claim, Credential, CredentialError, Held, Renewed, Right, Written};
use crate::file::{self, Readers};

/// What is configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory: what `CLAUDE_CONFIG_DIR` names, else `~/.claude`.
    pub path: PathBuf,
    /// How the login is written down there.
    pub layout: Layout,
}

/// A directory with a login.
#[derive(Debug, Clone)]
pub struct Place {
    settings: Settings,
}

impl Place {
    /// Looks at nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    pub(super) async fn read(&self) -> Result<Credential, CredentialError> {
        self.credential(&entries(&self.settings.path, &self.settings.layout).await?)
    }

    /// Takes the CLI's locks and reads what is stored under them.
    pub(super) async fn lock(&self, now: Timestamp) -> Result<Claim, CredentialError> {
        let path = self.settings.path.clone();
        // Taking is some system calls; the task that touches them needs this runtime.
        let locks = Locks::take(&path, now).map_err(|error| {
            CredentialError::Unavailable(format!(
                "the locks of {} cannot be taken ({error}); let the user of pilothouse write there",
                path.display()
            ))
        })?;
        let entries = entries(&self.settings.path, &self.settings.layout).await?;
        let credential = self.credential(&entries);
        match locks {
            Some(locks) => {
                let credential = credential?;
                Ok(Claim::Held(Box::new(Held { credential, right: Right::Locks(locks) })))
            }
            // Where another one writes, something may be missing for a moment.
            None => Ok(Claim::Busy(credential.ok())),
        }
    }

    /// Writes each file whole or not at all, readable for its owner alone, and gives the locks back. Not everybody who logs
    /// in takes the locks, so what is stored is looked at once more.
    pub(super) async fn write(
        &self,
        before: &Credential,
        locks: Locks,
        renewed: &Renewed,
    ) -> Result<Written, CredentialError> {
        let entries = entries(&self.settings.path, &self.settings.layout).await?;
        if !locks.are_ours() || self.credential(&entries)?.refresh_token != before.refresh_token {
            return Ok(Written::Changed);
        }
        let changes = self.settings.layout.changes(&entries, renewed).map_err(|why| self.missing(&why))?;
        let files: Vec<_> = changes
            .into_iter()
            .map(|(name, text)| {
                // Editors and shells end a file of one line with a newline; what had one keeps it.
                let newline = entries.get(&name).is_some_and(|before| before.ends_with('\n')) && !text.ends_with('\n');
                (self.settings.path.join(name), if newline { text + "\n" } else { text })
            })
            .collect();
        let path = self.settings.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let written = files.iter().try_for_each(|(path, text)| {
                // A link stays one; what it leads to is written.
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                file::replace(&path, text, Readers::Owner)
            });
            drop(locks);
            written
        });
        let written = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map(|()| Written::Done).map_err(|error| {
            CredentialError::Unavailable(format!(
                "the renewed login cannot be written to {} ({error}); let the user of pilothouse write there",
                path.display()
            ))
        })
    }

    fn credential(&self, entries: &Entries) -> Result<Credential, CredentialError> {
        self.settings.layout.read(entries).map_err(|why| self.missing(&why))
    }

    fn missing(&self, why: &str) -> CredentialError {
        let path = self.settings.path.display();
        CredentialError::Missing(format!(
            "there is no usable login in {path}: {why}; log in there: CLAUDE_CONFIG_DIR={path} claude, then /login"
        ))
    }
}

/// Reads the files that a layout names; those that are missing are left out.
pub(super) async fn entries(directory: &Path, layout: &Layout) -> Result<Entries, CredentialError> {
    let mut entries = Entries::new();
    for name in layout.names() {
        let path = directory.join(name);
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => {
                entries.insert(name.to_owned(), text);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let path = path.display();
                return Err(CredentialError::Missing(format!(
                    "{path} cannot be read ({error}); let the user of pilothouse read it"
                )));
            }
        }
    }
    Ok(entries)
}
