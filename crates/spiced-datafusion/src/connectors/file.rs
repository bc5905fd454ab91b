//! `file:` data sets: Parquet, CSV, TSV and NDJSON on the host's disk, as one file, a folder, or a
//! glob. Read only. Files that are added to a folder later are seen by the next query; the schema
//! is that of the first load.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::context::SessionState;

use super::listing::Listing;
use super::{Connector, Opened, Request, Source, format};
use crate::host_paths::{absolute, file_url};

pub(super) const CONNECTOR: Connector =
    Connector { name: "file", writable: false, params: &[format::PARAMS], columns: false, open };

fn open(request: Request<'_>) -> Opened {
    let written = request.rest.strip_prefix("//").unwrap_or(request.rest);
    let mut wrong = Vec::new();
    if written.is_empty() {
        wrong.push("from: no path stands after `file:`".to_owned());
    }
    let (base, listing) = Listing::open(request.spec, written.to_owned(), written, wrong)?;
    Ok(Arc::new(Files { base: absolute(&request.spec.folder.join(base)), listing }))
}

struct Files {
    /// The file, or the folder of files.
    base: PathBuf,
    listing: Listing,
}

#[async_trait]
impl Source for Files {
    async fn outdated(&self) {
        self.listing.outdated().await;
    }

    async fn load(&self, state: &SessionState) -> Result<Arc<dyn TableProvider>, String> {
        let Listing { written, glob, .. } = &self.listing;
        let is_folder = match tokio::fs::metadata(&self.base).await {
            Ok(metadata) => metadata.is_dir(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!("there is no file or folder at `{written}`"));
            }
            Err(error) => return Err(format!("`{written}` cannot be read: {}", error.kind())),
        };
        if glob.is_some() && !is_folder {
            return Err(format!("the part of `{written}` before the wildcard is not a folder"));
        }
        self.listing.table(&file_url(&self.base, is_folder), state).await
    }
}
