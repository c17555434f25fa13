//! The own device signed by its owner, from its first minute and over a lost volume.
//!
//! The account's cross-signing identity is made once, by the first device, and its private keys are kept on the homeserver
//! in secret storage, which the recovery key opens. No key backup is made: a bot needs no history, and keys out of a
//! backup prove no sender.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use matrix_sdk::Client;
use matrix_sdk::encryption::secret_storage::{SecretStorageError, SecretStore};
use matrix_sdk::encryption::vodozemac::Ed25519SecretKey;
use matrix_sdk::ruma::api::client::uiaa;
use matrix_sdk::ruma::events::secret::request::SecretName;
use matrix_sdk_base::crypto::types::{CrossSigningSecrets, SecretsBundle};
use tracing::info;

use super::outside::{Served, served};
use super::session::{Folder, OpenError, Wire, patiently};
use crate::config::{self, Login, Secret};

/// Base64 with or without padding: clients write both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// Has the own device signed: makes the account's identity where it has none, else signs with the recovery key.
///
/// What the homeserver serves counts. The store alone calls the device signed also when its identity was made here and
/// never published, because the homeserver refused it or the start was interrupted.
///
/// Gives what the operator of the machine should do about the recovery key.
pub(super) async fn sign_own_device(
    client: &Client,
    wire: &Wire,
    matrix: &config::Matrix,
    folder: &Folder,
) -> Result<Vec<String>, OpenError> {
    let Some(own) = client.user_id().map(ToOwned::to_owned) else {
        return Err(OpenError::Other { why: "there is no login".to_owned() });
    };
    let user = own.to_string();
    let device = client.device_id().map(ToString::to_string).unwrap_or_default();
    let unsigned = |error: anyhow::Error| OpenError::Unsigned { device: device.clone(), why: format!("{error:#}") };

    let served = served_own(client, wire, &user).await.map_err(unsigned)?;
    if !(is_signed(client).await.map_err(unsigned)? && served.has_signed(&device)) {
        let identity = client.encryption().request_user_identity(&own).await.map_err(|error| unsigned(error.into()))?;
        let master = identity.and_then(|identity| Some(identity.master_key().get_first_key()?.to_base64()));
        let own_private = client.encryption().cross_signing_status().await.is_some_and(|status| status.is_complete());
        match &served.master {
            // Signed from elsewhere, and only now known here.
            Some(_) if is_signed(client).await.map_err(unsigned)? && served.has_signed(&device) => {}
            // None yet, or this device's own, of which something was not published.
            published if published.is_none() || (own_private && *published == master) => {
                bootstrap(client, matrix).await.map_err(unsigned)?;
                info!("made the account's cross-signing identity");
            }
            published => {
                let key = match &matrix.recovery_key {
                    Some(key) => key.expose().trim().to_owned(),
                    None => folder.recovery_key()?.ok_or_else(|| OpenError::NoRecoveryKey { user: user.clone() })?,
                };
                let master = published.clone().unwrap_or_default();
                recover(client, &key, &master).await.map_err(|error| match error {
                    Failed::Key(why) => OpenError::WrongRecoveryKey { user: user.clone(), why },
                    Failed::Other(error) => unsigned(error),
                })?;
                info!("signed the own device with the recovery key");
            }
        }
        client.encryption().request_user_identity(&own).await.map_err(|error| unsigned(error.into()))?;
        let served = served_own(client, wire, &user).await.map_err(unsigned)?;
        if !(is_signed(client).await.map_err(unsigned)? && served.has_signed(&device)) {
            return Err(unsigned(anyhow::anyhow!("the homeserver does not serve its signature")));
        }
    }
    keep_recoverable(client, matrix.recovery_key.as_ref(), folder).await.map_err(unsigned)
}

