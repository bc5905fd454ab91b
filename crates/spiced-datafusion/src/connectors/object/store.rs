//! Adapts a store of object_store 0.14, which uses aws-lc-rs, to 0.13, which DataFusion uses. It is read only.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::stream::{BoxStream, StreamExt};
use object_store as newer;

/// The adapted store.
#[derive(Debug)]
pub(super) struct Remote(pub(super) Arc<dyn newer::ObjectStore>);

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Remote {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let range = options.range.map(|range| match range {
            GetRange::Bounded(range) => newer::GetRange::Bounded(range),
            GetRange::Offset(from) => newer::GetRange::Offset(from),
            GetRange::Suffix(last) => newer::GetRange::Suffix(last),
        });
        let asked = newer::GetOptions {
            if_match: options.if_match,
            if_none_match: options.if_none_match,
            if_modified_since: options.if_modified_since,
            if_unmodified_since: options.if_unmodified_since,
            range,
            version: options.version,
            head: options.head,
            ..newer::GetOptions::default()
        };
        let result = self.0.get_opts(&there(location)?, asked).await.map_err(error)?;
        let (meta, range) = (meta(&result.meta)?, result.range.clone());
        let payload = GetResultPayload::Stream(result.into_stream().map(|part| part.map_err(error)).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match prefix.map(there).transpose() {
            Ok(prefix) => self.0.list(prefix.as_ref()).map(|found| meta(&found.map_err(error)?)).boxed(),
            Err(why) => futures::stream::iter([Err(why)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.map(there).transpose()?;
        let found = self.0.list_with_delimiter(prefix.as_ref()).await.map_err(error)?;
        Ok(ListResult {
            common_prefixes: found.common_prefixes.iter().map(here).collect::<Result<_>>()?,
            objects: found.objects.iter().map(meta).collect::<Result<_>>()?,
        })
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only("written"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only("written"))
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        futures::stream::iter([Err(read_only("deleted"))]).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only("copied"))
    }
}

fn there(path: &Path) -> Result<newer::path::Path> {
    newer::path::Path::parse(path.as_ref()).map_err(|why| generic(Box::new(why)))
}

fn here(path: &newer::path::Path) -> Result<Path> {
    Ok(Path::parse(path.as_ref())?)
}

fn meta(meta: &newer::ObjectMeta) -> Result<ObjectMeta> {
    Ok(ObjectMeta {
        location: here(&meta.location)?,
        last_modified: meta.last_modified,
        size: meta.size,
        e_tag: meta.e_tag.clone(),
        version: meta.version.clone(),
    })
}

fn error(error: newer::Error) -> Error {
    match error {
        newer::Error::NotFound { path, source } => Error::NotFound { path, source },
        newer::Error::PermissionDenied { path, source } => Error::PermissionDenied { path, source },
        newer::Error::Unauthenticated { path, source } => Error::Unauthenticated { path, source },
        newer::Error::Precondition { path, source } => Error::Precondition { path, source },
        newer::Error::NotModified { path, source } => Error::NotModified { path, source },
        newer::Error::NotSupported { source } => Error::NotSupported { source },
        other => generic(Box::new(other)),
    }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic { store: "remote", source }
}

fn read_only(what: &str) -> Error {
    Error::NotSupported { source: format!("objects are not {what} here").into() }
}
