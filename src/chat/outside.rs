//! What runs beside a running daemon (`check`, `trust`): plain HTTP with the saved token. It refreshes nothing, because a
//! second process that does would take the daemon's tokens away, and it leaves the Matrix store alone.

use std::collections::BTreeMap;
use std::path::Path;

use matrix_sdk::encryption::vodozemac::{Ed25519PublicKey, Ed25519Signature};
use matrix_sdk::ruma::CanonicalJsonValue;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::session::{Folder, OpenError, Patience, Saved, Wire, WireError, first_login, kept, same_user};
use crate::config::{self, Login, Secret};
use crate::store::pins::SeenDevice;

/// The homeserver, asked from outside.
#[derive(Debug)]
pub struct Outside {
    wire: Wire,
    matrix: config::Matrix,
    token: Secret,
    temporary: bool,
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// With which login.
    pub by: Entrance,
}

/// With which login somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// The one that the daemon has saved.
    Saved,
    /// The configured access token, on the device that the daemon works with.
    Token,
    /// The configured access token, with which no start has made a device yet.
    NewToken,
    /// One made for this alone: [`Outside::leave`] logs out again.
    Temporary,
}

impl Entrance {
    /// Whether no start has made the daemon's device yet.
    #[must_use]
    pub fn is_before_the_first_start(self) -> bool {
        matches!(self, Self::NewToken | Self::Temporary)
    }
}

/// What the homeserver serves for one person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Public master key, unpadded base64; `None` without a cross-signing identity.
    pub master: Option<String>,
    /// Devices, `signed` where the signature of the self-signing key, itself signed by the master key, is right.
    pub devices: Vec<SeenDevice>,
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
pub enum Fault {
    /// The saved access token has run out, as such tokens do while nobody uses them. Only the daemon may renew it.
    #[error("the saved access token has expired while nobody used it; the daemon renews it")]
    Expired,
    /// The daemon would not start so; the sentence ends with what to do.
    #[error("{0}")]
    Unusable(String),
    /// No answer, or a limit: the daemon waits for that.
    #[error("{0}")]
    Unanswered(String),
    /// Whoever asked has gone, and no login was made.
    #[error("interrupted before the login")]
    Interrupted,
    /// Anything else.
    #[error("{0}")]
    Said(String),
}

impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Interrupted => Self::Interrupted,
            OpenError::Limited { .. } | OpenError::Unanswered { .. } => Self::Unanswered(error.to_string()),
            error => Self::Unusable(error.to_string()),
        }
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Interrupted => Self::Interrupted,
            WireError::Refused { .. } => Self::Said(error.to_string()),
            WireError::Unreachable(_) | WireError::Limited(_) | WireError::Strange(_) => {
                Self::Unanswered(error.to_string())
            }
        }
    }
}

impl Outside {
    /// Prepares to ask.
    ///
    /// # Errors
    /// Where the CA file or the proxy cannot be used.
    pub fn new(matrix: &config::Matrix) -> Result<Self, Fault> {
        Ok(Self { wire: Wire::new(matrix)?, matrix: matrix.clone(), token: Secret::new(""), temporary: false })
    }

