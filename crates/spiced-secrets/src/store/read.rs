//! Reads small files completely, with a size limit, into memory that is wiped.

use std::path::Path;

use tls_core::Secret;
use tokio::io::AsyncReadExt;

use super::StoreError;

/// The largest file that is read, in bytes: 1 MiB, the limit of a Kubernetes secret.
pub(super) const MAX_FILE: u64 = 1024 * 1024;

/// The content of a file, and whether it can be read again.
pub(super) struct Content {
    pub(super) secret: Secret,
    /// False for a FIFO and similar files, which can be read only once.
    pub(super) regular: bool,
}

/// Returns the content of `path`; `None` if the file does not exist.
pub(super) async fn read(path: &Path) -> Result<Option<Content>, StoreError> {
    let unreadable = |cause| StoreError::Unreadable { path: path.to_owned(), cause };
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    let metadata = file.metadata().await.map_err(unreadable)?;
    // Allocate the full size up front, because growing would leave copies behind that are not wiped.
    let capacity = usize::try_from(metadata.len().min(MAX_FILE)).unwrap_or(0) + 1;
    let mut bytes = Vec::with_capacity(capacity);
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes).await;
    let secret = Secret::new(bytes);
    read.map_err(unreadable)?;
    if secret.expose().len() as u64 > MAX_FILE {
        let what = format!("it is larger than {MAX_FILE} bytes");
        return Err(unreadable(std::io::Error::new(std::io::ErrorKind::FileTooLarge, what)));
    }
    Ok(Some(Content { secret, regular: metadata.is_file() }))
}
