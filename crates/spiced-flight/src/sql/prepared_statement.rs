//! `CreatePreparedStatement` and `ClosePreparedStatement`. The server keeps no state for a prepared statement except
//! the parameters in `bound`.

use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
};
use bytes::Bytes;
use spiced_engine::Effect;
use tonic::Status;

use crate::codec::command;
use crate::codec::ipc_encoder::wire_schema;
use crate::codec::responses;
use crate::handles::signed_handle::{HandleError, Kind, StatementHandle};
use crate::session::{self, Caller};
use crate::state::FlightServiceState;

/// Plans a statement and returns its handle, the schema of its result, and its parameters.
pub(crate) async fn create(
    state: &FlightServiceState,
    caller: &Caller,
    request: ActionCreatePreparedStatementRequest,
) -> Result<ActionCreatePreparedStatementResult, Status> {
    command::no_transaction(request.transaction_id.as_ref())?;
    let planned = session::plan(state, caller, request.query.clone()).await?;
    // A schema marks the statement as a query; JDBC chooses its call by it.
    let dataset_schema = match planned.effect() {
        Effect::Read => responses::schema_bytes(&wire_schema(&planned.schema()))?,
        _ => Bytes::new(),
    };
    let statement = StatementHandle::new(request.query, Bytes::new());
    Ok(ActionCreatePreparedStatementResult {
        prepared_statement_handle: state.signer.sign(Kind::Prepared, &statement, caller)?,
        dataset_schema,
        parameter_schema: responses::schema_bytes(planned.parameters())?,
    })
}

/// Drops the parameters bound to a handle. The handle itself stays valid until it expires.
pub(crate) fn close(
    state: &FlightServiceState,
    caller: &Caller,
    request: &ActionClosePreparedStatementRequest,
) -> Result<(), Status> {
    match state.signer.verify(Kind::Prepared, &request.prepared_statement_handle, caller) {
        Ok(statement) => state.bound.remove(&statement.id),
        Err(HandleError::Expired) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Returns the statement of a handle, with the parameters bound to it in either way.
pub(crate) fn opened(state: &FlightServiceState, caller: &Caller, handle: &[u8]) -> Result<StatementHandle, Status> {
    let mut statement = state.signer.verify(Kind::Prepared, handle, caller)?;
    if statement.parameters.is_empty()
        && let Some(bound) = state.bound.get(&statement.id)
    {
        statement.parameters = bound;
    }
    Ok(statement)
}
