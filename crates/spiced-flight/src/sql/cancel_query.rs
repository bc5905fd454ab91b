//! `CancelFlightInfo`, and `CancelQuery`, its older name.

use arrow_flight::FlightInfo;
use arrow_flight::sql::Command;
use tonic::Status;

use crate::codec::command::Requested;
use crate::handles::signed_handle::Kind;
use crate::session::Caller;
use crate::state::FlightServiceState;

/// Cancels the queries that run under the tickets of `info`. If no query runs here, the call fails with NOT_FOUND,
/// as the protocol requires for a query that the server does not know.
pub(crate) fn run(state: &FlightServiceState, caller: &Caller, info: FlightInfo) -> Result<(), Status> {
    let mut cancelled = false;
    for ticket in info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket) {
        // The ticket of a metadata command is not signed, and no query runs under it.
        if let Requested::Command(Command::TicketStatementQuery(ticket)) = Requested::read(&ticket.ticket)? {
            let statement = state.signer.verify(Kind::Ticket, &ticket.statement_handle, caller)?;
            cancelled |= state.running.cancel(&statement.id);
        }
    }
    if cancelled {
        return Ok(());
    }
    Err(Status::not_found(
        "no query is running under these tickets: it has not started, has ended, or runs on another replica; \
         cancelling the DoGet call itself ends it on any replica",
    ))
}
