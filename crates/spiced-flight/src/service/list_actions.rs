//! The `ListActions` call, and the actions by name.

use arrow_flight::ActionType;
use futures::stream::{self, StreamExt};

use crate::request_context::Answer;

pub(crate) const CREATE_PREPARED: &str = "CreatePreparedStatement";
pub(crate) const CLOSE_PREPARED: &str = "ClosePreparedStatement";
pub(crate) const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
pub(crate) const CANCEL_QUERY: &str = "CancelQuery";
pub(crate) const SET_OPTIONS: &str = "SetSessionOptions";
pub(crate) const GET_OPTIONS: &str = "GetSessionOptions";
pub(crate) const CLOSE_SESSION: &str = "CloseSession";

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

/// Returns the response to `ListActions`.
pub(crate) fn list() -> Answer<ActionType> {
    let served = SERVED.map(|(name, what)| Ok(ActionType { r#type: name.into(), description: what.into() }));
    stream::iter(served).boxed()
}
