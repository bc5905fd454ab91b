//! Parameters that clients send as batches in a `DoPut` stream, stored as IPC bytes in a handle.

use std::io::Cursor;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_flight::FlightData;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use bytes::Bytes;
use futures::stream::{Stream, TryStreamExt};
use spiced_engine::Parameters;
use tonic::Status;

use crate::codec::ipc_decoder::IpcDecoder;
use crate::handles::signed_handle::MAX_HANDLE_BYTES;
use crate::status;

/// Collects all rows of a stream into one batch, or returns `None` if the client sent no column or no row.
///
/// Reads at most as much as fits in a handle, within the request timeout.
pub(crate) async fn collect<S>(first: FlightData, rest: S, within: Duration) -> Result<Option<RecordBatch>, Status>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
{
    let mut room = MAX_HANDLE_BYTES.checked_sub(first.data_body.len()).ok_or_else(too_large)?;
    let bounded = rest.and_then(move |message| {
        let left = room.checked_sub(message.data_body.len());
        room = left.unwrap_or(0);
        std::future::ready(left.map(|_| message).ok_or_else(too_large))
    });
    let read = async {
        let Some(frames) = IpcDecoder::open(first, bounded, within, MAX_HANDLE_BYTES).await? else { return Ok(None) };
        let schema = frames.schema().clone();
        let rows: Vec<RecordBatch> = frames.into_stream().try_collect().await?;
        let batch = arrow_select::concat::concat_batches(&schema, &rows).map_err(status::internal)?;
        Ok(Some(batch).filter(|batch| batch.num_rows() > 0))
    };
    let late = || Status::deadline_exceeded(format!("the parameters did not arrive within {within:?}"));
    tokio::time::timeout(within, read).await.unwrap_or_else(|_| Err(late()))
}

/// Encodes a batch as IPC bytes; without a batch, they are empty.
pub(crate) fn encode(batch: Option<&RecordBatch>) -> Result<Bytes, Status> {
    let Some(batch) = batch else { return Ok(Bytes::new()) };
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, batch.schema_ref()).map_err(status::internal)?;
    writer.write(batch).and_then(|()| writer.finish()).map_err(status::internal)?;
    Ok(bytes.into())
}

/// Decodes the bytes from [`encode`].
pub(crate) fn decode(bytes: &Bytes) -> Result<Option<RecordBatch>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(status::internal)?;
    reader.next().transpose().map_err(status::internal)
}

/// Returns the parameters of a query, which accepts at most one row.
pub(crate) fn of_query(batch: Option<RecordBatch>) -> Result<Parameters, Status> {
    match batch {
        None => Ok(Parameters::none()),
        Some(batch) if batch.num_rows() > 1 => Err(Status::invalid_argument(format!(
            "{} rows of parameters are bound; a query accepts one row, and only an update runs once for each",
            batch.num_rows()
        ))),
        Some(batch) => Parameters::from_batch(batch).map_err(status::from_engine),
    }
}

/// Returns one set of parameters for each row, in order.
pub(crate) fn by_row(batch: &RecordBatch) -> impl Iterator<Item = Result<Parameters, Status>> {
    (0..batch.num_rows()).map(|row| Parameters::from_batch(batch.slice(row, 1)).map_err(status::from_engine))
}

fn too_large() -> Status {
    Status::resource_exhausted(format!(
        "the parameters take more than the {MAX_HANDLE_BYTES} bytes that fit in a handle; bind fewer rows at a time"
    ))
}
