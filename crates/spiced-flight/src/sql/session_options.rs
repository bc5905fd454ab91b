//! `SetSessionOptions`, `GetSessionOptions` and `CloseSession`. The options are set again for each request, so nothing
//! remains of them on the server.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use spiced_engine::ErrorKind;
use tonic::Status;

use crate::handles::session_cookie::{self, SessionOptions};
use crate::session::{self, Caller};
use crate::state::FlightServiceState;

/// `SetSessionOptionsResult`.
#[derive(Clone, PartialEq, Message)]
struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, SetError>,
}

#[derive(Clone, PartialEq, Message)]
struct SetError {
    #[prost(enumeration = "SetErrorValue", tag = "1")]
    value: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum SetErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

/// `CloseSessionResult`.
#[derive(Clone, PartialEq, Message)]
struct CloseResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `CloseSessionResult.Status.CLOSED`.
const CLOSED: i32 = 1;

/// The response of an action, and the cookie to set.
pub(crate) struct Reply {
    pub(crate) body: Vec<u8>,
    pub(crate) cookie: String,
}

/// Sets options. Options that cannot be set are reported individually.
pub(crate) async fn set(state: &FlightServiceState, caller: &Caller, body: Bytes) -> Result<Reply, Status> {
    let asked = SessionOptions::decode(body).map_err(unreadable)?;
    let (mut kept, mut errors) = (caller.options().clone(), HashMap::new());
    let session = session::open(state, caller).await?;
    for (name, value) in asked.options {
        match session.set(&name, value.text().as_deref()).await {
            Ok(()) if value.is_reset() => drop(kept.options.remove(&name)),
            Ok(()) => drop(kept.options.insert(name, value)),
            Err(error) => {
                let value = match error.kind() {
                    ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::Unsupported => SetErrorValue::InvalidName,
                    ErrorKind::InvalidStatement => SetErrorValue::InvalidValue,
                    _ => SetErrorValue::Error,
                };
                errors.insert(name, SetError { value: value.into() });
            }
        }
    }
    let cookie = session_cookie::set(&state.signer, &kept, caller)?;
    Ok(Reply { body: SetResult { errors }.encode_to_vec(), cookie })
}

/// Returns the options that are set.
pub(crate) fn get(caller: &Caller) -> Vec<u8> {
    caller.options().encode_to_vec()
}

/// Tells the client to drop the cookie, which is the only copy of the options.
pub(crate) fn close() -> Reply {
    Reply { body: CloseResult { status: CLOSED }.encode_to_vec(), cookie: session_cookie::clear() }
}

fn unreadable(error: prost::DecodeError) -> Status {
    Status::invalid_argument(format!("the options cannot be read: {error}"))
}
