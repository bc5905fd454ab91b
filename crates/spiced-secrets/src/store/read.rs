//! Reads the small files that stores consist of.

use std::path::Path;

pub(super) use spiced_files::Content;

use super::StoreError;

/// The largest file that is read, in bytes: 1 MiB, the limit of a Kubernetes secret.
pub(super) const MAX_FILE: u64 = 1024 * 1024;

/// Returns the content of `path`; `None` if the file does not exist.
pub(super) async fn read(path: &Path) -> Result<Option<Content>, StoreError> {
    match spiced_files::read_async(path, MAX_FILE).await {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.is_missing => Ok(None),
        Err(error) => Err(StoreError::Unreadable(error)),
    }
}
