//! Files that are there whole or not at all, whenever the process is killed.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Who else may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Everybody: 0644.
    All,
    /// Nobody else: 0600.
    Owner,
}

/// Replaces a file: a new one beside it, synced, renamed over it, and the folder synced. A link is replaced, too: whoever
/// keeps one gives the path that it leads to. What a kill has left of new files goes first, so that no secrets gather. There
/// is to be one writer of a file at a time: a second takes the new file of the first away, which fails.
///
/// # Errors
/// Where the folder cannot be written; what stood there before is untouched then.
pub fn replace(path: &Path, text: &str, readers: Readers) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = prefix(path)?;
    for left in fs::read_dir(folder).into_iter().flatten().flatten() {
        if left.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_file(left.path());
        }
    }
    let mut file = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    if readers == Readers::All {
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

/// How the names of its new files begin, and nobody else's.
fn prefix(path: &Path) -> io::Result<OsString> {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().ok_or(ErrorKind::InvalidInput)?);
    prefix.push(".pilothouse-");
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_a_kill_has_left_goes_with_the_next_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "untouched").unwrap();
        let left = |name: &str| {
            let mut left = prefix(&path).unwrap();
            left.push(name);
            folder.path().join(left)
        };
        fs::write(left("aB3dE6"), "the secret of the one that was killed").unwrap();
        std::os::unix::fs::symlink(&elsewhere, left("xY9zW2")).unwrap();
        replace(&path, "secret", Readers::Owner).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("secret", 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else stays");
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
    }

    #[test]
    fn a_link_is_replaced_and_a_file_for_all_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let (link, path) = (folder.path().join("link"), folder.path().join("path"));
        fs::write(&path, "before").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, "after", Readers::All).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!((fs::read_to_string(&link).unwrap().as_str(), mode(&link)), ("after", 0o644));
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    }

    #[test]
    fn where_it_cannot_be_written_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(replace(&taken, "text", Readers::Owner).is_err(), "a folder stands there");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
