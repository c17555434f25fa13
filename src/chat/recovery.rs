//! The own device signed by its owner, from its first minute and over a lost volume.
//!
//! The account's cross-signing identity is made once, by the first device, and its private keys are kept on the homeserver
//! in secret storage, which the recovery key opens. No key backup is made: a bot needs no history, and keys out of a
//! backup prove no sender.

use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use matrix_sdk::Client;
use matrix_sdk::encryption::secret_storage::{SecretStorageError, SecretStore};
use matrix_sdk::encryption::vodozemac::Ed25519SecretKey;
use matrix_sdk::ruma::UserId;
use matrix_sdk::ruma::api::client::keys::get_keys;
use matrix_sdk::ruma::api::client::uiaa;
use matrix_sdk::ruma::events::secret::request::SecretName;
use matrix_sdk_base::crypto::types::{CrossSigningSecrets, SecretsBundle};
use serde_json::json;
use tracing::info;

use super::advice::Advice;
use super::answer::{self, Answer};
use super::outside::served;
use super::session::{Folder, OpenError};
use crate::config::{self, Login, Secret};

/// Base64 with or without padding: clients write both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// Has the own device signed: makes the account's identity where the homeserver has none, else signs with the private keys
/// that lie here or that the recovery key opens. The homeserver's view decides, before and after: what a start that was cut
/// off left in the store is not published yet.
///
/// Gives what the operator of the machine should do about the recovery key.
///
/// # Errors
/// [`Unsigned::Unanswered`] as long as the homeserver leaves open whether it is signed, [`Unsigned::Unsettled`] where it is
/// not and another try may sign it.
pub(super) async fn sign_own_device(
    client: &Client,
    matrix: &config::Matrix,
    folder: &Folder,
) -> Result<Option<Advice>, Unsigned> {
    let Some(own) = client.user_id().map(ToOwned::to_owned) else {
        return Err(Unsigned::Certain(OpenError::Other { why: "there is no login".to_owned() }));
    };
    let device = client.device_id().map(ToString::to_string).unwrap_or_default();
    // Who will not say which keys it serves has not said that the device is unsigned.
    let unsaid = |error: anyhow::Error| {
        if may_pass(&error) {
            let wait = answer::asked_to_wait(&error);
            return Unsigned::Unanswered(error, wait);
        }
        Unsigned::Certain(OpenError::Other { why: format!("{error:#}") })
    };
    let unsigned = |error: anyhow::Error| {
        let why = OpenError::Unsigned { device: device.clone(), why: format!("{error:#}") };
        if may_pass(&error) { Unsigned::Unsettled(why, answer::asked_to_wait(&error)) } else { Unsigned::Certain(why) }
    };

    let published = published(client, &own, &device).await.map_err(unsaid)?;
    if published.master.is_none() {
        // Where an earlier try was cut off, it is the identity of that try that goes out.
        bootstrap(client, matrix).await.map_err(unsigned)?;
        info!("published the account's cross-signing identity");
    } else if !published.signed {
        sign(client, matrix, folder, &own).await.map_err(|failed| match failed {
            Failed::Key(error) => Unsigned::Certain(error),
            Failed::Other(error) => unsigned(error),
        })?;
    }
    if !published.signed && !self::published(client, &own, &device).await.map_err(unsaid)?.signed {
        return Err(unsigned(anyhow::anyhow!("the homeserver does not serve its signature")));
    }
    if !is_signed(client).await.map_err(unsigned)? {
        // Published it is: only this store has not heard of it.
        client.encryption().request_user_identity(&own).await.map_err(|error| unsaid(error.into()))?;
        if !is_signed(client).await.map_err(unsigned)? {
            return Err(unsigned(anyhow::anyhow!("its signature does not reach the store")));
        }
    }
    // The device is signed: what fails from here on is no reason not to start.
    let kept = keep_recoverable(client, matrix.recovery_key.as_ref(), folder).await;
    Ok(kept.unwrap_or_else(|error| Some(Advice::NotKept { why: format!("{error:#}") })))
}

/// Why the own device does not count as signed.
pub(super) enum Unsigned {
    /// The homeserver gave no answer that says whether it is; it asked to wait so long, where it did.
    Unanswered(anyhow::Error, Option<Duration>),
    /// It is not, and signing it failed in a way that may pass; the homeserver asked to wait so long, where it did.
    Unsettled(OpenError, Option<Duration>),
    /// That was settled.
    Certain(OpenError),
}

/// Whether a later try may go better. The end of a login is seen, and mended where that can be, when it is connected again.
fn may_pass(error: &anyhow::Error) -> bool {
    !matches!(answer::to(error), None | Some(Answer::Refused))
}

/// What everybody else sees of the own account.
struct Published {
    /// The identity's master key.
    master: Option<String>,
    /// The own device, with the key that lies here, along the whole chain of signatures.
    signed: bool,
}

