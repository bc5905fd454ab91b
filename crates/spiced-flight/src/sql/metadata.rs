//! The commands that describe the catalog and the server, in the columns that Flight SQL defines.
//!
//! A metadata command serves as its own ticket, because it contains nothing but what the caller sent. The engine
//! decides what the caller may see when the ticket is used.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::sql::Command;
use arrow_flight::sql::metadata::GetCatalogsBuilder;
use arrow_flight::{FlightDescriptor, FlightInfo};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use prost::Message;
use spiced_engine::Catalog;
use tonic::Status;

use crate::codec::command;
use crate::codec::ipc_encoder::{Chunks, wire_schema};
use crate::codec::responses;
use crate::request_context::Answer;
use crate::session::{self, Caller};
use crate::sql::{catalogs, db_schemas, foreign_keys, primary_keys, table_types, tables, xdbc_type_info};
use crate::state::FlightServiceState;
use crate::status;

/// Returns the response to `GetFlightInfo` for a metadata command.
pub(crate) fn info(
    state: &FlightServiceState,
    descriptor: FlightDescriptor,
    command: Command,
) -> Result<FlightInfo, Status> {
    let schema = schema(state, &command)?;
    let ticket: Bytes = command.into_any().encode_to_vec().into();
    responses::info(descriptor, Some(&wire_schema(&schema)), ticket)
}

/// Returns the rows of a metadata command.
pub(crate) async fn rows(
    state: &FlightServiceState,
    caller: &Caller,
    command: Command,
) -> Result<Answer<Chunks>, Status> {
    let catalog = match command {
        Command::CommandGetCatalogs(_)
        | Command::CommandGetDbSchemas(_)
        | Command::CommandGetTables(_)
        | Command::CommandGetPrimaryKeys(_)
        | Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => {
            session::open(state, caller).await?.catalog().await.map_err(status::from_engine)?
        }
        _ => Catalog::default(),
    };
    responses::batch(batch(state, command, &catalog)?)
}

/// Returns the schema of a metadata command's rows.
pub(crate) fn schema(state: &FlightServiceState, command: &Command) -> Result<SchemaRef, Status> {
    Ok(match command {
        Command::CommandGetCatalogs(_) => GetCatalogsBuilder::new().schema(),
        Command::CommandGetDbSchemas(command) => command.clone().into_builder().schema(),
        Command::CommandGetTables(command) => command.clone().into_builder().schema(),
        Command::CommandGetTableTypes(command) => command.into_builder().schema(),
        Command::CommandGetPrimaryKeys(_) => Arc::clone(&primary_keys::SCHEMA),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => Arc::clone(&foreign_keys::SCHEMA),
        Command::CommandGetSqlInfo(_) => state.sql_info.schema(),
        Command::CommandGetXdbcTypeInfo(_) => xdbc_type_info::TYPES.schema(),
        other => return Err(command::misplaced(other, "GetFlightInfo")),
    })
}

fn batch(state: &FlightServiceState, command: Command, catalog: &Catalog) -> Result<RecordBatch, Status> {
    match command {
        Command::CommandGetCatalogs(_) => catalogs::rows(catalog),
        Command::CommandGetDbSchemas(command) => db_schemas::rows(command, catalog),
        Command::CommandGetTables(command) => tables::rows(command, catalog),
        Command::CommandGetTableTypes(command) => table_types::rows(command),
        Command::CommandGetPrimaryKeys(command) => primary_keys::rows(&command, catalog),
        Command::CommandGetImportedKeys(command) => foreign_keys::imported(&command, catalog),
        Command::CommandGetExportedKeys(command) => foreign_keys::exported(&command, catalog),
        Command::CommandGetCrossReference(command) => foreign_keys::cross_reference(&command, catalog),
        Command::CommandGetSqlInfo(command) => command.into_builder(&state.sql_info).build(),
        Command::CommandGetXdbcTypeInfo(command) => command.into_builder(&xdbc_type_info::TYPES).build(),
        other => return Err(command::misplaced(&other, "DoGet")),
    }
    .map_err(status::unencodable)
}
