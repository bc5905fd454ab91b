//! Reading a small file whole, with a bound, into memory that is wiped.

use std::path::Path;

use tls_core::Secret;
use tokio::io::AsyncReadExt;

use super::StoreError;

/// The most that is read of one file, in bytes: 1 MiB, the limit of a Kubernetes secret.
pub(super) const MAX_FILE: u64 = 1024 * 1024;

/// What was read, and whether it can be read again.
pub(super) struct Content {
    pub(super) secret: Secret,
    /// False for a FIFO and the like, which gives its content once.
    pub(super) regular: bool,
}

/// The content of `path`; `None` where there is no such file.
pub(super) async fn read(path: &Path) -> Result<Option<Content>, StoreError> {
    let unreadable = |cause| StoreError::Unreadable { path: path.to_owned(), cause };
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    let metadata = file.metadata().await.map_err(unreadable)?;
    // Sized beforehand, so that growing leaves no copy behind unwiped.
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
