//! What outlives a restart beside the Matrix store: the session's tokens and the key of the store.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::error::OpenError;
use super::logins::Logins;
use crate::file::{self, Readers};

/// The session file's name.
const SESSION: &str = "session.json";
/// The store key's name.
const KEY: &str = "store.key";
/// The Matrix store's folder.
const MATRIX: &str = "matrix";
/// The recovery key's name, where this program made one.
const RECOVERY: &str = "recovery.key";
/// Lies there while a recovery key is made; one that a start finds was left by a start that was cut off, or asks for a new key.
const RECOVERY_REQUEST: &str = "recovery.key.new";

/// A login as it is kept on disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    /// Full user id.
    pub(crate) user_id: String,
    /// Device id.
    pub(crate) device_id: String,
    /// Access token.
    pub(crate) access_token: String,
    /// Refresh token, where the homeserver gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_token: Option<String>,
    /// The device's ed25519 key, once the store was opened with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ed25519: Option<String>,
    /// When it logged in.
    #[serde(default)]
    pub(crate) logins: Logins,
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saved")
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

/// The store folder and the files that this module owns in it.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes the folder, readable by its owner alone, where there is none.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Folder { path: root.to_owned(), source };
        if !root.exists() {
            std::fs::create_dir_all(root).map_err(fail)?;
            restrict(root).map_err(fail)?;
        }
        Ok(Self { root: root.to_owned() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn session_file(&self) -> PathBuf {
        self.root.join(SESSION)
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.root.join(KEY)
    }

    pub(crate) fn recovery_file(&self) -> PathBuf {
        self.root.join(RECOVERY)
    }

    pub(crate) fn recovery_request(&self) -> PathBuf {
        self.root.join(RECOVERY_REQUEST)
    }

    pub(crate) fn matrix(&self) -> PathBuf {
        self.root.join(MATRIX)
    }

    /// Whether an encryption identity was ever stored here.
    pub(crate) fn has_matrix_store(&self) -> bool {
        self.matrix().join("matrix-sdk-crypto.sqlite3").exists()
    }

    /// Reads the saved login, where there is one.
    pub(crate) fn session(&self) -> Result<Option<Saved>, OpenError> {
        let path = self.session_file();
        let Some(text) = Self::read(&path)? else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| OpenError::SessionUnreadable { path, why: error.to_string() })
    }

    /// Writes the login: whole or not at all, and on the disk before this returns.
    pub(crate) fn save_session(&self, saved: &Saved) -> Result<(), OpenError> {
        let text = serde_json::to_string_pretty(saved).unwrap_or_default();
        write(&self.session_file(), &text)
    }

    /// Gives the store's key; makes one where there is neither a key nor a store.
    pub(crate) fn key(&self) -> Result<[u8; 32], OpenError> {
        if let Some(key) = self.key_of_a_store()? {
            return Ok(key);
        }
        let key: [u8; 32] = rand::random();
        write(&self.key_file(), &STANDARD.encode(key))?;
        Ok(key)
    }

    /// Reads the store's key; `None` where there is neither a key nor a store.
    pub(crate) fn key_of_a_store(&self) -> Result<Option<[u8; 32]>, OpenError> {
        let path = self.key_file();
        if let Some(text) = Self::read(&path)? {
            let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
            return bytes.map(Some).ok_or(OpenError::WrongStoreKey { path });
        }
        if self.has_matrix_store() { Err(OpenError::WrongStoreKey { path }) } else { Ok(None) }
    }

    /// Reads the recovery key that an earlier start made.
    pub(crate) fn recovery_key(&self) -> Result<Option<String>, OpenError> {
        Ok(Self::read(&self.recovery_file())?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    /// Writes a recovery key that was just made.
    pub(crate) fn save_recovery_key(&self, key: &str) -> Result<(), OpenError> {
        write(&self.recovery_file(), &format!("{key}\n"))
    }

    /// Notes that a recovery key is being made.
    pub(crate) fn request_recovery_key(&self) -> Result<(), OpenError> {
        write(&self.recovery_request(), "")
    }

    /// Notes that a recovery key is there.
    pub(crate) fn drop_recovery_request(&self) -> Result<(), OpenError> {
        match std::fs::remove_file(self.recovery_request()) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(OpenError::Folder { path: self.recovery_request(), source })
            }
            _ => Ok(()),
        }
    }

    fn read(path: &Path) -> Result<Option<String>, OpenError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OpenError::Folder { path: path.to_owned(), source }),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), OpenError> {
    file::replace(path, text, Readers::Owner).map_err(|source| OpenError::Folder { path: path.to_owned(), source })
}

#[cfg(unix)]
fn restrict(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn restrict(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        Saved {
            user_id: "@bot:example.org".to_owned(),
            device_id: "DEVICE".to_owned(),
            access_token: "secret-token".to_owned(),
            refresh_token: None,
            ed25519: None,
            logins: Logins::default(),
        }
    }

    #[test]
    fn a_session_comes_back_and_only_its_owner_reads_it() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(&root.path().join("store")).expect("it is made");
        assert_eq!(folder.session().expect("readable"), None);
        folder.save_session(&saved()).expect("written");
        assert_eq!(folder.session().expect("readable"), Some(saved()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(folder.session_file()).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(!format!("{:?}", saved()).contains("secret-token"));
    }

    #[test]
    fn the_store_key_is_made_once_and_never_beside_a_store() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(root.path()).expect("it is there");
        let key = folder.key().expect("made");
        assert_eq!(folder.key().expect("read"), key);
        std::fs::remove_file(folder.key_file()).expect("removed");
        std::fs::create_dir(folder.matrix()).expect("made");
        std::fs::write(folder.matrix().join("matrix-sdk-crypto.sqlite3"), "").expect("made");
        assert!(matches!(folder.key(), Err(OpenError::WrongStoreKey { .. })));
    }

    #[test]
    fn a_damaged_session_file_is_an_error_of_its_own() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(root.path()).expect("it is there");
        std::fs::write(folder.session_file(), "{").expect("written");
        assert!(matches!(folder.session(), Err(OpenError::SessionUnreadable { .. })));
    }
}
