//! The CLI's locks: directories whose age says whether somebody still holds them.
//!
//! The CLI takes `.oauth_refresh.lock` in its configuration directory, then the older `<directory>.lock` beside it. A lock
//! is touched every 5 s and counts for nothing after 60 s. The time is that of the machine: the kernel writes it into a new
//! lock before anybody else can.

use std::fs::{self, File, FileTimes};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::{SignedDuration, Timestamp};
use tokio::task::AbortHandle;

/// Lock inside the directory.
const INNER: &str = ".oauth_refresh.lock";
/// A lock that nobody has touched for so long is nobody's.
const STALE: SignedDuration = SignedDuration::from_secs(60);
/// So often a lock is touched.
const TOUCH: Duration = Duration::from_secs(5);

/// Both locks; they are given back when this is dropped.
#[derive(Debug)]
pub(super) struct Locks {
    // The inner one is taken first and given back last.
    held: Vec<Lock>,
    toucher: AbortHandle,
}

#[derive(Debug, Clone)]
struct Lock {
    path: PathBuf,
    /// The directory itself, kept open: as long as it is, no other gets its inode number, however soon one is made in its
    /// place. (The time at which a directory was made would tell too, but not every C library asks for it.)
    directory: Arc<File>,
    inode: u64,
}

impl Locks {
    /// Takes the locks of a configuration directory; `None` where somebody holds one.
    ///
    /// # Errors
    /// Where a lock can neither be made nor looked at.
    pub(super) fn take(directory: &Path, now: Timestamp) -> io::Result<Option<Self>> {
        let begun = Instant::now();
        let directory = directory.canonicalize()?;
        let Some(inner) = take_one(directory.join(INNER), now)? else { return Ok(None) };
        let mut held = vec![inner];
        let mut outer = directory.into_os_string();
        outer.push(".lock");
        match take_one(PathBuf::from(outer), now) {
            Ok(Some(lock)) => held.push(lock),
            Ok(None) => {
                held[0].give_back();
                return Ok(None);
            }
            // A directory that was mounted alone has no place beside it, for nobody.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {}
            Err(error) => {
                held[0].give_back();
                return Err(error);
            }
        }
        let locks = held.clone();
        let toucher = tokio::spawn(async move {
            loop {
                tokio::time::sleep(TOUCH).await;
                for lock in locks.iter().filter(|lock| lock.is_ours()) {
                    // One that cannot be touched grows stale, and whoever takes it then finds another token.
                    let _ = lock.touch(now, begun.elapsed());
                }
            }
        });
        Ok(Some(Self { held, toucher: toucher.abort_handle() }))
    }

    /// Says whether nobody has taken a lock for stale meanwhile.
    pub(super) fn are_ours(&self) -> bool {
        self.held.iter().all(Lock::is_ours)
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        self.toucher.abort();
        for lock in self.held.iter().rev() {
            lock.give_back();
        }
    }
}

impl Lock {
    fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }

    fn touch(&self, now: Timestamp, later: Duration) -> io::Result<()> {
        self.directory.set_times(FileTimes::new().set_modified(SystemTime::from(now) + later))
    }

    fn give_back(&self) {
        if self.is_ours() {
            // One that stays behind grows stale.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn take_one(path: PathBuf, now: Timestamp) -> io::Result<Option<Lock>> {
    for _ in 0..2 {
        match fs::create_dir(&path) {
            Ok(()) => {
                let directory = File::open(&path)?;
                let lock = Lock { inode: directory.metadata()?.ino(), directory: Arc::new(directory), path };
                // By the clock that the others judge it with.
                let _ = lock.touch(now, Duration::ZERO);
                return Ok(Some(lock));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match fs::symlink_metadata(&path) {
                Ok(found) if is_stale(&found, now)? => match fs::remove_dir(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
                Ok(_) => return Ok(None),
                // Given back just now.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn is_stale(found: &fs::Metadata, now: Timestamp) -> io::Result<bool> {
    let touched = Timestamp::try_from(found.modified()?).map_err(io::Error::other)?;
    // One that a clock which was ahead has dated would never grow old.
    Ok(now.duration_since(touched).abs() >= STALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[tokio::test]
    async fn both_locks_are_taken_once_and_given_back() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("config");
        fs::create_dir(&config).unwrap();
        let locks = Locks::take(&config, at(0)).unwrap().unwrap();
        assert!(config.join(INNER).is_dir() && root.path().join("config.lock").is_dir() && locks.are_ours());
        assert!(Locks::take(&config, at(59)).unwrap().is_none());
        drop(locks);
        assert!(!config.join(INNER).exists() && !root.path().join("config.lock").exists());
        assert!(Locks::take(&config, at(59)).unwrap().is_some());
    }

    #[tokio::test]
    async fn the_older_lock_alone_holds_it_too() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("config");
        fs::create_dir(&config).unwrap();
        let outer = root.path().join("config.lock");
        fs::create_dir(&outer).unwrap();
        File::open(&outer).unwrap().set_times(FileTimes::new().set_modified(at(0).into())).unwrap();
        assert!(Locks::take(&config, at(59)).unwrap().is_none());
        assert!(!config.join(INNER).exists(), "the first one was given back");
        assert!(Locks::take(&config, at(60)).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_stale_lock_is_taken_and_its_holder_notices() {
        let root = tempfile::tempdir().unwrap();
        let slow = Locks::take(root.path(), at(0)).unwrap().unwrap();
        let quick = Locks::take(root.path(), at(60)).unwrap().unwrap();
        assert!(!slow.are_ours() && quick.are_ours());
        drop(slow);
        assert!(quick.are_ours(), "what another has taken is not given back");
        // One that a clock which was ahead has dated grows stale, too.
        drop(quick);
        let ahead = Locks::take(root.path(), at(7_200)).unwrap().unwrap();
        assert!(Locks::take(root.path(), at(7_170)).unwrap().is_none());
        let set_back = Locks::take(root.path(), at(120)).unwrap().unwrap();
        assert!(!ahead.are_ours() && set_back.are_ours());
    }
}
