//! `file:` data sets: Parquet, CSV, TSV and NDJSON on the local disk, as one file, a directory, or a glob. They are
//! read only. Files that are added to a directory later are visible to the next query; the schema is that of the first
//! load.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::execution::context::SessionState;
use futures::FutureExt;
use futures::future::BoxFuture;
use url::Url;

use super::format;
use super::listing::Listing;
use crate::catalog::host_paths::{absolute, encoded};
use crate::catalog::host_store::rooted;
use crate::connectors::source::Loading;
use crate::connectors::source::{Connector, Opened, Request, Source};
use crate::engine::start_error::SpecPart;

pub(super) const CONNECTOR: Connector =
    Connector { name: "file", writable: false, params: &[format::PARAMS], open, ..Connector::READER };

fn open(request: Request<'_>) -> Opened {
    let written = request.rest.strip_prefix("//").unwrap_or(request.rest);
    let mut wrong = Vec::new();
    if written.is_empty() {
        wrong.push(SpecPart::From.error("no path stands after `file:`"));
    }
    let (base, listing) = Listing::open(request.spec, written.to_owned(), written, wrong)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(Arc::new(Files { base: absolute(&request.spec.folder.join(base)), listing, number }))
}

/// Each data set has a separate store, whose paths are relative to its directory.
static NEXT: AtomicU64 = AtomicU64::new(1);

struct Files {
    number: u64,
    /// The file or directory.
    base: PathBuf,
    listing: Listing,
}

impl Source for Files {
    fn outdated(&self) -> BoxFuture<'_, ()> {
        async move {
            self.listing.outdated().await;
        }
        .boxed()
    }

    fn load<'a>(&'a self, state: &'a SessionState) -> Loading<'a> {
        Box::pin(async move {
            let Listing { written, glob, .. } = &self.listing;
            let is_folder = match tokio::fs::metadata(&self.base).await {
                // Reading a pipe or a device would block.
                Ok(metadata) if !metadata.is_dir() && !metadata.is_file() => {
                    return Err(format!("`{written}` is neither a file nor a folder").into());
                }
                Ok(metadata) => metadata.is_dir(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(format!("there is no file or folder at `{written}`").into());
                }
                Err(error) => return Err(format!("`{written}` cannot be read: {}", error.kind()).into()),
            };
            if glob.is_some() && !is_folder {
                return Err(format!("the part of `{written}` before the wildcard is not a folder").into());
            }
            // Paths relative to the directory reveal nothing about the host to callers: plans contain them, and so does
            // `input_file_name()`.
            let (folder, file) = match (is_folder, self.base.parent(), self.base.file_name()) {
                (false, Some(folder), Some(name)) => (folder, encoded(Path::new(name))),
                _ => (self.base.as_path(), String::new()),
            };
            let store = rooted(folder).map_err(|error| format!("`{written}` is no path: {error}"))?;
            // A scheme that SQL cannot name.
            let root = format!("files{}://objects/", self.number);
            let url = Url::parse(&root).map_err(|error| error.to_string())?;
            state.runtime_env().register_object_store(&url, Arc::new(store));
            self.listing.table(&format!("{root}{file}"), state).await
        })
    }
}
