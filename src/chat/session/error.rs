//! Why the room cannot be opened, each with its way out.

use std::path::PathBuf;
use std::time::Duration;

/// Why the room cannot be opened. Every message ends with what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process holds the store.
    #[error(
        "another process still holds the Matrix store after {} s ({}): stop it first; two processes on one store would \
         break its encryption",
        .waited.as_secs(), .path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The store folder cannot be used.
    #[error("{} cannot be read or written: {source}; matrix.store must name a folder that this user may write", .path.display())]
    Folder {
        /// File or folder.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The HTTP client cannot be built.
    #[error(
        "no connection to a homeserver can be made: {why}; check matrix.ca_file, matrix.proxy and the system's CA certificates"
    )]
    Http {
        /// The cause.
        why: String,
    },
    /// The file with the tokens is damaged.
    #[error(
        "{} is not a session file: {why}; delete session.json, store.key and matrix/ in the store folder (leave recovery.key and \
         pilothouse.sqlite3): the next start logs in as a new device and recovers with the recovery key", .path.display()
    )]
    SessionUnreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A Matrix store without the session that it belongs to.
    #[error(
        "there is a Matrix store in {} but no session.json beside it: put the file back, or delete store.key and matrix/ there (leave \
         recovery.key and pilothouse.sqlite3); the next start then logs in as a new device and recovers with the recovery key", .folder.display()
    )]
    SessionLost {
        /// The store folder.
        folder: PathBuf,
    },
    /// A session without its Matrix store.
    #[error(
        "the Matrix store of device {device} is gone (is the volume mounted? {}); its encryption keys cannot be made again. If it \
         is lost for good, delete session.json there: the next start logs in as a new device and recovers with the recovery key. \
         Never bring a Matrix store back from a backup", .folder.display()
    )]
    StoreLost {
        /// The device.
        device: String,
        /// The store folder.
        folder: PathBuf,
    },
    /// The configured token's device was used with another store.
    #[error(
        "the store is empty, but the homeserver knows device {device} of the configured access token with other keys: a lost \
         store of a token cannot be cured, since nobody could encrypt to that device any more. Make a new access token with a \
         new device, configure both, and give the recovery key"
    )]
    TokenStoreLost {
        /// The device.
        device: String,
    },
    /// The device has other keys than it had.
    #[error(
        "device {device} had the key {expected} and the Matrix store has {found}: the store was replaced or lost in part. Stop \
         everything that uses this login, delete session.json, store.key and matrix/ in the store folder (leave recovery.key and \
         pilothouse.sqlite3) and start again: a new device, recovered with the recovery key"
    )]
    DeviceKeyChanged {
        /// The device.
        device: String,
        /// The key that was saved or is published.
        expected: String,
        /// The key of the store.
        found: String,
    },
    /// SQLite cannot read the store.
    #[error(
        "the Matrix store in {} is damaged: {why}. It cannot be repaired, and a backup of it must not be used; delete \
         session.json, store.key and matrix/ there (leave recovery.key and pilothouse.sqlite3): the next start logs in as a new \
         device and recovers with the recovery key", .folder.display()
    )]
    StoreCorrupted {
        /// The store folder.
        folder: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// SQLite cannot use the store now, and nothing says that it is damaged.
    #[error(
        "the Matrix store in {} cannot be used now: {why}. Look at its volume (is it mounted, has it space, may this user write \
         it, does a backup tool hold the files?) and start again; delete nothing", .folder.display()
    )]
    StoreUnavailable {
        /// The store folder.
        folder: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// The store belongs to someone else.
    #[error(
        "the store belongs to {found}, the configuration asks for {expected}: let matrix.store name the right folder, or an empty \
         one for a new device"
    )]
    StoreForeign {
        /// Account or device of the configuration.
        expected: String,
        /// Account or device of the store.
        found: String,
    },
    /// `store.key` does not open the store.
    #[error(
        "{} is missing or does not open the Matrix store beside it: put the right file back, or delete session.json, \
         store.key and matrix/ there (leave recovery.key and pilothouse.sqlite3); the next start then logs in as a new device and \
         recovers with the recovery key", .path.display()
    )]
    WrongStoreKey {
        /// The key file.
        path: PathBuf,
    },
    /// The homeserver refused the login.
    #[error(
        "the homeserver refuses the login: {why}; check matrix.user and its password, token or JWT (it is not tried again by itself)"
    )]
    LoginRefused {
        /// Its words.
        why: String,
    },
    /// The homeserver limits logins, for longer than whoever asks wants to wait.
    #[error("the homeserver limits logins and asks to wait {} s: nothing has to be changed, try again then", .wait.as_secs())]
    Limited {
        /// How long.
        wait: Duration,
    },
    /// Whoever wanted to log in has gone, and no login was made.
    #[error("interrupted before the login")]
    Interrupted,
    /// No answer that says anything, and whoever asks does not wait for one.
    #[error("no usable answer: {why}")]
    Unanswered {
        /// Who was asked, and what came.
        why: String,
    },
    /// The JSON Web Token could not be had.
    #[error("no token for the login: {why}")]
    TokenSource {
        /// The cause and the remedy.
        why: String,
    },
    /// The login is another account than configured.
    #[error("the login belongs to {found}, matrix.user says {expected}: correct one of them")]
    OtherAccount {
        /// `matrix.user`.
        expected: String,
        /// What the homeserver says.
        found: String,
    },
    /// The access token belongs to another device than configured.
    #[error(
        "the access token belongs to {found}, matrix.device_id says {expected}: correct it, or make a token with that device"
    )]
    OtherDevice {
        /// The configured device.
        expected: String,
        /// What the homeserver says.
        found: String,
    },
    /// The homeserver ended the device.
    #[error(
        "the homeserver has ended device {device} (signed out, or deleted by an administrator): nothing is lost but the device. \
         Delete session.json, store.key and matrix/ in {} (leave recovery.key and pilothouse.sqlite3) and start again: a new \
         device, recovered with the recovery key", .folder.display()
    )]
    HardLogout {
        /// The device.
        device: String,
        /// The store folder.
        folder: PathBuf,
    },
    /// The homeserver does not take the configured access token any more.
    #[error(
        "the homeserver does not take the access token of device {device} any more. If the device still exists (another \
         client of the account lists it), configure a new token of the same device and start again. If it was deleted, delete \
         session.json, store.key and matrix/ in {} (leave recovery.key and pilothouse.sqlite3) and configure a new token with a \
         new device: it is recovered with the recovery key", .folder.display()
    )]
    TokenEnded {
        /// The device.
        device: String,
        /// The store folder.
        folder: PathBuf,
    },
    /// A configured access token ended and nothing can make a new one.
    #[error(
        "the access token of device {device} has expired: make a new one for the same device, or configure a password or JWT login"
    )]
    TokenExpired {
        /// The device.
        device: String,
    },
    /// The account has a cross-signing identity and the key to it is not given.
    #[error(
        "{user} already has a cross-signing identity, and this new device cannot be signed without its recovery key: set \
         matrix.recovery_key (or its file). If nobody has it, log in to the account with another client, reset the identity there \
         (Element: Settings, Encryption), and set matrix.recovery_key to the key that this gives. To go on unsigned, set \
         matrix.require_signed_device = false"
    )]
    NoRecoveryKey {
        /// The account.
        user: String,
    },
    /// The recovery key does not fit.
    #[error(
        "the recovery key in {place} does not open the identity of {user}: {why}. Set matrix.recovery_key to the right one; if \
         nobody has it, log in to the account with another client, reset the identity there (Element: Settings, Encryption), and \
         set matrix.recovery_key to the key that this gives"
    )]
    WrongRecoveryKey {
        /// The account.
        user: String,
        /// Where the key came from: a configuration key or a file.
        place: String,
        /// The cause.
        why: String,
    },
    /// The device could not be signed for another reason.
    #[error(
        "the own device {device} is not signed by its owner: {why}; without that nobody can trust it. Set \
         matrix.require_signed_device = false to go on all the same"
    )]
    Unsigned {
        /// The device.
        device: String,
        /// The cause.
        why: String,
    },
    /// Anything else that the homeserver or the SDK says.
    #[error(
        "the Matrix session cannot be opened: {why}; start again, and if it stays so, look at the homeserver's own log for this \
         request"
    )]
    Other {
        /// The cause.
        why: String,
    },
}
