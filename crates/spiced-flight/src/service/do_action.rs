//! The `DoAction` call: decodes an action, and runs it.

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, ProstMessageExt,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Empty, FlightInfo, Result as ActionResult,
};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use prost::Message;
use spiced_middleware::excerpt;
use tonic::{Response, Status};

use crate::request_context::Answer;
use crate::service::list_actions::{
    CANCEL_FLIGHT_INFO, CANCEL_QUERY, CLOSE_PREPARED, CLOSE_SESSION, CREATE_PREPARED, GET_OPTIONS, SET_OPTIONS,
};
use crate::session::Caller;
use crate::sql::{cancel_query, prepared_statement, session_options};
use crate::state::FlightServiceState;

/// Actions that Flight SQL clients know and this server does not support, and why.
const NOT_SERVED: [(&str, &str); 6] = [
    ("CreatePreparedSubstraitPlan", "Substrait plans are not supported; send SQL text"),
    ("BeginTransaction", "transactions are not supported; each statement takes effect on its own"),
    ("EndTransaction", "transactions are not supported; each statement takes effect on its own"),
    ("BeginSavepoint", "transactions are not supported; each statement takes effect on its own"),
    ("EndSavepoint", "transactions are not supported; each statement takes effect on its own"),
    ("RenewFlightEndpoint", "tickets cannot be renewed; request a new one with GetFlightInfo"),
];

/// Runs one action.
pub(crate) async fn run(
    state: &FlightServiceState,
    caller: &Caller,
    action: Action,
) -> Result<Response<Answer<ActionResult>>, Status> {
    let mut cookie = None;
    let result = match action.r#type.as_str() {
        CREATE_PREPARED => {
            let request: ActionCreatePreparedStatementRequest = unpack(action.body)?;
            Some(prepared_statement::create(state, caller, request).await?.as_any().encode_to_vec())
        }
        CLOSE_PREPARED => {
            let request: ActionClosePreparedStatementRequest = unpack(action.body)?;
            prepared_statement::close(state, caller, &request)?;
            None
        }
        CANCEL_FLIGHT_INFO => {
            let request = CancelFlightInfoRequest::decode(action.body).map_err(unreadable)?;
            cancel_query::run(state, caller, request.info.unwrap_or_default())?;
            Some(CancelFlightInfoResult::new(CancelStatus::Cancelled).encode_to_vec())
        }
        CANCEL_QUERY => {
            let request: ActionCancelQueryRequest = unpack(action.body)?;
            cancel_query::run(state, caller, FlightInfo::decode(request.info).map_err(unreadable)?)?;
            // `CancelResult` of the older action has the same values as `CancelStatus`.
            Some(ActionCancelQueryResult { result: CancelStatus::Cancelled.into() }.as_any().encode_to_vec())
        }
        SET_OPTIONS => {
            let reply = session_options::set(state, caller, action.body).await?;
            cookie = Some(reply.cookie);
            Some(reply.body)
        }
        GET_OPTIONS => {
            Empty::decode(action.body).map_err(unreadable)?;
            Some(session_options::get(caller))
        }
        CLOSE_SESSION => {
            Empty::decode(action.body).map_err(unreadable)?;
            let reply = session_options::close();
            cookie = Some(reply.cookie);
            Some(reply.body)
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
