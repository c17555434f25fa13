//! One process per Matrix store: two would fork its encryption state, and the SDK does not notice.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::error::OpenError;

/// The file that is locked, in the store folder.
const FILE: &str = "matrix.lock";
/// How often a held lock is tried again.
const EVERY: Duration = Duration::from_millis(200);

/// The lock of a store folder, held until it is dropped (or the process ends, however it ends).
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a folder that exists; waits up to `patience` for the process before, which may be on its way out.
    ///
    /// # Errors
    /// [`OpenError::Locked`] where the other process stays, [`OpenError::Folder`] where the file cannot be made.
    pub async fn take(folder: &Path, patience: Duration) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let file = open(&path).map_err(|source| OpenError::Folder { path: path.clone(), source })?;
        let since = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(OpenError::Folder { path, source }),
                Err(TryLockError::WouldBlock) if since.elapsed() >= patience => {
                    return Err(OpenError::Locked { path, waited: patience });
                }
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        told = true;
                        info!(path = %path.display(), ?patience, "another process holds the Matrix store, waiting for it");
                    }
                    tokio::time::sleep(EVERY.min(patience)).await;
                }
            }
        }
    }
}

/// Says whether a process holds the Matrix store in this folder now: what runs beside the daemon leaves it alone then.
#[must_use]
pub fn lock_held(folder: &Path) -> bool {
    let path: PathBuf = folder.join(FILE);
    if !path.exists() {
        return false;
    }
    matches!(open(&path).map(|file| file.try_lock()), Ok(Err(TryLockError::WouldBlock)))
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_holder_waits_and_then_reads_who_is_in_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!lock_held(folder.path()));
        let first = Lock::take(folder.path(), Duration::ZERO).await.expect("the first gets it");
        assert!(lock_held(folder.path()));
        let refused = Lock::take(folder.path(), Duration::from_millis(50)).await.expect_err("the second does not");
        assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
        let (second, ()) = tokio::join!(Lock::take(folder.path(), Duration::from_secs(10)), async { drop(first) });
        second.expect("it gets the lock when the first is gone");
    }
}
