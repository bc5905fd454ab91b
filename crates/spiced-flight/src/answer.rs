//! From batches to messages, and the schema as the messages will have it.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::encode::{FlightDataEncoder, FlightDataEncoderBuilder};
use arrow_flight::{
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, SchemaResult, Ticket,
};
use arrow_ipc::writer::IpcWriteOptions;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use spiced_engine::Execution;
use tonic::Status;

use crate::call::Answer;
use crate::status;

/// A query's batches, as they are made: the next is asked for when the last has been sent, and
/// dropping the answer drops the query.
pub(crate) fn query(execution: Execution) -> Answer<FlightData> {
    let batches = execution.batches.map_err(|error| status::from_engine(error).into());
    messages(FlightDataEncoderBuilder::new().with_schema(execution.schema).build(batches))
}

/// One batch.
pub(crate) fn batch(batch: RecordBatch) -> Answer<FlightData> {
    messages(FlightDataEncoderBuilder::new().with_schema(batch.schema()).build(stream::iter([Ok(batch)])))
}

/// The schema that [`query`] sends for batches of `schema`: dictionaries are sent as plain values,
/// and clients compare.
pub(crate) fn wire_schema(schema: &SchemaRef) -> SchemaRef {
    let encoder = FlightDataEncoderBuilder::new().with_schema(Arc::clone(schema)).build(stream::empty());
    encoder.known_schema().expect("the encoder was given the schema")
}

/// A schema as an encapsulated IPC message.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    Ok(message.map_err(status::unencodable)?.0)
}

/// What `GetSchema` answers.
pub(crate) fn schema_result(schema: &Schema) -> Result<SchemaResult, Status> {
    Ok(SchemaResult { schema: schema_bytes(schema)? })
}

/// What `GetFlightInfo` answers: one endpoint without a location, so that the client stays on the
/// connection that it has, with its TLS and its credentials.
/// Without a schema, the client takes the answer's own.
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

fn messages(encoder: FlightDataEncoder) -> Answer<FlightData> {
    encoder.map_err(status::unencodable).boxed()
}
