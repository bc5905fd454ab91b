//! Catalogs, schemas, tables and table types, in the columns that Flight SQL defines.
//!
//! A metadata command serves as its own ticket, because it contains nothing but what the caller sent. The engine
//! decides what the caller may see when the ticket is used.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::GetCatalogsBuilder;
use arrow_flight::sql::{Command, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables};
use arrow_flight::{FlightDescriptor, FlightInfo};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use prost::Message;
use spiced_engine::{Catalog, TableInfo};
use tonic::Status;

use crate::codec::command;
use crate::codec::ipc_encoder::{Chunks, wire_schema};
use crate::codec::responses;
use crate::request_context::Answer;
use crate::session::Caller;
use crate::sql::keys::{self, FOREIGN_KEYS, PRIMARY_KEYS};
use crate::sql::xdbc_type_info;
use crate::state::FlightServiceState;
use crate::status;

impl FlightServiceState {
    /// Returns the response to `GetFlightInfo` for a metadata command.
    pub(crate) fn metadata_info(&self, descriptor: FlightDescriptor, command: Command) -> Result<FlightInfo, Status> {
        let schema = self.metadata_schema(&command)?;
        let ticket: Bytes = command.into_any().encode_to_vec().into();
        responses::info(descriptor, Some(&wire_schema(&schema)), ticket)
    }

    /// Returns the rows of a metadata command.
    pub(crate) async fn metadata_rows(&self, caller: &Caller, command: Command) -> Result<Answer<Chunks>, Status> {
        let catalog = match command {
            Command::CommandGetCatalogs(_)
            | Command::CommandGetDbSchemas(_)
            | Command::CommandGetTables(_)
            | Command::CommandGetPrimaryKeys(_)
            | Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => {
                self.session(caller).await?.catalog().await.map_err(status::from_engine)?
            }
            _ => Catalog::default(),
        };
        let rows = match command {
            Command::CommandGetSqlInfo(command) => {
                command.into_builder(&self.sql_info).build().map_err(status::unencodable)?
            }
            command => rows(command, &catalog)?,
        };
        responses::batch(rows)
    }

    /// Returns the schema of a metadata command's rows.
    pub(crate) fn metadata_schema(&self, command: &Command) -> Result<SchemaRef, Status> {
        Ok(match command {
            Command::CommandGetCatalogs(_) => GetCatalogsBuilder::new().schema(),
            Command::CommandGetDbSchemas(command) => command.clone().into_builder().schema(),
            Command::CommandGetTables(command) => command.clone().into_builder().schema(),
            Command::CommandGetTableTypes(command) => command.into_builder().schema(),
            Command::CommandGetPrimaryKeys(_) => Arc::clone(&PRIMARY_KEYS),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => Arc::clone(&FOREIGN_KEYS),
            Command::CommandGetSqlInfo(_) => self.sql_info.schema(),
            Command::CommandGetXdbcTypeInfo(_) => xdbc_type_info::TYPES.schema(),
            other => return Err(command::misplaced(other, "GetFlightInfo")),
        })
    }
}

fn rows(command: Command, catalog: &Catalog) -> Result<RecordBatch, Status> {
    if let Some(keys) = keys::rows(&command, catalog) {
        return keys.map_err(status::unencodable);
    }
    match command {
        Command::CommandGetCatalogs(_) => catalogs(catalog),
        Command::CommandGetDbSchemas(command) => schemas(command, catalog),
        Command::CommandGetTables(command) => tables(command, catalog),
        Command::CommandGetTableTypes(command) => table_types(command),
        Command::CommandGetXdbcTypeInfo(command) => command.into_builder(&xdbc_type_info::TYPES).build(),
        other => return Err(command::misplaced(&other, "DoGet")),
    }
    .map_err(status::unencodable)
}

fn catalogs(catalog: &Catalog) -> Result<RecordBatch, FlightError> {
    let mut builder = GetCatalogsBuilder::new();
    for name in catalog.schemas.iter().map(|(catalog, _)| catalog).collect::<BTreeSet<_>>() {
        builder.append(name);
    }
    builder.build()
}

fn schemas(command: CommandGetDbSchemas, catalog: &Catalog) -> Result<RecordBatch, FlightError> {
    let mut builder = command.into_builder();
    for (catalog, schema) in &catalog.schemas {
        builder.append(catalog, schema);
    }
    builder.build()
}

fn tables(mut command: CommandGetTables, catalog: &Catalog) -> Result<RecordBatch, FlightError> {
    for kind in &mut command.table_types {
        *kind = table_type(kind).to_owned();
    }
    let mut builder = command.into_builder();
    for TableInfo { catalog, schema, name, kind, columns, .. } in &catalog.tables {
        builder.append(catalog, schema, name, table_type(kind), columns)?;
    }
    builder.build()
}

fn table_types(command: CommandGetTableTypes) -> Result<RecordBatch, FlightError> {
    let mut builder = command.into_builder();
    for kind in ["BASE TABLE", "VIEW"] {
        builder.append(table_type(kind));
    }
    builder.build()
}

/// Returns the table type of a kind in SQL's information schema. `BASE TABLE` becomes `TABLE`, the name that Flight
/// SQL, JDBC and ODBC use, and by which tools filter tables.
fn table_type(kind: &str) -> &str {
    if kind == "BASE TABLE" { "TABLE" } else { kind }
}
