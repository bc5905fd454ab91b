//! The `DoGet` call: returns the rows of a ticket. A separate route serves it, whose frames share the memory of the
//! batches.

use std::sync::Arc;

use arrow_flight::Ticket;
use arrow_flight::sql::Command;
use axum::extract::{Request, State};
use axum::response::Response;
use prost::Message;
use tokio::time::timeout;
use tonic::Status;

use crate::codec::command::Requested;
use crate::codec::grpc_framing::{self, Received};
use crate::codec::ipc_encoder::Chunks;
use crate::request_context::{Answer, RequestDeadline};
use crate::session;
use crate::sql::{metadata, prepared_statement_query, statement_query};
use crate::state::FlightServiceState;

/// The path of the call.
pub(crate) const PATH: &str = "/arrow.flight.protocol.FlightService/DoGet";

/// Handles a `DoGet` request.
pub(crate) async fn get(State(endpoint): State<Arc<FlightServiceState>>, request: Request) -> Response {
    let answer = async {
        grpc_framing::expect_one_message(request.extensions());
        let (metadata, extensions, received) =
            grpc_framing::decode_request(request, endpoint.max_message_bytes)?.into_parts();
        let within = endpoint.request_timeout;
        let ticket = timeout(within, ticket(received)).await;
        let ticket =
            ticket.map_err(|_| Status::deadline_exceeded(format!("no ticket arrived within {within:?}")))??;
        rows(&endpoint, tonic::Request::from_parts(metadata, extensions, ticket)).await
    };
    grpc_framing::encode_response(answer.await)
}

/// Reads the ticket, which must be the only message of the request.
async fn ticket(mut received: Received) -> Result<Ticket, Status> {
    let message =
        received.message().await?.ok_or_else(|| Status::invalid_argument("the DoGet request has no ticket"))?;
    if received.message().await?.is_some() {
        return Err(Status::invalid_argument("DoGet accepts exactly one ticket"));
    }
    Ticket::decode(message).map_err(|error| Status::invalid_argument(format!("the message is not a ticket: {error}")))
}

/// Returns the rows of a ticket.
async fn rows(state: &FlightServiceState, request: tonic::Request<Ticket>) -> Result<Answer<Chunks>, Status> {
    let (caller, mut end) = (session::caller(state, &request)?, RequestDeadline::of(&request));
    match Requested::read(&request.into_inner().ticket)? {
        Requested::Command(Command::TicketStatementQuery(ticket)) => {
            statement_query::rows(state, &caller, end, &ticket.statement_handle).await
        }
        Requested::Command(Command::CommandPreparedStatementQuery(query)) => {
            prepared_statement_query::rows(state, &caller, end, &query.prepared_statement_handle).await
        }
        Requested::Command(command) => {
            let rows = end.within(metadata::rows(state, &caller, command)).await?;
            Ok(end.limit(rows))
        }
        Requested::Sql(_) => {
            Err(Status::invalid_argument("this server did not issue the ticket; GetFlightInfo returns tickets"))
        }
    }
}
