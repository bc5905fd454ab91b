//! The history file of the prompt.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The maximum number of entries.
pub(crate) const MAX_ENTRIES: usize = 10_000;

/// The maximum length of an entry, in bytes; a longer one was pasted and is not kept.
pub(crate) const MAX_ENTRY: usize = 64 * 1024;

/// Returns `$XDG_STATE_HOME/spiced/sql_history`, or `~/.local/state/…`; `None` if there is no home directory.
///
/// <https://specifications.freedesktop.org/basedir-spec/latest/>: a path that is not absolute is ignored.
pub(crate) fn path(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("spiced").join("sql_history"))
}

/// Creates the directory, and restricts an existing file to its owner.
pub(crate) fn prepare(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::metadata(path) {
        Ok(there) if there.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_is() {
        let at = |state: Option<&str>, home: Option<&str>| {
            path(|name| match name {
                "XDG_STATE_HOME" => state.map(Into::into),
                _ => home.map(Into::into),
            })
        };
        assert_eq!(at(Some("/s"), Some("/h")), Some("/s/spiced/sql_history".into()));
        assert_eq!(at(Some("relative"), Some("/h")), Some("/h/.local/state/spiced/sql_history".into()));
        assert_eq!(at(None, None), None);
    }

    #[test]
    fn nobody_else_reads_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("a/b/sql_history");
        prepare(&file).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home.path().join("a/b")), 0o700);
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        prepare(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
    }
}
