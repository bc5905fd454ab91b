//! Statements: from SQL text to a ticket, from a ticket to rows, and updates to a count.

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

use crate::ipc_encoder::{Chunks, wire_schema};
use crate::parameters;
use crate::request_context::{Answer, RequestDeadline};
use crate::responses;
use crate::session::Caller;
use crate::signed_handle::{Kind, StatementHandle};
use crate::state::FlightServiceState;
use crate::status;

/// What an update answers where the statement does not say how many rows it touched.
const UNKNOWN_COUNT: i64 = -1;

impl FlightServiceState {
    /// Plans a statement and gives the ticket for it.
    pub(crate) async fn statement_info(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
        sealed: &StatementHandle,
    ) -> Result<FlightInfo, Status> {
        let planned = self.plan(caller, sealed.sql.clone()).await?;
        // Said here rather than when the ticket is used: this is where a driver shows an error.
        let parameters = parameters::of_query(parameters::decode(&sealed.parameters)?)?;
        // Without a schema a driver waits for the answer's own, and so for the statement to be done:
        // one that is executed and never fetched (ADBC's `execute`) has then had its effect.
        let schema = match planned.effect() {
            Effect::Read => {
                // Drivers compare it with the answer's own: it is that of these parameters.
                let schema = planned.schema_with(&parameters).await.map_err(status::from_engine)?;
                Some(wire_schema(&schema))
            }
            _ => None,
        };
        responses::info(descriptor, schema.as_deref(), self.ticket(caller, sealed)?)
    }

    /// The schema of a statement's answer.
    ///
    /// Before its parameters are bound, what depends on them is open.
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

    /// Runs a statement with the one row of parameters that is bound to it, if any. From here to
    /// the last row it can be cancelled by its ticket.
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

    /// Runs a statement for its effect; gives the number of rows that it touched.
    pub(crate) async fn statement_update(&self, caller: &Caller, sql: String) -> Result<i64, Status> {
        count(self.plan(caller, sql).await?.as_ref(), Parameters::none()).await
    }

    /// The signed ticket of a statement, as `DoGet` takes it.
    pub(crate) fn ticket(&self, caller: &Caller, sealed: &StatementHandle) -> Result<Bytes, Status> {
        let statement_handle = self.sealer.sign(Kind::Ticket, sealed, caller)?;
        Ok(TicketStatementQuery { statement_handle }.as_any().encode_to_vec().into())
    }
}

/// A statement that has an effect is answered when it has had it. What it answers is a count.
async fn done(Execution { schema, batches }: Execution) -> Result<Execution, Status> {
    let answer: Vec<_> = batches.try_collect().await.map_err(status::from_engine)?;
    Ok(Execution { schema, batches: stream::iter(answer.into_iter().map(Ok)).boxed() })
}

/// Runs a planned statement to its end and adds up what it says it touched: a statement that
/// changes data says so in one column, `count`. `SET` and definitions touch no row; of a query
/// that is run as an update nobody knows.
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
