//! `CommandStatementQuery` and its ticket, `TicketStatementQuery`: plans SQL text, and returns the rows of a ticket.

use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use prost::Message;
use spiced_engine::{Effect, Execution};
use tonic::Status;

use crate::codec::ipc_encoder::{Chunks, wire_schema};
use crate::codec::parameters;
use crate::codec::responses;
use crate::handles::signed_handle::{Kind, StatementHandle};
use crate::request_context::{Answer, RequestDeadline};
use crate::session::{self, Caller};
use crate::state::FlightServiceState;
use crate::status;

/// Plans a statement and returns its ticket.
pub(crate) async fn info(
    state: &FlightServiceState,
    caller: &Caller,
    descriptor: FlightDescriptor,
    statement: &StatementHandle,
) -> Result<FlightInfo, Status> {
    let planned = session::plan(state, caller, statement.sql.clone()).await?;
    // Checked here rather than when the ticket is used, because drivers report an error of this call.
    let parameters = parameters::of_query(parameters::decode(&statement.parameters)?)?;
    // Without a schema, a driver waits for that of the stream, which arrives once the statement has run. A statement
    // that is executed but never fetched (ADBC's `execute`) therefore takes effect.
    let schema = match planned.effect() {
        Effect::Read => {
            // Drivers compare this schema with that of the stream, so it must be the schema for these parameters.
            let schema = planned.schema_with(&parameters).await.map_err(status::from_engine)?;
            Some(wire_schema(&schema))
        }
        _ => None,
    };
    responses::info(descriptor, schema.as_deref(), ticket(state, caller, statement)?)
}

/// Returns the schema of a statement's result. Types that depend on unbound parameters are undetermined.
pub(crate) async fn schema(
    state: &FlightServiceState,
    caller: &Caller,
    sql: String,
    parameters: &Bytes,
) -> Result<SchemaRef, Status> {
    let planned = session::plan(state, caller, sql).await?;
    let schema = match parameters::decode(parameters)? {
        None => planned.schema(),
        bound => planned.schema_with(&parameters::of_query(bound)?).await.map_err(status::from_engine)?,
    };
    Ok(wire_schema(&schema))
}

/// Runs the statement of a ticket.
pub(crate) async fn rows(
    state: &FlightServiceState,
    caller: &Caller,
    end: RequestDeadline,
    ticket: &[u8],
) -> Result<Answer<Chunks>, Status> {
    let statement = state.signer.verify(Kind::Ticket, ticket, caller)?;
    run(state, caller, end, statement).await
}

/// Runs a statement with the row of parameters that is bound to it, if any. The query can be cancelled by its ticket
/// until the last row.
pub(crate) async fn run(
    state: &FlightServiceState,
    caller: &Caller,
    end: RequestDeadline,
    statement: StatementHandle,
) -> Result<Answer<Chunks>, Status> {
    let mut end = end.or_cancelled(state.running.enter(statement.id));
    let parameters = parameters::of_query(parameters::decode(&statement.parameters)?)?;
    let execution = end
        .within(async {
            let planned = session::plan(state, caller, statement.sql).await?;
            let execution = planned.execute(parameters).await.map_err(status::from_engine)?;
            match planned.effect() {
                Effect::Read => Ok(execution),
                _ => done(execution).await,
            }
        })
        .await?;
    Ok(end.limit(responses::query(execution)?))
}

/// Returns the signed ticket of a statement for `DoGet`.
pub(crate) fn ticket(
    state: &FlightServiceState,
    caller: &Caller,
    statement: &StatementHandle,
) -> Result<Bytes, Status> {
    let statement_handle = state.signer.sign(Kind::Ticket, statement, caller)?;
    Ok(TicketStatementQuery { statement_handle }.as_any().encode_to_vec().into())
}

/// Waits until a statement has taken effect before its result, a count, is sent.
async fn done(Execution { schema, batches }: Execution) -> Result<Execution, Status> {
    let answer: Vec<_> = batches.try_collect().await.map_err(status::from_engine)?;
    Ok(Execution { schema, batches: stream::iter(answer.into_iter().map(Ok)).boxed() })
}
