//! Actions: create and close prepared statements, cancel running queries, set session options.

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, Command, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Empty, FlightInfo,
    Result as ActionResult,
};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use prost::Message;
use spiced_middleware::excerpt;
use tonic::{Response, Status};

use crate::codec::command::Requested;
use crate::handles::signed_handle::Kind;
use crate::request_context::Answer;
use crate::session::Caller;
use crate::state::FlightServiceState;

const CREATE_PREPARED: &str = "CreatePreparedStatement";
const CLOSE_PREPARED: &str = "ClosePreparedStatement";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const CANCEL_QUERY: &str = "CancelQuery";
const SET_OPTIONS: &str = "SetSessionOptions";
const GET_OPTIONS: &str = "GetSessionOptions";
const CLOSE_SESSION: &str = "CloseSession";

/// The supported actions, each with its request and response types.
const SERVED: [(&str, &str); 7] = [
    (
        CREATE_PREPARED,
        "Plans a statement and returns a signed handle for it. Takes ActionCreatePreparedStatementRequest, returns \
         ActionCreatePreparedStatementResult.",
    ),
    (
        CLOSE_PREPARED,
        "Drops the parameters bound to a prepared statement. Takes ActionClosePreparedStatementRequest, returns \
         nothing.",
    ),
    (
        CANCEL_FLIGHT_INFO,
        "Ends the running queries of a FlightInfo's tickets. Takes CancelFlightInfoRequest, returns \
         CancelFlightInfoResult.",
    ),
    (
        CANCEL_QUERY,
        "The same action under its older name. Takes ActionCancelQueryRequest, returns ActionCancelQueryResult.",
    ),
    (
        SET_OPTIONS,
        "Sets options, including `catalog` and `schema`, for calls that carry the cookie of the response. Takes \
         SetSessionOptionsRequest, returns SetSessionOptionsResult.",
    ),
    (GET_OPTIONS, "Returns the options that are set. Takes GetSessionOptionsRequest, returns GetSessionOptionsResult."),
    (CLOSE_SESSION, "Resets all options. Takes CloseSessionRequest, returns CloseSessionResult."),
];

/// Actions that Flight SQL clients know and this server does not support, and why.
const NOT_SERVED: [(&str, &str); 6] = [
    ("CreatePreparedSubstraitPlan", "Substrait plans are not supported; send SQL text"),
    ("BeginTransaction", "transactions are not supported; each statement takes effect on its own"),
    ("EndTransaction", "transactions are not supported; each statement takes effect on its own"),
    ("BeginSavepoint", "transactions are not supported; each statement takes effect on its own"),
    ("EndSavepoint", "transactions are not supported; each statement takes effect on its own"),
    ("RenewFlightEndpoint", "tickets cannot be renewed; request a new one with GetFlightInfo"),
];

/// Returns the response to `ListActions`.
pub(crate) fn list() -> Answer<ActionType> {
    let served = SERVED.map(|(name, what)| Ok(ActionType { r#type: name.into(), description: what.into() }));
    stream::iter(served).boxed()
}

impl FlightServiceState {
    /// Runs one action.
    pub(crate) async fn act(&self, caller: &Caller, action: Action) -> Result<Response<Answer<ActionResult>>, Status> {
        let mut cookie = None;
        let result = match action.r#type.as_str() {
            CREATE_PREPARED => {
                let request: ActionCreatePreparedStatementRequest = unpack(action.body)?;
                Some(self.create_prepared(caller, request).await?.as_any().encode_to_vec())
            }
            CLOSE_PREPARED => {
                let request: ActionClosePreparedStatementRequest = unpack(action.body)?;
                self.close_prepared(caller, &request.prepared_statement_handle)?;
                None
            }
            CANCEL_FLIGHT_INFO => {
                let request = CancelFlightInfoRequest::decode(action.body).map_err(unreadable)?;
                self.cancel(caller, request.info.unwrap_or_default())?;
                Some(CancelFlightInfoResult::new(CancelStatus::Cancelled).encode_to_vec())
            }
            CANCEL_QUERY => {
                let request: ActionCancelQueryRequest = unpack(action.body)?;
                self.cancel(caller, FlightInfo::decode(request.info).map_err(unreadable)?)?;
                // `CancelResult` of the older action has the same values as `CancelStatus`.
                Some(ActionCancelQueryResult { result: CancelStatus::Cancelled.into() }.as_any().encode_to_vec())
            }
            SET_OPTIONS => {
                let (told, set) = self.set_options(caller, action.body).await?;
                cookie = Some(set);
                Some(told)
            }
            GET_OPTIONS => {
                Empty::decode(action.body).map_err(unreadable)?;
                Some(Self::get_options(caller))
            }
            CLOSE_SESSION => {
                Empty::decode(action.body).map_err(unreadable)?;
                let (told, set) = Self::close_session();
                cookie = Some(set);
                Some(told)
            }
            other => return Err(Status::unimplemented(refusal(other))),
        };
        let result = result.map(|body| Ok(ActionResult { body: body.into() }));
        let mut response = Response::new(stream::iter(result).boxed());
        if let Some(cookie) = cookie.and_then(|cookie| cookie.try_into().ok()) {
            response.metadata_mut().insert("set-cookie", cookie);
        }
        Ok(response)
    }

    /// Cancels the queries that run under the tickets of `info`. If no query runs here, the call fails with NOT_FOUND,
    /// as the protocol requires for a query that the server does not know.
    fn cancel(&self, caller: &Caller, info: FlightInfo) -> Result<(), Status> {
        let mut cancelled = false;
        for ticket in info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket) {
            // The ticket of a metadata command is not signed, and no query runs under it.
            if let Requested::Command(Command::TicketStatementQuery(ticket)) = Requested::read(&ticket.ticket)? {
                let sealed = self.sealer.verify(Kind::Ticket, &ticket.statement_handle, caller)?;
                cancelled |= self.running.cancel(&sealed.id);
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
}

fn refusal(action: &str) -> String {
    let known = NOT_SERVED.iter().find(|(name, _)| *name == action);
    known.map_or_else(
        || format!("there is no action `{}`; ListActions lists the supported ones", excerpt(action)),
        |(_, why)| (*why).into(),
    )
}

/// Decodes the body of a Flight SQL action, which is a protobuf `Any`.
fn unpack<M: ProstMessageExt>(body: Bytes) -> Result<M, Status> {
    let unpacked = Any::decode(body).map_err(unreadable)?.unpack();
    let message = unpacked.map_err(|error| Status::invalid_argument(error.to_string()))?;
    message.ok_or_else(|| Status::invalid_argument(format!("the body of the action is not a `{}`", M::type_url())))
}

fn unreadable(error: prost::DecodeError) -> Status {
    Status::invalid_argument(format!("the body of the action cannot be read: {error}"))
}
