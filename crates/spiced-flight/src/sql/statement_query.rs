//! Statements: SQL text to tickets, tickets to rows, and updates to row counts.

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo};
use arrow_schema::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use prost::Message;
use spiced_engine::{Effect, Execution, Parameters, Prepared};
use tonic::Status;

use crate::codec::ipc_encoder::{Chunks, wire_schema};
use crate::codec::parameters;
use crate::codec::responses;
use crate::handles::signed_handle::{Kind, StatementHandle};
use crate::request_context::{Answer, RequestDeadline};
use crate::session::Caller;
use crate::state::FlightServiceState;
use crate::status;

/// The count of an update whose statement does not report how many rows it affected.
const UNKNOWN_COUNT: i64 = -1;

impl FlightServiceState {
    /// Plans a statement and returns its ticket.
    pub(crate) async fn statement_info(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
        sealed: &StatementHandle,
    ) -> Result<FlightInfo, Status> {
        let planned = self.plan(caller, sealed.sql.clone()).await?;
        // Checked here rather than when the ticket is used, because drivers report an error of this call.
        let parameters = parameters::of_query(parameters::decode(&sealed.parameters)?)?;
        // Without a schema, a driver waits for that of the stream, and so until the statement has run. A statement that
        // is executed but never fetched (ADBC's `execute`) has then taken effect.
        let schema = match planned.effect() {
            Effect::Read => {
                // Drivers compare this schema with that of the stream, so it must be the schema for these parameters.
                let schema = planned.schema_with(&parameters).await.map_err(status::from_engine)?;
                Some(wire_schema(&schema))
            }
            _ => None,
        };
        responses::info(descriptor, schema.as_deref(), self.ticket(caller, sealed)?)
    }

    /// Returns the schema of a statement's result. Types that depend on unbound parameters are undetermined.
    pub(crate) async fn statement_schema(
        &self,
        caller: &Caller,
        sql: String,
        parameters: &Bytes,
    ) -> Result<SchemaRef, Status> {
        let planned = self.plan(caller, sql).await?;
        let schema = match parameters::decode(parameters)? {
            None => planned.schema(),
            bound => planned.schema_with(&parameters::of_query(bound)?).await.map_err(status::from_engine)?,
        };
        Ok(wire_schema(&schema))
    }

    /// Runs the statement of a ticket.
    pub(crate) async fn statement_rows(
        &self,
        caller: &Caller,
        end: RequestDeadline,
        ticket: &[u8],
    ) -> Result<Answer<Chunks>, Status> {
        let sealed = self.sealer.verify(Kind::Ticket, ticket, caller)?;
        self.run(caller, end, sealed).await
    }

    /// Runs a statement with the row of parameters that is bound to it, if any. The query can be cancelled by its
    /// ticket until the last row.
    pub(crate) async fn run(
        &self,
        caller: &Caller,
        end: RequestDeadline,
        sealed: StatementHandle,
    ) -> Result<Answer<Chunks>, Status> {
        let mut end = end.or_cancelled(self.running.enter(sealed.id));
        let parameters = parameters::of_query(parameters::decode(&sealed.parameters)?)?;
        let execution = end
            .within(async {
                let planned = self.plan(caller, sealed.sql).await?;
                let execution = planned.execute(parameters).await.map_err(status::from_engine)?;
                match planned.effect() {
                    Effect::Read => Ok(execution),
                    _ => done(execution).await,
                }
            })
            .await?;
        Ok(end.limit(responses::query(execution)?))
    }

    /// Runs an update and returns the number of affected rows.
    pub(crate) async fn statement_update(&self, caller: &Caller, sql: String) -> Result<i64, Status> {
        count(self.plan(caller, sql).await?.as_ref(), Parameters::none()).await
    }

    /// Returns the signed ticket of a statement for `DoGet`.
    pub(crate) fn ticket(&self, caller: &Caller, sealed: &StatementHandle) -> Result<Bytes, Status> {
        let statement_handle = self.sealer.sign(Kind::Ticket, sealed, caller)?;
        Ok(TicketStatementQuery { statement_handle }.as_any().encode_to_vec().into())
    }
}

/// Waits until a statement has taken effect before its result, a count, is sent.
async fn done(Execution { schema, batches }: Execution) -> Result<Execution, Status> {
    let answer: Vec<_> = batches.try_collect().await.map_err(status::from_engine)?;
    Ok(Execution { schema, batches: stream::iter(answer.into_iter().map(Ok)).boxed() })
}

/// Runs a planned statement to its end and returns the total number of affected rows. A statement that changes data
/// returns it in a single column, `count`. `SET` and DDL affect no row. The count of a query that is run as an update
/// is unknown.
pub(crate) async fn count(planned: &dyn Prepared, parameters: Parameters) -> Result<i64, Status> {
    let Execution { schema, mut batches } = planned.execute(parameters).await.map_err(status::from_engine)?;
    let counts = planned.effect() != Effect::Read && has_count(&schema);
    let mut total = 0_u64;
    while let Some(batch) = batches.try_next().await.map_err(status::from_engine)? {
        if counts {
            let column = batch.column(0).as_primitive::<UInt64Type>();
            total = column.iter().flatten().fold(total, u64::saturating_add);
        }
    }
    Ok(match planned.effect() {
        _ if counts => i64::try_from(total).unwrap_or(i64::MAX),
        Effect::Session | Effect::Ddl => 0,
        _ => UNKNOWN_COUNT,
    })
}

fn has_count(schema: &Schema) -> bool {
    matches!(schema.fields().as_ref(), [field] if field.name() == "count" && *field.data_type() == DataType::UInt64)
}
