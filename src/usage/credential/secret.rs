//! A login in a Kubernetes Secret: the one file of this module that speaks with the API server.
//!
//! A ServiceAccount needs `patch` on that one Secret, by its name. Every patch gives the object back, an empty one too, so
//! that is enough to read it in the one moment when its latest state matters; for all other moments it is mounted as files,
//! or `get` is granted as well.
//!
//! Whoever renews writes a claim into an annotation, with the version that was read as precondition: of two only one
//! succeeds. A claim counts for 60 s, so the clocks of all writers must agree better than that.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::layout::{Entries, Layout};
use super::{Claim, Credential, CredentialError, Held, Renewed, Right, Written, directory};

/// Who is renewing, and since when.
pub const CLAIM: &str = "pilothouse.dev/refresh-claim";
/// A claim that is older is nobody's.
const STALE: SignedDuration = SignedDuration::from_secs(60);
/// Each request takes at most this long.
const LIMIT: Duration = Duration::from_secs(10);
/// How the API server names the writer.
const FIELD_MANAGER: &str = "pilothouse";

/// What is configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The Secret's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its keys.
    pub layout: Layout,
    /// Where it is mounted as files, for a ServiceAccount that may only patch.
    pub mount: Option<PathBuf>,
}

/// A Secret with a login.
#[derive(Clone)]
pub struct Place {
    api: Api<Secret>,
    settings: Settings,
    /// Tells this process's claims from those of others.
    holder: String,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The Secret as it was read or written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    resource: String,
    /// This process's claim stands in it.
    claimed: bool,
}

/// What counts of a Secret.
struct Seen {
    version: String,
    claim: Option<String>,
    entries: Entries,
}

impl Place {
    /// Asks nothing yet.
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Self {
        let holder = format!("{:016x}", rand::random::<u64>());
        Self { api: Api::namespaced(client, &settings.namespace), settings, holder }
    }

    /// Reads the login: from the mount where there is one.
    pub(super) async fn read(&self) -> Result<Credential, CredentialError> {
        match &self.settings.mount {
            Some(mount) => self.credential(&directory::entries(mount, &self.settings.layout).await?),
            None => self.latest().await,
        }
    }

    /// Reads the login from the API server.
    pub(super) async fn latest(&self) -> Result<Credential, CredentialError> {
        self.credential(&self.seen().await?.entries)
    }

    /// Writes the claim, if nobody else has one.
    pub(super) async fn claim(&self, now: Timestamp) -> Result<Claim, CredentialError> {
        let seen = self.seen().await?;
        if seen.claim.as_deref().is_some_and(|claim| is_anothers(claim, &self.holder, now)) {
            return Ok(Claim::Busy(self.credential(&seen.entries).ok()));
        }
        let claim = json!({"metadata": {
            "resourceVersion": seen.version,
            "annotations": {CLAIM: format!("{} {now}", self.holder)},
        }});
        match self.patch(&claim).await? {
            Some(seen) => self.held(seen, true),
            None => Ok(Claim::Busy(None)),
        }
    }

    /// Gets the right to write at the version that is there now.
    pub(super) async fn open(&self) -> Result<Claim, CredentialError> {
        self.held(self.seen().await?, false)
    }

    /// Writes tokens and takes the claim away, if the Secret is still at that version.
    pub(super) async fn write(
        &self,
        entries: &Entries,
        version: Version,
        renewed: &Renewed,
    ) -> Result<Written, CredentialError> {
        let changes = self.settings.layout.changes(entries, renewed).map_err(|why| self.missing(&why))?;
        let data: serde_json::Map<String, Value> = changes.into_iter().map(|(key, text)| (key, text.into())).collect();
        let tokens = json!({
            "metadata": {"resourceVersion": version.resource, "annotations": {CLAIM: null}},
            "stringData": data,
        });
        Ok(if self.patch(&tokens).await?.is_some() { Written::Done } else { Written::Changed })
    }

    /// Takes the claim away, if it is this process's. One that stays behind grows stale.
    pub(super) async fn release(&self, version: Version) {
        if !version.claimed {
            return;
        }
        let nothing = |version: &str| json!({"metadata": {"resourceVersion": version, "annotations": {CLAIM: null}}});
        if matches!(self.patch(&nothing(&version.resource)).await, Ok(None)) {
            // Somebody has put a new login in place meanwhile; the claim may still be there.
            let Ok(seen) = self.seen().await else { return };
            if seen.claim.is_some_and(|claim| claim.starts_with(&self.holder)) {
                let _ = self.patch(&nothing(&seen.version)).await;
            }
        }
    }