async fn published(client: &Client, own: &UserId, device: &str) -> anyhow::Result<Published> {
    let mut request = get_keys::v3::Request::new();
    request.device_keys.insert(own.to_owned(), Vec::new());
    let answer = client.send(request).await.context("the homeserver was asked for the own keys")?;
    let answer = json!({
        "device_keys": answer.device_keys,
        "master_keys": answer.master_keys,
        "self_signing_keys": answer.self_signing_keys,
    });
    let key = client.encryption().ed25519_key().await;
    let served = served(&answer, own.as_str());
    let signed = served
        .devices
        .iter()
        .any(|served| served.device == device && served.signed && Some(&served.ed25519) == key.as_ref());
    Ok(Published { master: served.master, signed })
}

/// Signs the own device under the identity that is published already.
async fn sign(client: &Client, matrix: &config::Matrix, folder: &Folder, own: &UserId) -> Result<(), Failed> {
    // The store forgets private keys that are not the published identity's.
    let identity = client.encryption().request_user_identity(own).await.map_err(|error| Failed::Other(error.into()))?;
    if has_private_keys(client).await {
        verify(client).await.map_err(Failed::Other)?;
        info!("signed the own device with the identity's keys, which lie in the store");
        return Ok(());
    }
    let (key, place) = match &matrix.recovery_key {
        Some(key) => (key.expose().trim().to_owned(), "matrix.recovery_key".to_owned()),
        None => match folder.recovery_key().map_err(Failed::Key)? {
            Some(key) => (key, folder.recovery_file().display().to_string()),
            None => return Err(Failed::Key(OpenError::NoRecoveryKey { user: own.to_string() })),
        },
    };
    let master = identity.and_then(|identity| Some(identity.master_key().get_first_key()?.to_base64()));
    recover(client, &key, &master.unwrap_or_default()).await.map_err(|error| match error {
        Unopened::Key(why) => Failed::Key(OpenError::WrongRecoveryKey { user: own.to_string(), place, why }),
        Unopened::Other(error) => Failed::Other(error),
    })?;
    info!("signed the own device with the recovery key");
    Ok(())
}

/// Why the own device could not be signed under the published identity.
enum Failed {
    /// The recovery key is missing or wrong.
    Key(OpenError),
    Other(anyhow::Error),
}

async fn has_private_keys(client: &Client) -> bool {
    client.encryption().cross_signing_status().await.is_some_and(|status| status.is_complete())
}

/// Whether the store knows the own device as signed by its owner.
pub(super) async fn is_signed(client: &Client) -> anyhow::Result<bool> {
    let device = client.encryption().get_own_device().await.context("the own device cannot be read")?;
    Ok(device.is_some_and(|device| device.is_cross_signed_by_owner()))
}

/// Makes and publishes the identity. Most homeservers ask nothing for the first one; else the password is shown.
async fn bootstrap(client: &Client, matrix: &config::Matrix) -> anyhow::Result<()> {
    let Err(error) = client.encryption().bootstrap_cross_signing(None).await else { return Ok(()) };
    let Some(asked) = error.as_uiaa_response() else {
        return Err(error).context("the cross-signing identity could not be published");
    };
    let Login::Password { password } = &matrix.login else {
        anyhow::bail!("the homeserver asks for a password before it takes a cross-signing identity");
    };
    let user = uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(matrix.user.clone()));
    let mut answer = uiaa::Password::new(user, password.expose().to_owned());
    answer.session.clone_from(&asked.session);
    client
        .encryption()
        .bootstrap_cross_signing(Some(uiaa::AuthData::Password(answer)))
        .await
        .context("the cross-signing identity could not be published with the account's password")
}

/// Why a key did not open the identity.
enum Unopened {
    /// The key is wrong, or opens something else.
    Key(String),
    Other(anyhow::Error),
}

/// Opens secret storage, and proves that what is in it belongs to the identity with this master key; gives its private half.
async fn open(client: &Client, key: &str, master: &str) -> Result<(SecretStore, String), Unopened> {
    let storage = client.encryption().secret_storage();
    let store = storage.open_secret_store(key).await.map_err(|error| match error {
        SecretStorageError::SecretStorageKey(error) => Unopened::Key(error.to_string()),
        SecretStorageError::MissingKeyInfo { .. } => {
            Unopened::Key("the account has no secret storage that a key could open".to_owned())
        }
        error => Unopened::Other(anyhow::Error::from(error).context("the secret storage cannot be read")),
    })?;
    let private = secret(&store, SecretName::CrossSigningMasterKey).await?;
    if public_of(&private).as_deref() != Some(master) {
        return Err(Unopened::Key("the keys that it opens belong to an identity that was replaced since".to_owned()));
    }
    Ok((store, private))
}