/// What the homeserver serves for the own account.
async fn served_own(client: &Client, wire: &Wire, user: &str) -> anyhow::Result<Served> {
    let (token, user) = (client.access_token().unwrap_or_default(), user.to_owned());
    let answer = patiently("asking for the own keys", || wire.query_keys(&token, std::slice::from_ref(&user))).await;
    Ok(served(&answer.context("the own keys cannot be asked for")?, &user))
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

enum Failed {
    /// The key is wrong, or opens something else.
    Key(String),
    Other(anyhow::Error),
}

/// Fetches the identity's private keys with the recovery key and signs the own device.
async fn recover(client: &Client, key: &str, master: &str) -> Result<(), Failed> {
    let storage = client.encryption().secret_storage();
    let store = storage.open_secret_store(key).await.map_err(|error| match error {
        SecretStorageError::SecretStorageKey(error) => Failed::Key(error.to_string()),
        SecretStorageError::MissingKeyInfo { .. } => {
            Failed::Key("the account has no secret storage that a key could open".to_owned())
        }
        error => Failed::Other(anyhow::Error::from(error).context("the secret storage cannot be read")),
    })?;
    let master_key = secret(&store, SecretName::CrossSigningMasterKey).await?;
    if public_of(&master_key).as_deref() != Some(master) {
        return Err(Failed::Key("the keys that it opens belong to an identity that was replaced since".to_owned()));
    }
    let bundle = SecretsBundle {
        cross_signing: CrossSigningSecrets {
            master_key,
            user_signing_key: secret(&store, SecretName::CrossSigningUserSigningKey).await?,
            self_signing_key: secret(&store, SecretName::CrossSigningSelfSigningKey).await?,
        },
        backup: None,
    };
    // A device that is new to the homeserver is published with its signature at once.
    let other = |error: anyhow::Error| Failed::Other(error);
    client
        .encryption()
        .import_secrets_bundle(&bundle)
        .await
        .map_err(|error| other(anyhow::Error::from(error).context("the identity's keys cannot be imported")))?;
    if !is_signed(client).await.map_err(other)? {
        // One that is published already gets it now.
        let device = client.encryption().get_own_device().await.map_err(|error| other(error.into()))?;
        let device = device.ok_or_else(|| other(anyhow::anyhow!("the own device is not in the store")))?;
        device
            .verify()
            .await
            .map_err(|error| other(anyhow::Error::from(error).context("the signature was refused")))?;
    }
    Ok(())
}

async fn secret(store: &SecretStore, name: SecretName) -> Result<String, Failed> {
    match store.get_secret(name.clone()).await {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(Failed::Key(format!("it opens no {name}"))),
        Err(error) => Err(Failed::Other(anyhow::Error::from(error).context(format!("{name} cannot be read")))),
    }
}

/// The public half of an ed25519 seed, both in base64.
fn public_of(seed: &str) -> Option<String> {
    let bytes: Box<[u8; 32]> = BASE64.decode(seed).ok()?.try_into().ok().map(Box::new)?;
    Some(STANDARD_NO_PAD.encode(Ed25519SecretKey::from_slice(&bytes).public_key().as_bytes()))
}

/// Puts the identity's keys into secret storage where none is, and says where the recovery key should be.
async fn keep_recoverable(
    client: &Client,
    configured: Option<&Secret>,
    folder: &Folder,
) -> anyhow::Result<Vec<String>> {
    let file = folder.recovery_file();
    let private = client.encryption().cross_signing_status().await.is_some_and(|status| status.is_complete());
    let storage = client.encryption().secret_storage();
    // An empty file was written before a storage whose key nobody has: a start was interrupted between the two.
    let kept = folder.recovery_key()?;
    let interrupted = configured.is_none() && file.exists() && kept.is_none();
    if private && (interrupted || !storage.is_enabled().await?) {
        let given = configured.map(|key| key.expose().trim().to_owned()).or(kept);
        if let Some(key) = given {
            storage
                .create_secret_store()
                .with_passphrase(&key)
                .await
                .context("the secret storage could not be made")?;
        } else {
            folder.save_recovery_key("")?;
            let made = storage.create_secret_store().await.context("the secret storage could not be made")?;
            folder.save_recovery_key(&made.secret_storage_key())?;
        }
        info!("put the identity's keys into secret storage");
    }
    Ok(match (configured, file.exists()) {
        (Some(_), true) => vec![format!(
            "the recovery key is configured now: delete {}, which would be lost or stolen with the volume",
            file.display()
        )],
        (Some(_), false) => Vec::new(),
        (None, true) => vec![format!(
            "the recovery key lies on the same volume as what it recovers: move {} into matrix.recovery_key (a Secret)",
            file.display()
        )],
        (None, false) => vec![
            "no recovery key is configured: if the volume is lost, the next device cannot be signed; set matrix.recovery_key"
                .to_owned(),
        ],
    })
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
