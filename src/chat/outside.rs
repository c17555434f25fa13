//! What runs beside a running daemon (`check`, `trust`): plain HTTP with the saved token. It refreshes nothing, because a
//! second process that does would take the daemon's tokens away, and it leaves the Matrix store alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use matrix_sdk::encryption::vodozemac::{Ed25519PublicKey, Ed25519Signature};
use matrix_sdk::ruma::CanonicalJsonValue;
use serde_json::Value;

use super::session::{Folder, OpenError, Saved, Wire, WireError, credentials, same_user};
use crate::config::{self, Login};
use crate::store::pins::SeenDevice;

/// A limit on logins that ends sooner is waited for; somebody watches.
const LIMIT_PATIENCE: Duration = Duration::from_secs(30);

/// The homeserver, asked from outside.
#[derive(Debug)]
pub struct Outside {
    wire: Wire,
    matrix: config::Matrix,
    token: String,
    temporary: bool,
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// Logged in for this alone: [`Outside::leave`] logs out again.
    pub temporary: bool,
}

/// What the homeserver serves for one person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Public master key, unpadded base64; `None` without a cross-signing identity.
    pub master: Option<String>,
    /// Devices, `signed` where the signature of the self-signing key, itself signed by the master key, is right.
    pub devices: Vec<SeenDevice>,
}

impl Served {
    /// Says whether a device is served with its owner's signature.
    pub(super) fn has_signed(&self, device: &str) -> bool {
        self.devices.iter().any(|served| served.device == device && served.signed)
    }
}

/// A room that the bot has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Room id.
    pub id: String,
    /// Whether messages are encrypted there.
    pub encrypted: bool,
    /// Full user ids of those who have joined.
    pub members: Vec<String>,
}

/// Why the homeserver could not be asked, in a sentence with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(String);

impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        Self(error.to_string())
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self(error.to_string())
    }
}

impl Outside {
    /// Prepares to ask.
    ///
    /// # Errors
    /// Where the CA file or the proxy cannot be used.
    pub fn new(matrix: &config::Matrix) -> Result<Self, Fault> {
        Ok(Self { wire: Wire::new(matrix)?, matrix: matrix.clone(), token: String::new(), temporary: false })
    }

    /// Lists the versions of the specification that the homeserver speaks.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn versions(&self) -> Result<Vec<String>, Fault> {
        Ok(self.wire.versions().await?)
    }

    /// Takes the saved token, else the configured one, else logs in for this alone.
    ///
    /// # Errors
    /// Where the homeserver does not accept it, or it belongs to somebody else.
    pub async fn enter(&mut self) -> Result<Entered, Fault> {
        let saved = saved(&self.matrix.store)?;
        let (token, temporary) = match (saved, &self.matrix.login) {
            (Some(saved), _) => (saved.access_token, false),
            (None, Login::Token { access_token, .. }) => (access_token.expose().to_owned(), false),
            (None, _) => {
                let credentials = credentials(&self.matrix).await?;
                let credentials = credentials.ok_or_else(|| Fault("there is no way to log in".to_owned()))?;
                let login = match self.wire.login(&credentials, None).await {
                    Err(WireError::Limited(wait)) if wait <= LIMIT_PATIENCE => {
                        tokio::time::sleep(wait).await;
                        self.wire.login(&credentials, None).await
                    }
                    login => login,
                };
                (login?.access_token, true)
            }
        };
        // From here on there is something to log out again.
        self.token = token;
        self.temporary = temporary;
        let whoami = self.wire.whoami(&self.token).await?;
        let device = whoami.device_id.ok_or_else(|| {
            Fault(
                "the access token belongs to no device, so nothing can be encrypted with it; make one with a device"
                    .to_owned(),
            )
        })?;
        let entered = Entered { user: whoami.user_id, device, temporary };
        if !same_user(&self.matrix.user, &entered.user) {
            return Err(Fault(format!("the login is {}'s, but matrix.user is {}", entered.user, self.matrix.user)));
        }
        Ok(entered)
    }

    /// Asks what the homeserver serves for these people.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn keys(&self, users: &[String]) -> Result<BTreeMap<String, Served>, Fault> {
        let answer = self.wire.query_keys(&self.token, users).await?;
        Ok(users.iter().map(|user| (user.clone(), served(&answer, user))).collect())
    }

    /// Lists the rooms that the bot has joined.
    ///
    /// # Errors
    /// Where the homeserver does not answer.
    pub async fn rooms(&self) -> Result<Vec<Room>, Fault> {
        let joined = self.wire.read(&self.token, "joined_rooms").await?;
        let mut rooms = Vec::new();
        for id in joined["joined_rooms"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let segment = segment(id);
            let encrypted =
                match self.wire.read(&self.token, &format!("rooms/{segment}/state/m.room.encryption/")).await {
                    Ok(_) => true,
                    Err(WireError::Refused { status: 404, .. }) => false,
                    Err(error) => return Err(error.into()),
                };
            let members = self.wire.read(&self.token, &format!("rooms/{segment}/joined_members")).await?;
            let members =
                members["joined"].as_object().map(|joined| joined.keys().cloned().collect()).unwrap_or_default();
            rooms.push(Room { id: id.to_owned(), encrypted, members });
        }
        Ok(rooms)
    }

    /// Logs out again what was logged in for this alone: no new device stays behind.
    ///
    /// # Errors
    /// Where the homeserver does not answer: then the device stays, and the message says so.
    pub async fn leave(self) -> Result<(), Fault> {
        if !self.temporary {
            return Ok(());
        }
        self.wire.logout(&self.token).await.map_err(|error| {
            Fault(format!("the device that was made for this could not be logged out ({error}); remove it by hand"))
        })
    }
}

