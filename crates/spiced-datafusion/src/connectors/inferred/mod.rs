//! Schema inference for text files. It reads all records, so that content that cannot be read is reported when a data
//! set is loaded, with its file and line, and no value is misread.
//!
//! DataFusion reads only the first records, splits them at line ends within quotes, and replaces numbers that are too
//! large by the nearest float. No message here contains a value: messages go to logs and to users who may not read the
//! data.

mod content;
mod csv;
mod decimal;
mod json;

use std::io::{BufReader, Read};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::object_store::{GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt};
use futures::StreamExt;
use futures::stream::BoxStream;
use spiced_engine::ErrorKind;
use tokio::runtime::Handle;

use self::content::{ContentError, unreadable};
pub(super) use self::csv::Separated;
use crate::error::refusal;

/// The maximum size that is read of a data set's files to infer their schema; the rest is assumed to be of the same
/// types.
const MAX_BYTES: u64 = 256 << 20;

/// How the files are read.
#[derive(Debug, Clone)]
pub(super) enum Text {
    Separated(Separated),
    Json {
        /// How many records of each file are read; all if it is `None`.
        records: Option<usize>,
    },
}

/// The cause of a failed inference.
#[derive(Debug)]
pub(super) enum Failure {
    /// What is wrong with a file, in one line.
    Content(ContentError),
    Store(DataFusionError),
}

/// Infers the schema of `files` from their content.
///
/// # Errors
/// Fails if a file cannot be read, or is not in the given format.
pub(super) async fn schema(text: Text, store: Arc<dyn ObjectStore>, files: Vec<ObjectMeta>) -> Result<Schema, Failure> {
    let mut found = match text {
        Text::Separated(separated) => Found::Separated(csv::Columns::new(separated)),
        Text::Json { records } => Found::Json(json::Columns::new(records)),
    };
    let mut left = MAX_BYTES;
    for file in files {
        let name = file.location.filename().unwrap_or_default().to_owned();
        if left == 0 {
            tracing::debug!(file = name, "the columns are taken from the files before");
            break;
        }
        let store_error = |error| Failure::Store(DataFusionError::ObjectStore(Box::new(error)));
        let bytes: Box<dyn Read + Send> = match store.get(&file.location).await.map_err(store_error)?.payload {
            GetResultPayload::File(file, _) => Box::new(file),
            GetResultPayload::Stream(chunks) => {
                Box::new(Fetched { runtime: Handle::current(), chunks, chunk: Bytes::new() })
            }
        };
        let is_whole = file.size <= left;
        let bytes = BufReader::with_capacity(64 << 10, bytes.take(left));
        left = left.saturating_sub(file.size);
        let read = tokio::task::spawn_blocking(move || {
            let read = found.read(bytes, &name, is_whole);
            (found, read.map_err(|why| ContentError::from(format!("`{name}`{why}"))))
        });
        let (back, read) =
            read.await.map_err(|error| Failure::Store(DataFusionError::ExecutionJoin(Box::new(error))))?;
        read.map_err(Failure::Content)?;
        found = back;
    }
    match found {
        Found::Separated(columns) => Ok(columns.schema()),
        Found::Json(columns) => Ok(columns.schema()),
    }
}

/// Infers the schema of the files of an external table.
///
/// # Errors
/// Fails with a sentence for the caller, or with the error of the store.
pub(super) async fn of_objects(
    text: Text,
    store: &Arc<dyn ObjectStore>,
    objects: &[ObjectMeta],
) -> Result<SchemaRef, DataFusionError> {
    match schema(text, store.clone(), objects.to_vec()).await {
        Ok(schema) => Ok(Arc::new(schema)),
        Err(Failure::Content(why)) => Err(refusal(ErrorKind::InvalidStatement, why.to_string())),
        Err(Failure::Store(error)) => Err(error),
    }
}

/// Bytes from the network, for a thread that may block.
struct Fetched {
    runtime: Handle,
    chunks: BoxStream<'static, datafusion::object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl Read for Fetched {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.chunks.next()) {
                Some(chunk) => self.chunk = chunk.map_err(std::io::Error::other)?,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.chunk.len());
        into[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

enum Found {
    Separated(csv::Columns),
    Json(json::Columns),
}

impl Found {
    /// Reads a file, whose end may be missing.
    fn read(&mut self, bytes: impl Read, name: &str, is_whole: bool) -> Result<(), ContentError> {
        let mut bytes = bytes;
        let mut start = Vec::with_capacity(START);
        bytes.by_ref().take(START as u64).read_to_end(&mut start).map_err(|error| unreadable(&error))?;
        if let Some(form) = form(&start) {
            return Err(format!(" is {form}; wanted is plain text in UTF-8").into());
        }
        let bytes = std::io::Cursor::new(start).chain(bytes);
        match self {
            Self::Separated(columns) => columns.read(bytes, name, is_whole),
            Self::Json(columns) => columns.read(BufReader::new(bytes), is_whole),
        }
    }
}

/// How many bytes of a file identify its format.
const START: usize = 8;

/// Identifies a file by its first bytes, if it is not plain text.
fn form(start: &[u8]) -> Option<&'static str> {
    const FORMS: [(&[u8], &str); 9] = [
        (&[0x1f, 0x8b], "compressed (gzip)"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "compressed (zstd)"),
        (b"BZh", "compressed (bzip2)"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "compressed (xz)"),
        (b"PK\x03\x04", "an archive (zip), as spreadsheets are"),
        (b"PAR1", "a Parquet file"),
        (b"ARROW1", "an Arrow file"),
        (&[0xff, 0xfe], "text in UTF-16"),
        (&[0xfe, 0xff], "text in UTF-16"),
    ];
    FORMS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, form)| *form)
}

#[cfg(test)]
mod tests {
    use datafusion::object_store::memory::InMemory;
    use datafusion::object_store::path::Path;

    use super::*;

    /// Returns the columns of files with these texts, as `name type`, or why the inference failed.
    pub(super) async fn columns(text: Text, files: &[(&str, &[u8])]) -> Result<String, String> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut metas = Vec::new();
        for (name, bytes) in files {
            let path = Path::from(*name);
            store.put(&path, bytes.to_vec().into()).await.unwrap();
            metas.push(store.head(&path).await.unwrap());
        }
        match schema(text, store, metas).await {
            Ok(schema) => {
                let columns = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
                Ok(columns.collect::<Vec<_>>().join(", "))
            }
            Err(Failure::Content(why)) => Err(why.to_string()),
            Err(Failure::Store(error)) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn what_is_no_plain_text_is_named() {
        for (start, form) in [
            (&[0x1f, 0x8b, 8, 0][..], "compressed (gzip)"),
            (b"PK\x03\x04rest", "an archive (zip), as spreadsheets are"),
            (b"PAR1....", "a Parquet file"),
            (&[0xff, 0xfe, b'a', 0], "text in UTF-16"),
        ] {
            for text in [Text::Json { records: None }, Text::Separated(Separated::default())] {
                let expected = format!("`x` is {form}; wanted is plain text in UTF-8");
                assert_eq!(columns(text, &[("x", start)]).await.unwrap_err(), expected);
            }
        }
    }
}
