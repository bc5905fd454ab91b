//! The `GetFlightInfo` call: plans a statement, and returns the ticket for its rows.

use arrow_flight::sql::Command;
use arrow_flight::{FlightDescriptor, FlightInfo};
use bytes::Bytes;
use tonic::Status;

use crate::codec::command::{self, Requested};
use crate::handles::signed_handle::StatementHandle;
use crate::session::Caller;
use crate::sql::{metadata, prepared_statement_query, statement_query};
use crate::state::FlightServiceState;

const NO_SUBSTRAIT: &str = "Substrait plans are not supported; send SQL text";

/// Returns the flight of a descriptor.
pub(crate) async fn run(
    state: &FlightServiceState,
    caller: &Caller,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    match Requested::by(descriptor.clone())? {
        Requested::Sql(sql) => {
            statement_query::info(state, caller, descriptor, &StatementHandle::new(sql, Bytes::new())).await
        }
        Requested::Command(Command::CommandStatementQuery(query)) => {
            command::no_transaction(query.transaction_id.as_ref())?;
            statement_query::info(state, caller, descriptor, &StatementHandle::new(query.query, Bytes::new())).await
        }
        Requested::Command(Command::CommandPreparedStatementQuery(query)) => {
            prepared_statement_query::info(state, caller, descriptor, &query.prepared_statement_handle).await
        }
        Requested::Command(Command::CommandStatementSubstraitPlan(_)) => Err(Status::unimplemented(NO_SUBSTRAIT)),
        Requested::Command(command) => metadata::info(state, descriptor, command),
    }
}
