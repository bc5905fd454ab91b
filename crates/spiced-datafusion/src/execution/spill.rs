//! The spill directory for queries. It belongs to one process, is private to its user, and is removed with the process.
//!
//! A killed process leaves its directory behind. Each process holds a lock in its directory, so the next start on the
//! same machine can identify abandoned directories and remove them.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The prefix of each directory's name.
const PREFIX: &str = "spiced-spill-";

/// The prefix used until the lock is held.
const UNLOCKED: &str = "spiced-new-spill-";

/// The file whose lock shows that the process is alive.
const LOCK: &str = "lock";

/// How many names are tried if the first is taken.
const ATTEMPTS: u32 = 100;

/// A spill directory. Dropping it removes the directory and its contents.
#[derive(Debug)]
pub(crate) struct SpillDirectory {
    path: PathBuf,
    _lock: File,
}

impl SpillDirectory {
    /// Creates a directory within `base`, and removes directories that dead processes of the same user left there.
    ///
    /// # Errors
    /// Fails if `base` is not writable.
    pub(crate) fn create(base: &Path) -> io::Result<Self> {
        for attempt in 0..ATTEMPTS {
            let name = format!("{}-{attempt}", std::process::id());
            let unlocked = base.join(format!("{UNLOCKED}{name}"));
            match DirBuilder::new().mode(0o700).create(&unlocked) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let lock = File::create_new(unlocked.join(LOCK))?;
            lock.lock()?;
            let path = base.join(format!("{PREFIX}{name}"));
            // An earlier process with the same id may have left a directory of that name; rename replaces it only if
            // empty.
            if fs::rename(&unlocked, &path).is_err() {
                fs::remove_dir_all(&unlocked)?;
                continue;
            }
            let owner = fs::symlink_metadata(&path)?.uid();
            remove_abandoned(base, owner, &path);
            return Ok(Self { path, _lock: lock });
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "every name for a spill directory is taken"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(directory = %self.path.display(), %error, "the spill directory could not be removed");
        }
    }
}

/// Removes directories that processes of the user `owner` left in `base`. Unreadable entries are skipped.
fn remove_abandoned(base: &Path, owner: u32, own: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX) && path != own;
        let is_owned = || fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && found.uid() == owner);
        if !is_ours || !is_owned() {
            continue;
        }
        let is_dead = match File::open(path.join(LOCK)) {
            Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !is_dead {
            continue;
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(directory = %path.display(), "removed what a process that was killed had spilled"),
            Err(error) => {
                tracing::warn!(directory = %path.display(), %error, "an abandoned spill directory could not be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn left(base: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(base).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_private_and_what_the_dead_left_goes() {
        let base = tempfile::tempdir().unwrap();
        let abandoned = base.path().join(format!("{PREFIX}1-0"));
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join(LOCK), "").unwrap();
        fs::write(abandoned.join("rows"), "secret").unwrap();
        let (other, elsewhere) = (base.path().join("spiced-other"), base.path().join("target"));
        fs::create_dir(&other).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let link = base.path().join(format!("{PREFIX}link"));
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();

        let first = SpillDirectory::create(base.path()).unwrap();
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!abandoned.exists() && other.exists() && link.exists());
        let second = SpillDirectory::create(base.path()).unwrap();
        assert!(first.path().exists(), "a process that lives keeps its own");
        drop((first, second));
        assert_eq!(left(base.path()), ["spiced-other".to_owned(), format!("{PREFIX}link"), "target".to_owned()]);
    }
}
