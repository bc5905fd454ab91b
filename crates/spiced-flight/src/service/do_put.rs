//! The `DoPut` call: updates, ingests, and the parameters of prepared statements. A separate route serves it, which
//! reads bodies at the alignment that arrow-ipc requires.

use std::sync::Arc;

use arrow_flight::sql::{Command, DoPutUpdateResult};
use arrow_flight::{FlightData, PutResult};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::stream::{self, StreamExt, TryStreamExt};
use prost::Message;
use tokio::time::timeout;
use tonic::Status;

use crate::codec::command::{self, Requested};
use crate::codec::grpc_framing;
use crate::codec::ipc_encoder::Chunks;
use crate::request_context::{Answer, RequestDeadline};
use crate::session::{self, Caller};
use crate::sql::{prepared_statement_query, prepared_statement_update, statement_ingest, statement_update};
use crate::state::FlightServiceState;

/// The path of the call.
pub(crate) const PATH: &str = "/arrow.flight.protocol.FlightService/DoPut";

/// Handles a `DoPut` request.
pub(crate) async fn put(State(endpoint): State<Arc<FlightServiceState>>, request: Request) -> Response {
    let answer = async {
        let request = grpc_framing::decode_request(request, endpoint.max_message_bytes)?;
        let (caller, mut end) = (session::caller(&endpoint, &request)?, RequestDeadline::of(&request));
        let answer = end.within(run(&endpoint, &caller, request.into_inner().flight_data())).await?;
        Ok(end.limit(answer))
    };
    grpc_framing::encode_response(answer.await)
}

/// Runs the command in the first message's descriptor.
async fn run(
    state: &FlightServiceState,
    caller: &Caller,
    mut messages: Answer<FlightData>,
) -> Result<Answer<Chunks>, Status> {
    let within = state.request_timeout;
    let first = timeout(within, messages.try_next()).await;
    let first = first.map_err(|_| Status::deadline_exceeded(format!("no message arrived within {within:?}")))??;
    // ADBC's driver for Go sends no message at all if it has no rows to ingest (arrow-adbc#2071), neither the
    // command nor the columns. The request is then a no-op with the count 0.
    let Some(mut first) = first else { return Ok(once(&DoPutUpdateResult { record_count: 0 })) };
    let descriptor = first.flight_descriptor.take();
    let descriptor =
        descriptor.ok_or_else(|| Status::invalid_argument("the first message of DoPut has no descriptor"))?;
    match Requested::by(descriptor)? {
        Requested::Command(Command::CommandStatementUpdate(update)) => {
            let record_count = statement_update::run(state, caller, update).await?;
            // Some clients end their side only after they have read the count.
            let rest = messages.filter_map(|message| async { message.err().map(Err) });
            Ok(stream::iter([Ok(result(&DoPutUpdateResult { record_count }))]).chain(rest).boxed())
        }
        Requested::Command(Command::CommandPreparedStatementUpdate(update)) => {
            let handle = update.prepared_statement_handle;
            let record_count = prepared_statement_update::run(state, caller, &handle, first, messages).await?;
            Ok(once(&DoPutUpdateResult { record_count }))
        }
        Requested::Command(Command::CommandPreparedStatementQuery(query)) => {
            let handle = query.prepared_statement_handle;
            Ok(once(&prepared_statement_query::bind(state, caller, &handle, first, messages).await?))
        }
        Requested::Command(Command::CommandStatementSubstraitPlan(_)) => {
            Err(Status::unimplemented("Substrait plans are not supported; send SQL text as CommandStatementUpdate"))
        }
        Requested::Command(Command::CommandStatementIngest(ingest)) => {
            let record_count = statement_ingest::run(state, caller, ingest, first, messages).await?;
            Ok(once(&DoPutUpdateResult { record_count }))
        }
        Requested::Command(other) => Err(command::misplaced(&other, "DoPut")),
        Requested::Sql(_) => {
            Err(Status::invalid_argument("DoPut accepts SQL text as CommandStatementUpdate, not as the bare command"))
        }
    }
}
fn once(message: &impl Message) -> Answer<Chunks> {
    stream::iter([Ok(result(message))]).boxed()
}

fn result(message: &impl Message) -> Chunks {
    grpc_framing::framed(&PutResult { app_metadata: message.encode_to_vec().into() })
}
