//! `DoPut`: updates, and the parameters of prepared statements.

use std::sync::Arc;

use arrow_flight::sql::{Command, DoPutUpdateResult};
use arrow_flight::{FlightData, PutResult};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::stream::{self, StreamExt, TryStreamExt};
use prost::Message;
use tokio::time::timeout;
use tonic::Status;

use crate::call::{Answer, End};
use crate::command::{self, Asked};
use crate::door::Door;
use crate::encode::Parts;
use crate::prepared;
use crate::session::Caller;
use crate::wire;

/// The path of the call.
pub(crate) const PATH: &str = "/arrow.flight.protocol.FlightService/DoPut";

/// Answers the call.
pub(crate) async fn put(State(door): State<Arc<Door>>, request: Request) -> Response {
    let answer = async {
        let request = wire::received(request, door.max_message_bytes)?;
        let (caller, mut end) = (door.caller(&request)?, End::of(&request));
        let answer = end.within(door.put(&caller, request.into_inner().flight_data())).await?;
        Ok(end.limit(answer))
    };
    wire::answered(answer.await)
}

impl Door {
    /// Does what the first message's descriptor asks for.
    pub(crate) async fn put(&self, caller: &Caller, mut messages: Answer<FlightData>) -> Result<Answer<Parts>, Status> {
        let within = self.request_timeout;
        let first = timeout(within, messages.try_next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded(format!("no message came within {within:?}")))??;
        // ADBC's driver for Go sends no message at all where it has no rows to put in (arrow-adbc#2071): neither the
        // command nor the columns. Nothing is what is then done, and its count is 0.
        let Some(mut first) = first else { return Ok(once(&DoPutUpdateResult { record_count: 0 })) };
        let descriptor = first.flight_descriptor.take();
        let descriptor =
            descriptor.ok_or_else(|| Status::invalid_argument("the first message of DoPut has no descriptor"))?;
        match Asked::by(descriptor)? {
            Asked::Command(Command::CommandStatementUpdate(update)) => {
                prepared::no_transaction(update.transaction_id.as_ref())?;
                let record_count = self.statement_update(caller, update.query).await?;
                // Some clients end their side only after they have read the count.
                let rest = messages.filter_map(|message| async { message.err().map(Err) });
                Ok(stream::iter([Ok(result(&DoPutUpdateResult { record_count }))]).chain(rest).boxed())
            }
            Asked::Command(Command::CommandPreparedStatementUpdate(update)) => {
                let handle = update.prepared_statement_handle;
                let record_count = self.prepared_update(caller, &handle, first, messages).await?;
                Ok(once(&DoPutUpdateResult { record_count }))
            }
            Asked::Command(Command::CommandPreparedStatementQuery(query)) => {
                let handle = query.prepared_statement_handle;
                Ok(once(&self.bind(caller, &handle, first, messages).await?))
            }
            Asked::Command(Command::CommandStatementSubstraitPlan(_)) => Err(Status::unimplemented(
                "Substrait plans are not served here; send SQL text as CommandStatementUpdate",
            )),
            Asked::Command(Command::CommandStatementIngest(ingest)) => {
                let record_count = self.ingest(caller, ingest, first, messages).await?;
                Ok(once(&DoPutUpdateResult { record_count }))
            }
            Asked::Command(other) => Err(command::misplaced(&other, "DoPut")),
            Asked::Sql(_) => {
                Err(Status::invalid_argument("DoPut takes SQL text as CommandStatementUpdate, not as the bare command"))
            }
        }
    }
}

fn once(message: &impl Message) -> Answer<Parts> {
    stream::iter([Ok(result(message))]).boxed()
}

fn result(message: &impl Message) -> Parts {
    wire::framed(&PutResult { app_metadata: message.encode_to_vec().into() })
}
