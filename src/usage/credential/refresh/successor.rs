//! What follows a refresh token: kept first, then written back, then forgotten.

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::super::{Claim, Credential, CredentialError, Held, Renewed, Written, digest};
use super::{FIRST_PAUSE, LONGEST_PAUSE, RenewedInMemory, Shared, unreadable};
use crate::retry::Backoff;
use crate::store::usage::Successor;

/// So often writing back is tried at once; later questions go on with it.
const TRIES: u32 = 4;

/// What came of one try to write back.
enum Put {
    Written(Credential),
    Newer,
    /// Somebody has changed what is stored.
    Again,
    /// Somebody else is writing, and has not changed it yet.
    Busy(Credential),
}

impl Shared {
    /// Ends what an earlier renewal has left: writes it back where its parent is still stored, else drops it.
    pub(super) async fn settle(&self, now: Timestamp) -> Result<Option<Credential>, CredentialError> {
        let account = &self.settings.account;
        let kept = self.store.successor(account).await.map_err(|error| unreadable(&error))?;
        let kept = kept.and_then(|kept| {
            let renewed = serde_json::from_str(&kept.successor);
            if renewed.is_err() {
                error!(account, "what was kept of a renewal cannot be read; the stored login is used");
            }
            Some((kept.parent, renewed.ok()?))
        });
        let kept = kept.or_else(|| {
            let memory = self.memory();
            memory.unkept.as_ref().map(|(parent, renewed)| (parent.clone(), renewed.0.clone()))
        });
        let Some((parent, renewed)) = kept else { return Ok(None) };
        let _turn = self.turn.lock().await;
        let finished = self.finish(None, &parent, &renewed, now).await;
        match finished {
            Ok(finished) => Ok(finished.map(|(credential, _)| credential)),
            Err(error) => {
                // Where it cannot be written it can still be used, as long as nothing newer is there.
                let stored = self.place.read().await.ok().filter(|stored| stored.parent() == Some(parent));
                error!(account, %error, usable = stored.is_some(), "the renewed login could not be written back");
                Ok(stored.map(|stored| stored.renewed(&renewed)))
            }
        }
    }

    /// Keeps what followed, on the disk. The first act after the answer.
    pub(super) async fn keep(&self, parent: &str, renewed: &Renewed, now: Timestamp) -> bool {
        let account = &self.settings.account;
        let successor = serde_json::to_string(renewed).unwrap_or_default();
        let kept = Successor { parent: parent.to_owned(), successor, at: now };
        let outcome = self.store.keep_successor(account, kept).await;
        if let Err(error) = &outcome {
            error!(
                account,
                error = error as &dyn std::error::Error,
                "the renewed login could not be kept in the store"
            );
            self.memory().unkept = Some((parent.to_owned(), RenewedInMemory(renewed.clone())));
        }
        outcome.is_ok()
    }

    /// Writes back what followed `parent` and forgets it. Gives the login and whether it is written; `None`: a newer login
    /// is stored, and what followed is dropped.
    pub(super) async fn finish(
        &self,
        mut held: Option<Box<Held>>,
        parent: &str,
        renewed: &Renewed,
        now: Timestamp,
    ) -> Result<Option<(Credential, bool)>, CredentialError> {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let begun = Instant::now();
        let mut tries = 1;
        loop {
            let trouble = match self.put(held.take(), parent, renewed, now + begun.elapsed()).await {
                Ok(Put::Written(credential)) => {
                    self.forget(parent).await;
                    return Ok(Some((credential, true)));
                }
                Ok(Put::Newer) => {
                    info!(account = self.settings.account, "another login was put in place; a renewed one is dropped");
                    self.forget(parent).await;
                    return Ok(None);
                }
                // It is kept; the next question goes on from here.
                Ok(Put::Busy(stored)) if tries >= TRIES => return Ok(Some((stored.renewed(renewed), false))),
                Ok(Put::Busy(_) | Put::Again) => None,
                Err(error) => Some(error),
            };
            if tries >= TRIES {
                let changing =
                    || CredentialError::Unavailable("where the login is kept, others write all the time".to_owned());
                return Err(trouble.unwrap_or_else(changing));
            }
            tries += 1;
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Tries once to write what followed `parent`.
    async fn put(
        &self,
        held: Option<Box<Held>>,
        parent: &str,
        renewed: &Renewed,
        now: Timestamp,
    ) -> Result<Put, CredentialError> {
        let held = match held {
            Some(held) => held,
            None => match self.place.open(now).await? {
                Claim::Held(held) => held,
                Claim::Busy(Some(stored)) if stored.parent().as_deref() == Some(parent) => {
                    return Ok(Put::Busy(stored));
                }
                Claim::Busy(_) => return Ok(Put::Again),
            },
        };
        let stored = held.credential.parent();
        let credential = held.credential.renewed(renewed);
        if stored.as_deref() == Some(parent) {
            return Ok(match self.place.write(*held, renewed).await? {
                Written::Done => Put::Written(credential),
                Written::Changed => Put::Again,
            });
        }
        let written = stored == Some(digest(&renewed.refresh_token));
        self.place.release(*held).await;
        // The answer to a write may have been lost on its way.
        Ok(if written { Put::Written(credential) } else { Put::Newer })
    }

    async fn forget(&self, parent: &str) {
        self.memory().unkept = None;
        if let Err(error) = self.store.drop_successor(&self.settings.account, parent).await {
            // Looked at again before the next question, and found to be done.
            warn!(error = &error as &dyn std::error::Error, "what was kept of a renewal could not be dropped");
        }
    }
}