    fn held(&self, seen: Seen, claimed: bool) -> Result<Claim, CredentialError> {
        let credential = self.credential(&seen.entries)?;
        let version = Version { resource: seen.version, claimed };
        Ok(Claim::Held(Box::new(Held { credential, right: Right::Version(version, seen.entries) })))
    }

    /// Reads the Secret as it is; a patch that changes nothing gives it to whoever may not get it.
    async fn seen(&self) -> Result<Seen, CredentialError> {
        if self.settings.mount.is_some() {
            let seen = self.patch(&json!({"metadata": {}})).await?;
            return seen.ok_or_else(|| self.unavailable("a patch without a precondition was refused as a conflict"));
        }
        let answer = self.asked("get", self.api.get(&self.settings.name)).await?;
        answer.map(seen).ok_or_else(|| self.unavailable("a conflict was answered to a question"))
    }

    /// Patches the Secret; `None`: it is not at that version any more.
    async fn patch(&self, patch: &Value) -> Result<Option<Seen>, CredentialError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(patch);
        let answer = self.asked("patch", self.api.patch(&self.settings.name, &params, &patch)).await?;
        Ok(answer.map(seen))
    }

    /// Waits for an answer; `None` is a conflict.
    async fn asked(
        &self,
        verb: &str,
        answer: impl Future<Output = kube::Result<Secret>>,
    ) -> Result<Option<Secret>, CredentialError> {
        // Boxed: kube's futures are large.
        match tokio::time::timeout(LIMIT, Box::pin(answer)).await {
            Ok(Ok(secret)) => Ok(Some(secret)),
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Ok(None),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {
                Err(self.missing("it does not exist; `pilothouse init` writes it"))
            }
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => Err(self.missing(&format!(
                "the ServiceAccount may not {verb} it; grant get and patch on this name, or mount it and grant patch"
            ))),
            // Only the number: the message of a refused patch may repeat what was to be written.
            Ok(Err(kube::Error::Api(status))) => {
                Err(self.unavailable(&format!("the API server answered {}", status.code)))
            }
            Ok(Err(_)) => Err(self.unavailable("the API server cannot be reached")),
            Err(_) => Err(self.unavailable(&format!("the API server gave no answer within {LIMIT:?}"))),
        }
    }

    fn credential(&self, entries: &Entries) -> Result<Credential, CredentialError> {
        self.settings.layout.read(entries).map_err(|why| self.missing(&why))
    }

    fn named(&self) -> String {
        format!("the Secret {}/{}", self.settings.namespace, self.settings.name)
    }

    fn missing(&self, why: &str) -> CredentialError {
        CredentialError::Missing(format!("there is no usable login in {}: {why}", self.named()))
    }

    fn unavailable(&self, why: &str) -> CredentialError {
        CredentialError::Unavailable(format!("{} cannot be used now: {why}", self.named()))
    }
}

fn seen(secret: Secret) -> Seen {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let data = secret.data.unwrap_or_default();
    Seen {
        version: secret.metadata.resource_version.unwrap_or_default(),
        claim: secret.metadata.annotations.and_then(|mut annotations| annotations.remove(CLAIM)),
        entries: data.into_iter().map(|(key, value)| (key, text(value.0))).collect(),
    }
}

/// Says whether a claim is somebody else's and still counts. One that cannot be read does not.
fn is_anothers(claim: &str, holder: &str, now: Timestamp) -> bool {
    let Some((by, since)) = claim.split_once(' ') else { return false };
    let since: Option<Timestamp> = since.parse().ok();
    by != holder && since.is_some_and(|since| now.duration_since(since).abs() < STALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_counts_for_a_minute_and_never_against_its_holder() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let claim = format!("a {}", at(0));
        assert!(
            is_anothers(&claim, "b", at(0)) && is_anothers(&claim, "b", at(59)) && is_anothers(&claim, "b", at(-5))
        );
        assert!(!is_anothers(&claim, "b", at(60)) && !is_anothers(&claim, "b", at(-60)));
        assert!(!is_anothers(&claim, "a", at(1)));
        assert!(!is_anothers("torn", "b", at(0)) && !is_anothers("a yesterday", "b", at(0)));
    }
}
