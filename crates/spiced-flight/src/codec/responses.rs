//! Encoding of batches and schemas as Flight responses.

use arrow_array::RecordBatch;
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, SchemaResult, Ticket};
use arrow_ipc::writer::IpcWriteOptions;
use arrow_schema::{ArrowError, Schema};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use spiced_engine::Execution;
use tonic::Status;

use crate::codec::ipc_encoder::{Chunks, Encoder};
use crate::request_context::Answer;
use crate::status;

/// Streams a query's batches. Each batch is requested when the previous one has been sent, and dropping the stream
/// drops the query.
pub(crate) fn query(execution: Execution) -> Result<Answer<Chunks>, Status> {
    let (mut encoder, first) = Encoder::new(&execution.schema).map_err(status::unencodable)?;
    let rest = execution
        .batches
        .map(move |batch| encoder.encode(batch.map_err(status::from_engine)?).map_err(status::unencodable));
    Ok(stream::iter([Ok(first)]).chain(rest).boxed())
}

/// Streams a single batch.
pub(crate) fn batch(batch: RecordBatch) -> Result<Answer<Chunks>, Status> {
    query(Execution { schema: batch.schema(), batches: stream::iter([Ok(batch)]).boxed() })
}

/// Encodes a schema as an encapsulated IPC message.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    Ok(message.map_err(status::unencodable)?.0)
}

/// Returns the response to `GetSchema`.
pub(crate) fn schema_result(schema: &Schema) -> Result<SchemaResult, Status> {
    Ok(SchemaResult { schema: schema_bytes(schema)? })
}

/// Returns the response to `GetFlightInfo`: one endpoint without a location, so that the client stays on its connection
/// with the TLS session and the credentials it has. Without a schema, the client uses the schema of the stream.
pub(crate) fn info(descriptor: FlightDescriptor, schema: Option<&Schema>, ticket: Bytes) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    let schema = schema.map(schema_bytes).transpose()?.unwrap_or_default();
    Ok(FlightInfo { schema, ..FlightInfo::new() }
        .with_descriptor(descriptor)
        .with_endpoint(endpoint)
        .with_ordered(true)
        .with_total_records(-1)
        .with_total_bytes(-1))
}