/// Gives the path of the recovery key that Pilothouse made and that nobody has moved off the volume yet.
#[must_use]
pub fn recovery_key_on_the_volume(store: &Path) -> Option<PathBuf> {
    // Looking makes nothing: the folder is the daemon's to make.
    let path = store.is_dir().then(|| Folder::open(store).ok())??.recovery_file();
    path.is_file().then_some(path)
}

/// Says whether a login is saved in the folder.
///
/// # Errors
/// Where the file cannot be read.
pub fn is_logged_in(store: &Path) -> Result<bool, Fault> {
    saved(store).map(|saved| saved.is_some())
}

fn saved(store: &Path) -> Result<Option<Saved>, Fault> {
    if !store.is_dir() {
        return Ok(None);
    }
    Ok(Folder::open(store)?.session()?)
}

/// Escapes a room id for a path.
fn segment(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes()).collect()
}

/// Reads a `/keys/query` answer for one person, and believes signatures only after verifying them.
pub(super) fn served(answer: &Value, user: &str) -> Served {
    let master = single_key(&answer["master_keys"][user]);
    let self_signing = single_key(&answer["self_signing_keys"][user]).filter(|_| {
        master.as_deref().is_some_and(|master| is_signed(&answer["self_signing_keys"][user], user, master))
    });
    let devices = answer["device_keys"][user].as_object().into_iter().flatten().filter_map(|(device, keys)| {
        let ed25519 = keys["keys"][format!("ed25519:{device}")].as_str()?.to_owned();
        let name = keys["unsigned"]["device_display_name"].as_str().map(str::to_owned);
        let signed = self_signing.as_deref().is_some_and(|key| is_signed(keys, user, key));
        Some(SeenDevice { device: device.clone(), ed25519, name, signed })
    });
    Served { devices: devices.collect(), master }
}

fn single_key(key: &Value) -> Option<String> {
    key["keys"].as_object()?.values().next()?.as_str().map(str::to_owned)
}

/// Verifies the signature of a key over an object (Matrix specification, appendix "Signing JSON").
fn is_signed(object: &Value, user: &str, key: &str) -> bool {
    let Some(signature) = object["signatures"][user][format!("ed25519:{key}")].as_str() else { return false };
    let mut plain = object.clone();
    if let Some(fields) = plain.as_object_mut() {
        fields.remove("signatures");
        fields.remove("unsigned");
    }
    let (Ok(key), Ok(signature)) = (Ed25519PublicKey::from_base64(key), Ed25519Signature::from_base64(signature))
    else {
        return false;
    };
    let Ok(canonical) = CanonicalJsonValue::try_from(plain) else { return false };
    key.verify(canonical.to_string().as_bytes(), &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use matrix_sdk::encryption::vodozemac::Ed25519SecretKey;
    use serde_json::json;

    use super::*;

    /// Signs an object as a client does.
    fn sign(mut object: Value, user: &str, key: &Ed25519SecretKey) -> Value {
        let canonical = CanonicalJsonValue::try_from(object.clone()).unwrap().to_string();
        let signature = key.sign(canonical.as_bytes()).to_base64();
        let public = key.public_key().to_base64();
        object["signatures"] = json!({ user: { format!("ed25519:{public}"): signature } });
        object
    }

    #[test]
    fn a_device_counts_as_signed_only_along_the_whole_chain() {
        let user = "@alice:hs";
        let (master, signing, other) = (Ed25519SecretKey::new(), Ed25519SecretKey::new(), Ed25519SecretKey::new());
        let key = |secret: &Ed25519SecretKey| {
            let public = secret.public_key().to_base64();
            json!({ "user_id": user, "keys": { format!("ed25519:{public}"): public } })
        };
        let device = |id: &str| json!({ "user_id": user, "device_id": id, "keys": { format!("ed25519:{id}"): "k" } });
        let answer = |signing_by: &Ed25519SecretKey, device_by: &Ed25519SecretKey| {
            json!({
                "master_keys": { user: key(&master) },
                "self_signing_keys": { user: sign(key(&signing), user, signing_by) },
                "device_keys": { user: { "A": sign(device("A"), user, device_by), "B": device("B") } },
            })
        };
        let signed = |answer: &Value| -> Vec<bool> { served(answer, user).devices.iter().map(|d| d.signed).collect() };
        assert_eq!(signed(&answer(&master, &signing)), [true, false]);
        assert_eq!(signed(&answer(&other, &signing)), [false, false]);
        assert_eq!(signed(&answer(&master, &other)), [false, false]);
        let mut forged = answer(&master, &signing);
        forged["device_keys"][user]["A"]["keys"]["ed25519:A"] = json!("another");
        assert_eq!(signed(&forged), [false, false]);
        assert_eq!(served(&answer(&master, &signing), user).master, Some(master.public_key().to_base64()));
        assert_eq!(served(&answer(&master, &signing), "@bob:hs"), Served::default());
    }
}
