//! The `GetSchema` call.

use arrow_flight::sql::Command;
use arrow_flight::{FlightDescriptor, SchemaResult};
use bytes::Bytes;
use tonic::Status;

use crate::codec::command::Requested;
use crate::codec::ipc_encoder::wire_schema;
use crate::codec::responses;
use crate::session::Caller;
use crate::sql::{metadata, prepared_statement_query, statement_query};
use crate::state::FlightServiceState;

/// Returns the schema of a descriptor's rows.
pub(crate) async fn run(
    state: &FlightServiceState,
    caller: &Caller,
    descriptor: FlightDescriptor,
) -> Result<SchemaResult, Status> {
    let schema = match Requested::by(descriptor)? {
        Requested::Sql(sql) => statement_query::schema(state, caller, sql, &Bytes::new()).await?,
        Requested::Command(Command::CommandStatementQuery(query)) => {
            statement_query::schema(state, caller, query.query, &Bytes::new()).await?
        }
        Requested::Command(Command::CommandPreparedStatementQuery(query)) => {
            prepared_statement_query::schema(state, caller, &query.prepared_statement_handle).await?
        }
        Requested::Command(command) => wire_schema(&metadata::schema(state, &command)?),
    };
    responses::schema_result(&schema)
}
