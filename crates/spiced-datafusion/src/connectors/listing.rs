//! Files of one format at one location, as a table: one file, a directory, or the files of a directory that match a
//! glob. Files that are added later are visible to the next query; the schema is that of the first load.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use datafusion::catalog::TableProvider;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::object_store::{ObjectMeta, ObjectStore};
use futures::TryStreamExt;
use tokio::sync::Notify;

use super::checked::Checked;
use super::format::{Format, Reading};
use super::outdated::Outdated;
use super::{damaged, inferred};
use crate::DatasetSpec;
use crate::connectors::source::LoadError;
use crate::connectors::source::list;
use crate::engine::start_error::{SpecError, SpecPart};
use crate::error::reason;
use crate::functions::caught;
use crate::sql::complexity::plan::check_types;

/// The files of a data set, and how to read them.
pub(super) struct Listing {
    /// The location as written in the pod, for messages.
    pub(super) written: String,
    /// The glob that selects files of the directory, if the pod has one.
    pub(super) glob: Option<String>,
    reading: Reading,
    /// Notified when the files no longer match the inferred schema.
    changed: Arc<Notify>,
}

impl Listing {
    /// Reads the params of `spec` that select files and their format, and adds every error to `wrong`. `path` is
    /// `written` without its prefix. Also returns the part of the path before a wildcard: the file or directory.
    pub(super) fn open<'a>(
        spec: &DatasetSpec,
        written: String,
        path: &'a str,
        mut wrong: Vec<SpecError>,
    ) -> Result<(&'a str, Self), Vec<SpecError>> {
        let (base, glob) = split_glob(path);
        if glob.contains('/') {
            wrong.push(SpecPart::From.error(format!(
                "`{written}` has a wildcard in the name of a folder; only the last part of the path may have one"
            )));
        }
        let glob = (!glob.is_empty()).then(|| glob.to_owned());
        match Reading::new(spec) {
            Ok(reading) if wrong.is_empty() => Ok((base, Self { written, glob, reading, changed: Arc::default() })),
            Ok(_) => Err(wrong),
            Err(more) => {
                wrong.extend(more);
                Err(wrong)
            }
        }
    }

    /// Returns the table of the files at `url`, which ends with a slash if it is a directory.
    ///
    /// # Errors
    /// Fails with the cause, in one sentence.
    pub(super) async fn table(&self, url: &str, state: &SessionState) -> Result<Arc<dyn TableProvider>, LoadError> {
        self.listed(url, state).await.map_err(|error| match error {
            Failure::Sentence(why) => why.into(),
            Failure::Engine(error) => {
                LoadError::caused(format!("`{}` cannot be read: {}", self.written, reason(&error)), error)
            }
        })
    }

    async fn listed(&self, url: &str, state: &SessionState) -> Result<Arc<dyn TableProvider>, Failure> {
        let mut url = ListingTableUrl::parse(url)?;
        let is_folder = url.is_collection();
        if let Some(glob) = &self.glob {
            url = url.with_glob(glob)?;
        }
        let (format, extension) = self.format(&url, is_folder, state).await?;
        let options = ListingOptions::new(self.reading.reader(format, state)).with_file_extension(&extension);
        let files = files(&url, &extension, state).await?;
        let mut config = ListingTableConfig::new(url.clone()).with_listing_options(options);
        if self.reading.hive && is_folder {
            config = config.infer_partitions_from_path(state).await?;
        }
        let store = state.runtime_env().object_store(&url)?;
        let config = match self.reading.text(format) {
            Some(text) => match inferred::schema(text, store, files).await {
                Ok(schema) => config.with_schema(Arc::new(schema)),
                Err(inferred::Failure::Content(why)) => return Err(Failure::Sentence(why.to_string())),
                Err(inferred::Failure::Store(error)) => return Err(Failure::Engine(error)),
            },
            None => {
                for file in &files {
                    check_parquet(file, store.clone()).await?;
                }
                config.infer_schema(state).await?
            }
        };
        let Some(schema) = config.file_schema.as_ref().filter(|schema| !schema.fields().is_empty()) else {
            return Err(Failure::Sentence(format!("`{}` holds no columns", self.written)));
        };
        check_types(schema)?;
        let partitions = config.options.iter().flat_map(|options| &options.table_partition_cols);
        if let Some((name, _)) = partitions.into_iter().find(|(name, _)| schema.index_of(name).is_ok()) {
            return Err(Failure::Sentence(format!(
                "`{}`: the column `{name}` is in the files and in the names of their folders; leave it out of the files, or say \
                 `hive_partitioning_enabled: false`",
                self.written
            )));
        }
        let is_text = self.reading.text(format).is_some();
        let cache = state.runtime_env().cache_manager.get_file_statistic_cache();
        let table = ListingTable::try_new(config)?.with_cache(cache);
        Ok(match is_text {
            true => Arc::new(Checked::new(table, &self.written, Outdated::new(self.changed.clone()))),
            false => Arc::new(table),
        })
    }

    /// Waits until the files no longer match the inferred schema.
    pub(super) async fn outdated(&self) {
        self.changed.notified().await;
    }

    /// Returns the format, and the extension of the files to read (empty: any).
    async fn format(
        &self,
        url: &ListingTableUrl,
        is_folder: bool,
        state: &SessionState,
    ) -> Result<(Format, String), Failure> {
        let names = if is_folder { names(url, state).await? } else { vec![self.written.clone()] };
        if names.is_empty() {
            let what = if self.glob.is_some() { "no file matches" } else { "there is no file in" };
            return Err(Failure::Sentence(format!("{what} `{}`", self.written)));
        }
        let known: BTreeSet<&str> =
            names.iter().filter_map(|name| extension(name)).filter(|e| Format::of_extension(e).is_some()).collect();
        let mut endings = known.iter();
        match (self.reading.format, endings.next(), endings.next()) {
            (Some(format), Some(ending), None) if Format::of_extension(ending) == Some(format) => {
                Ok((format, format!(".{ending}")))
            }
            (Some(format), ..) => Ok((format, String::new())),
            (None, Some(ending), None) => {
                let format = Format::of_extension(ending).expect("only known endings are in the set");
                Ok((format, format!(".{ending}")))
            }
            (None, None, _) => Err(Failure::Sentence(format!(
                "the format of `{}` cannot be told from its name; say `file_format` in its params",
                self.written
            ))),
            (None, ..) => Err(Failure::Sentence(format!(
                "`{}` holds files of several kinds ({}); pick one with a wildcard, such as `*.{}`",
                self.written,
                list(known.iter().map(|e| format!(".{e}"))),
                known.first().expect("several are at least one")
            ))),
        }
    }
}