    /// Lists the versions of the specification that the homeserver speaks.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn versions(&self) -> Result<Vec<String>, Fault> {
        Ok(self.wire.versions().await?)
    }

    /// Takes the login that the daemon would go on with; before its first start the configured token, or a login for this
    /// alone. Each is judged as the daemon's start judges it.
    ///
    /// `end`: whoever asks has gone, and no login is made any more.
    ///
    /// # Errors
    /// Where the daemon would not start with it.
    pub async fn enter(&mut self, end: &CancellationToken) -> Result<Entered, Fault> {
        let is_token = matches!(self.matrix.login, Login::Token { .. });
        let (saved, by) = if let Some(saved) = kept_in(&self.matrix)? {
            (saved, if is_token { Entrance::Token } else { Entrance::Saved })
        } else {
            let by = if is_token { Entrance::NewToken } else { Entrance::Temporary };
            (first_login(&self.matrix, &self.wire, Patience::Brief(end)).await?, by)
        };
        let renewable = saved.refresh_token.is_some() || !is_token;
        // From here on there is something to log out again.
        self.token = Secret::new(saved.access_token);
        self.temporary = by == Entrance::Temporary;
        let whoami = self.wire.whoami(self.token.expose()).await.map_err(|error| match (error, renewable) {
            (WireError::Refused { soft_logout: true, .. }, true) => Fault::Expired,
            (WireError::Refused { soft_logout: true, .. }, false) => {
                Fault::Said("the configured access token has expired: make a new one for the same device".to_owned())
            }
            (error, _) => error.into(),
        })?;
        let device = whoami.device_id.ok_or_else(|| {
            Fault::Said(
                "the access token belongs to no device, so nothing can be encrypted with it; make one with a device"
                    .to_owned(),
            )
        })?;
        let entered = Entered { user: whoami.user_id, device, by };
        if !same_user(&self.matrix.user, &entered.user) {
            return Err(Fault::Said(format!(
                "the login is {}'s, but matrix.user is {}",
                entered.user, self.matrix.user
            )));
        }
        Ok(entered)
    }

    /// Asks what the homeserver serves for these people; of whose own homeserver it has no answer, there is nothing.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn keys(&self, users: &[String]) -> Result<BTreeMap<String, Served>, Fault> {
        let answer = self.wire.query_keys(self.token.expose(), users).await?;
        let is_answered = |user: &&String| {
            let server = user.split_once(':').map_or("", |(_, server)| server);
            // A homeserver may have what it asked for before.
            answer["failures"].get(server).is_none() || answer["device_keys"].get(user.as_str()).is_some()
        };
        let answered = users.iter().filter(is_answered);
        Ok(answered.map(|user| (user.clone(), served(&answer, user))).collect())
    }

    /// Lists the rooms that the bot has joined.
    ///
    /// # Errors
    /// Where the homeserver does not answer.
    pub async fn rooms(&self) -> Result<Vec<Room>, Fault> {
        let joined = self.wire.read(self.token.expose(), "joined_rooms").await?;
        let mut rooms = Vec::new();
        for id in joined["joined_rooms"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let segment = segment(id);
            let encrypted =
                match self.wire.read(self.token.expose(), &format!("rooms/{segment}/state/m.room.encryption/")).await {
                    Ok(_) => true,
                    Err(WireError::Refused { status: 404, .. }) => false,
                    Err(error) => return Err(error.into()),
                };
            let members = self.wire.read(self.token.expose(), &format!("rooms/{segment}/joined_members")).await?;
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
        self.wire.logout(self.token.expose()).await.map_err(|error| {
            Fault::Said(format!(
                "the device that was made for this could not be logged out ({error}); remove it by hand"
            ))
        })
    }
}

/// Says whether a login is saved in the folder.
///
/// # Errors
/// Where the file cannot be read.
pub fn is_logged_in(store: &Path) -> Result<bool, Fault> {
    Ok(store.is_dir() && Folder::open(store)?.session()?.is_some())
}

/// Says whether the daemon would go on with a saved login, by what lies in the folder: the Matrix store is not opened.
///
/// # Errors
/// Where its start would stop, with the way out.
pub fn look_at_files(matrix: &config::Matrix) -> Result<bool, Fault> {
    let saved = kept_in(matrix)?;
    if saved.is_some() {
        Folder::open(&matrix.store)?.key_of_a_store()?;
    }
    Ok(saved.is_some())
}

fn kept_in(matrix: &config::Matrix) -> Result<Option<Saved>, Fault> {
    // A folder that is not there is not made: the daemon makes it, for its own user.
    if !matrix.store.is_dir() {
        return Ok(None);
    }
    Ok(kept(matrix, &Folder::open(&matrix.store)?)?)
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
