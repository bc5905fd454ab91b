//! `CommandPreparedStatementQuery`: bind parameters to a prepared statement, and run it as a query.

use arrow_flight::sql::DoPutPreparedStatementResult;
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use arrow_schema::SchemaRef;
use futures::stream::Stream;
use tonic::Status;

use crate::codec::ipc_encoder::Chunks;
use crate::codec::parameters;
use crate::handles::signed_handle::{Kind, StatementHandle};
use crate::request_context::{Answer, RequestDeadline};
use crate::session::Caller;
use crate::sql::{prepared_statement, statement_query};
use crate::state::FlightServiceState;

/// Binds parameters and returns a handle that carries them. The old handle refers to them too, on this replica and for
/// a limited time, because some clients keep using it.
pub(crate) async fn bind<S>(
    state: &FlightServiceState,
    caller: &Caller,
    handle: &[u8],
    first: FlightData,
    rest: S,
) -> Result<DoPutPreparedStatementResult, Status>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
{
    let mut statement = state.signer.verify(Kind::Prepared, handle, caller)?;
    statement.parameters = parameters::encode(parameters::collect(first, rest, state.request_timeout).await?.as_ref())?;
    let handle = state.signer.sign(Kind::Prepared, &statement, caller)?;
    if statement.parameters.is_empty() {
        state.bound.remove(&statement.id);
    } else {
        state.bound.insert(statement.id, statement.parameters);
    }
    Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
}

/// Returns the ticket for a prepared query, with its parameters.
pub(crate) async fn info(
    state: &FlightServiceState,
    caller: &Caller,
    descriptor: FlightDescriptor,
    handle: &[u8],
) -> Result<FlightInfo, Status> {
    let StatementHandle { sql, parameters, .. } = prepared_statement::opened(state, caller, handle)?;
    // Each ticket has a separate id: cancelling it cancels no other run of the statement.
    statement_query::info(state, caller, descriptor, &StatementHandle::new(sql, parameters)).await
}

/// Returns the schema of a prepared query's result.
pub(crate) async fn schema(state: &FlightServiceState, caller: &Caller, handle: &[u8]) -> Result<SchemaRef, Status> {
    let StatementHandle { sql, parameters, .. } = prepared_statement::opened(state, caller, handle)?;
    statement_query::schema(state, caller, sql, &parameters).await
}

/// Runs a prepared query by its handle, for clients that use it as the ticket.
pub(crate) async fn rows(
    state: &FlightServiceState,
    caller: &Caller,
    end: RequestDeadline,
    handle: &[u8],
) -> Result<Answer<Chunks>, Status> {
    let statement = prepared_statement::opened(state, caller, handle)?;
    statement_query::run(state, caller, end, statement).await
}
