//! `file:` data sets: Parquet, CSV, TSV and NDJSON on the host's disk, as one file, a folder, or a
//! glob. Read only. Files that are added to a folder later are seen by the next query; the schema
//! is that of the first load.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::context::SessionState;

use super::format::{self, Reading};
use super::listing::{Listing, split_glob};
use super::{Connector, Opened, Request, Source};
use crate::host_paths::{absolute, file_url};

pub(super) const CONNECTOR: Connector =
    Connector { name: "file", writable: false, params: &[format::PARAMS], columns: false, open };

fn open(request: Request<'_>) -> Opened {
    let reading = Reading::new(request.spec);
    let written = request.rest.strip_prefix("//").unwrap_or(request.rest);
    let mut wrong = Vec::new();
    if written.is_empty() {
        wrong.push("from: no path stands after `file:`".to_owned());
    }
    let (base, glob) = split_glob(written);
    if glob.contains('/') {
        wrong.push(format!(
            "from: `{written}` has a wildcard in the name of a folder; only the last part of the path may have one"
        ));
    }
    match reading {
        Ok(reading) if wrong.is_empty() => Ok(Arc::new(Files {
            base: absolute(&request.spec.folder.join(base)),
            listing: Listing {
                written: written.to_owned(),
                glob: (!glob.is_empty()).then(|| glob.to_owned()),
                reading,
            },
        })),
        Ok(_) => Err(wrong),
        Err(more) => {
            wrong.extend(more);
            Err(wrong)
        }
    }
}

struct Files {
    /// The file, or the folder of files.
    base: PathBuf,
    listing: Listing,
}

#[async_trait]
impl Source for Files {
    async fn load(&self, state: &SessionState) -> Result<Arc<dyn TableProvider>, String> {
        let Listing { written, glob, .. } = &self.listing;
        let is_folder = match tokio::fs::metadata(&self.base).await {
            Ok(metadata) => metadata.is_dir(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!("there is no file or folder at `{}`", written));
            }
            Err(error) => return Err(format!("`{}` cannot be read: {}", written, error.kind())),
        };
        if glob.is_some() && !is_folder {
            return Err(format!("the part of `{}` before the wildcard is not a folder", written));
        }
        self.listing.table(ListingTableUrl::parse(file_url(&self.base, is_folder)), state).await
    }
}