/// Returns the files at `url` whose names end with `extension`, sorted by path, without empty files.
async fn files(
    url: &ListingTableUrl,
    extension: &str,
    state: &SessionState,
) -> Result<Vec<ObjectMeta>, DataFusionError> {
    let store = state.runtime_env().object_store(url)?;
    let files = url.list_all_files(state, store.as_ref(), extension).await?;
    let mut files: Vec<ObjectMeta> = files.try_filter(|file| std::future::ready(file.size > 0)).try_collect().await?;
    files.sort_by(|one, other| one.location.cmp(&other.location));
    Ok(files)
}

/// Rejects a file whose Parquet footer cannot be read, or that has two columns of the same name: a table would contain
/// only the first.
async fn check_parquet(file: &ObjectMeta, store: Arc<dyn ObjectStore>) -> Result<(), Failure> {
    let name = file.location.filename().unwrap_or_default();
    // Some damaged footers make the reader panic.
    let metadata = DFParquetMetadata::new(store.as_ref(), file);
    let metadata = match quiet(metadata.fetch_metadata()).await {
        Some(Err(error)) if !damaged::is_of_content(&error) => return Err(error.into()),
        Some(Ok(metadata)) => metadata,
        _ => {
            return Err(Failure::Sentence(format!(
                "`{name}` cannot be read: it is damaged, or is no Parquet file; write it again, or restore it"
            )));
        }
    };
    let mut names = BTreeSet::new();
    let columns = metadata.file_metadata().schema().get_fields();
    match columns.iter().find(|column| !names.insert(column.name())) {
        Some(twice) => Err(Failure::Sentence(format!(
            "`{name}` has two columns called `{}`; give each a name of its own",
            twice.name()
        ))),
        None => Ok(()),
    }
}

/// Returns `None` if `work` panics.
async fn quiet<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(move |cx| match caught(|| work.as_mut().poll(cx)) {
        Some(polled) => polled.map(Some),
        None => Poll::Ready(None),
    })
    .await
}

/// Returns the names of the files at `url`, except files that are hidden or being written.
async fn names(url: &ListingTableUrl, state: &SessionState) -> Result<Vec<String>, DataFusionError> {
    let store = state.runtime_env().object_store(url)?;
    let files = url.list_all_files(state, store.as_ref(), "").await?;
    let names: Vec<String> =
        files.try_filter_map(async |meta| Ok(meta.location.filename().map(str::to_owned))).try_collect().await?;
    Ok(names.into_iter().filter(|name| !name.starts_with(['.', '_'])).collect())
}

fn extension(name: &str) -> Option<&str> {
    Path::new(name).extension().and_then(|e| e.to_str())
}

/// The cause of a failed load.
enum Failure {
    Sentence(String),
    Engine(DataFusionError),
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self::Engine(error)
    }
}

/// Splits a path before the first component with a wildcard.
fn split_glob(path: &str) -> (&str, &str) {
    match path.find(['*', '?', '[']) {
        None => (path, ""),
        Some(at) => path.split_at(path[..at].rfind('/').map_or(0, |slash| slash + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::split_glob;

    #[test]
    fn globs() {
        for (path, expected) in [
            ("data/a.csv", ("data/a.csv", "")),
            ("data/*.csv", ("data/", "*.csv")),
            ("*.csv", ("", "*.csv")),
            ("/x/y-[0-9].csv", ("/x/", "y-[0-9].csv")),
            ("/x/*/a.csv", ("/x/", "*/a.csv")),
        ] {
            assert_eq!(split_glob(path), expected, "{path}");
        }
    }
}
