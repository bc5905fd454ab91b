//! An object store for files of the host. It resolves the links in each path and checks the real location before
//! reading or writing; a listing omits files that are out of reach.

use std::fmt;
use std::path::{Path as HostPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::object_store::prefix::PrefixStore;
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use spiced_engine::{EngineError, ErrorKind};

/// The name of the setting in messages.
pub(crate) const SETTING: &str = "runtime.sql.host_paths";

/// Resolves every link in the path, whose last parts may not exist yet. Returns `None` if a part is a dangling link or
/// cannot be read.
pub(crate) fn canonical(path: &std::path::Path) -> Option<PathBuf> {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        match existing.canonicalize() {
            Ok(mut real) => {
                real.extend(missing.into_iter().rev());
                return Some(real);
            }
            Err(_) if existing.symlink_metadata().is_ok_and(|m| m.is_symlink()) => return None,
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return None,
            Err(_) => {
                // No file name: the path ends in `..`, whose meaning depends on the missing parts.
                missing.push(existing.file_name()?);
                existing = existing.parent()?;
            }
        }
    }
}

/// Returns a store of the files of a directory, with paths relative to it, so that they do not reveal its location on
/// the host. The operator chose the paths in a pod, so links are followed.
pub(crate) fn rooted(folder: &HostPath) -> Result<HostStore> {
    let root = Path::from_absolute_path(folder)?;
    Ok(HostStore { inner: Box::new(PrefixStore::new(LocalFileSystem::new(), root.clone())), root, folders: None })
}

/// An object store for files of the host.
#[derive(Debug)]
pub(crate) struct HostStore {
    inner: Box<dyn ObjectStore>,
    /// The prefix of all paths in the store.
    root: Path,
    /// The directories that SQL may access; `None` if the access is not from SQL.
    folders: Option<Arc<[PathBuf]>>,
}

impl HostStore {
    /// Creates a store with paths from the root of the host.
    pub(crate) fn new(folders: Arc<[PathBuf]>) -> Self {
        Self { inner: Box::new(LocalFileSystem::new()), root: Path::default(), folders: Some(folders) }
    }

    /// Creates a store with paths relative to `directory`.
    pub(crate) fn rooted(folder: &HostPath, folders: Arc<[PathBuf]>) -> Result<Self> {
        Ok(Self { folders: Some(folders), ..rooted(folder)? })
    }

    fn check(&self, location: &Path) -> Result<()> {
        check(&self.root, self.folders.as_deref(), location)
    }
}

fn check(root: &Path, folders: Option<&[PathBuf]>, location: &Path) -> Result<()> {
    let Some(folders) = folders else { return Ok(()) };
    let at = LocalFileSystem::new().path_to_filesystem(&root.parts().chain(location.parts()).collect())?;
    let is_within = |real: PathBuf| {
        folders.iter().filter_map(|folder| folder.canonicalize().ok()).any(|folder| real.starts_with(folder))
    };
    if canonical(&at).is_some_and(is_within) {
        return Ok(());
    }
    let name = location.filename().unwrap_or_default();
    let why = format!("`{name}` is a link, or lies behind one, that leads out of {SETTING}");
    Err(Error::PermissionDenied {
        path: location.to_string(),
        source: Box::new(EngineError::new(ErrorKind::Denied, why)),
    })
}

impl fmt::Display for HostStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("files of the host")
    }
}

#[async_trait]
impl ObjectStore for HostStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.check(location)?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check(location)?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(location)?;
        let mut got = self.inner.get_opts(location, options).await?;
        // PrefixStore leaves the full path in the metadata.
        got.meta.location = location.clone();
        Ok(got)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (root, folders) = (self.root.clone(), self.folders.clone());
        let checked = locations.and_then(move |location| {
            std::future::ready(check(&root, folders.as_deref(), &location).map(|()| location))
        });
        self.inner.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (root, folders) = (self.root.clone(), self.folders.clone());
        let is_within =
            move |found: &ObjectMeta| std::future::ready(check(&root, folders.as_deref(), &found.location).is_ok());
        self.inner.list(prefix).try_filter(is_within).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects.retain(|object| self.check(&object.location).is_ok());
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        self.inner.rename_opts(from, to, options).await
    }
}