/// Fetches the identity's private keys with the recovery key and signs the own device.
async fn recover(client: &Client, key: &str, master: &str) -> Result<(), Unopened> {
    let (store, master_key) = open(client, key, master).await?;
    let bundle = SecretsBundle {
        cross_signing: CrossSigningSecrets {
            master_key,
            user_signing_key: secret(&store, SecretName::CrossSigningUserSigningKey).await?,
            self_signing_key: secret(&store, SecretName::CrossSigningSelfSigningKey).await?,
        },
        backup: None,
    };
    // A device that is new to the homeserver is published with its signature at once.
    client.encryption().import_secrets_bundle(&bundle).await.map_err(|error| {
        Unopened::Other(anyhow::Error::from(error).context("the identity's keys cannot be imported"))
    })?;
    // One that is published already gets it now.
    if is_signed(client).await.map_err(Unopened::Other)? {
        return Ok(());
    }
    verify(client).await.map_err(Unopened::Other)
}

/// Signs the own device with the identity's private keys in the store, and publishes the signature.
async fn verify(client: &Client) -> anyhow::Result<()> {
    let device = client.encryption().get_own_device().await.context("the own device cannot be read")?;
    device.context("the own device is not in the store")?.verify().await.context("the signature was refused")
}

async fn secret(store: &SecretStore, name: SecretName) -> Result<String, Unopened> {
    match store.get_secret(name.clone()).await {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(Unopened::Key(format!("it opens no {name}"))),
        Err(error) => Err(Unopened::Other(anyhow::Error::from(error).context(format!("{name} cannot be read")))),
    }
}

/// The public half of an ed25519 seed, both in base64.
fn public_of(seed: &str) -> Option<String> {
    let bytes: Box<[u8; 32]> = BASE64.decode(seed).ok()?.try_into().ok().map(Box::new)?;
    Some(STANDARD_NO_PAD.encode(Ed25519SecretKey::from_slice(&bytes).public_key().as_bytes()))
}

/// Puts the identity's keys into secret storage where none is, and says what to do about the recovery key. A configured key is
/// only tried by [`try_key`], which may take a while.
async fn keep_recoverable(
    client: &Client,
    configured: Option<&Secret>,
    folder: &Folder,
) -> anyhow::Result<Option<Advice>> {
    let private = has_private_keys(client).await;
    let storage = client.encryption().secret_storage();
    let mut kept = folder.recovery_key()?;
    // Left by a start that was cut off between a new storage and its key, or by somebody who wants a new one.
    let requested = configured.is_none() && kept.is_none() && folder.recovery_request().exists();
    if private && (requested || !storage.is_enabled().await.context("the secret storage cannot be looked for")?) {
        let given = configured.map(|key| key.expose().trim().to_owned()).or_else(|| kept.clone());
        let create = storage.create_secret_store();
        if let Some(key) = given {
            create.with_passphrase(&key).await.context("the secret storage could not be made")?;
        } else {
            folder.request_recovery_key()?;
            let made = create.await.context("the secret storage could not be made")?;
            folder.save_recovery_key(&made.secret_storage_key())?;
            kept = Some(made.secret_storage_key());
        }
        info!("put the identity's keys into secret storage");
    }
    if configured.is_some() || kept.is_some() {
        folder.drop_recovery_request()?;
    }
    Ok(match (configured, kept) {
        (Some(_), _) => None,
        (None, Some(_)) => Some(Advice::KeyOnVolume { file: folder.recovery_file() }),
        (None, None) => Some(Advice::KeyMissing { request: private.then(|| folder.recovery_request()) }),
    })
}

/// Does what [`sign_own_device`] left undone about the recovery key of a signed device, and tries a configured one: a key
/// that does not fit is noticed while its volume is still there.
///
/// # Errors
/// Where the homeserver does not answer: try again later.
pub(super) async fn look_after_key(client: &Client, matrix: &config::Matrix) -> anyhow::Result<Option<Advice>> {
    let folder = Folder::open(&matrix.store)?;
    let advice = keep_recoverable(client, matrix.recovery_key.as_ref(), &folder).await?;
    match &matrix.recovery_key {
        Some(key) => try_key(client, key, &folder).await,
        None => Ok(advice),
    }
}

async fn try_key(client: &Client, key: &Secret, folder: &Folder) -> anyhow::Result<Option<Advice>> {
    let own = client.user_id().context("there is no login")?;
    let identity = client.encryption().get_user_identity(own).await?;
    let master = identity.and_then(|identity| Some(identity.master_key().get_first_key()?.to_base64()));
    match open(client, key.expose().trim(), &master.unwrap_or_default()).await {
        Ok(_) => Ok(folder.recovery_key()?.map(|_| Advice::KeyTwice { file: folder.recovery_file() })),
        Err(Unopened::Key(why)) => Ok(Some(Advice::KeyUnfit { why })),
        Err(Unopened::Other(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_half_of_a_seed_is_found_with_and_without_padding() {
        let seed = [7_u8; 32];
        let expected = STANDARD_NO_PAD.encode(Ed25519SecretKey::from_slice(&seed).public_key().as_bytes());
        let padded = base64::engine::general_purpose::STANDARD.encode(seed);
        assert_eq!(public_of(&padded).as_deref(), Some(expected.as_str()));
        assert_eq!(public_of(padded.trim_end_matches('=')).as_deref(), Some(expected.as_str()));
        assert_eq!(public_of("not a seed"), None);
    }
}
