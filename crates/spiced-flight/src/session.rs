//! Session options (`SetSessionOptions` and related actions). The client keeps them in a signed cookie, as it keeps
//! tickets, and they are set again for each request. The server stores nothing.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use prost::Message;
use spiced_engine::{ErrorKind, Principal};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::handles::signed_handle::{Kind, StatementHandle};
use crate::request_context;
use crate::state::FlightServiceState;
use crate::status;

/// The name of the cookie, as Arrow's clients and servers use it.
const COOKIE: &str = "arrow_flight_session_id";

/// The header size that clients and servers accept by default.
const MAX_COOKIE: usize = 4 << 10;

/// The caller and the session options it has set.
pub(crate) struct Caller {
    principal: Principal,
    options: BTreeMap<String, OptionValue>,
}

impl Deref for Caller {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

/// `arrow.flight.protocol.SessionOptionValue`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(Texts),
}

#[derive(Clone, PartialEq, Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

/// `SetSessionOptionsRequest`, `GetSessionOptionsResult`, and the content of the cookie.
#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(btree_map = "string, message", tag = "1")]
    options: BTreeMap<String, OptionValue>,
}

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
pub(crate) type Told = (Vec<u8>, String);

impl OptionValue {
    /// Returns the value in the form that `SET` accepts. `None` resets the option.
    fn text(&self) -> Option<String> {
        Some(match self.value.as_ref()? {
            Value::Text(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Double(number) => number.to_string(),
            Value::List(list) => list.values.join(","),
        })
    }
}

impl FlightServiceState {
    /// Returns the caller with the session options from its cookie.
    pub(crate) fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let principal = request_context::caller(request)?;
        let options = match cookie(request.metadata()) {
            None => BTreeMap::new(),
            Some(cookie) => {
                let handle = BASE64_URL_SAFE_NO_PAD.decode(cookie).unwrap_or_default();
                let sealed = self.sealer.verify(Kind::Session, &handle, &principal)?;
                Options::decode(sealed.parameters)
                    .map_err(|_| Status::invalid_argument("the session cookie cannot be decoded"))?
                    .options
            }
        };
        Ok(Caller { principal, options })
    }

    /// Opens a session for this request only, with the caller's options set.
    pub(crate) async fn session(&self, caller: &Caller) -> Result<Box<dyn spiced_engine::Session>, Status> {
        let session = self.engine.session(caller).await.map_err(status::from_engine)?;
        for (name, value) in &caller.options {
            session.set(name, value.text().as_deref()).await.map_err(status::from_engine)?;
        }
        Ok(session)
    }

    /// Sets options. Options that cannot be set are reported individually.
    pub(crate) async fn set_options(&self, caller: &Caller, body: Bytes) -> Result<Told, Status> {
        let asked = Options::decode(body).map_err(unreadable)?;
        let (mut options, mut errors) = (caller.options.clone(), HashMap::new());
        let session = self.session(caller).await?;
        for (name, value) in asked.options {
            match session.set(&name, value.text().as_deref()).await {
                Ok(()) if value.value.is_none() => drop(options.remove(&name)),
                Ok(()) => drop(options.insert(name, value)),
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
        Ok((SetResult { errors }.encode_to_vec(), self.seal_options(caller, options)?))
    }

    /// Returns the options that are set.
    pub(crate) fn get_options(caller: &Caller) -> Vec<u8> {
        Options { options: caller.options.clone() }.encode_to_vec()
    }

    /// Tells the client to drop the cookie, which is the only copy of the options.
    pub(crate) fn close_session() -> Told {
        (CloseResult { status: CLOSED }.encode_to_vec(), format!("{COOKIE}=; Max-Age=0"))
    }

    fn seal_options(&self, caller: &Caller, options: BTreeMap<String, OptionValue>) -> Result<String, Status> {
        let sealed = StatementHandle::new("", Options { options }.encode_to_vec().into());
        let handle = BASE64_URL_SAFE_NO_PAD.encode(self.sealer.sign(Kind::Session, &sealed, caller)?);
        if handle.len() > MAX_COOKIE {
            return Err(Status::resource_exhausted(
                "the options of a session may take at most 3 KiB together; set fewer",
            ));
        }
        Ok(format!("{COOKIE}={handle}"))
    }
}

/// Returns the session cookie from the `Cookie` headers (RFC 6265 §4.2).
fn cookie(metadata: &MetadataMap) -> Option<&str> {
    let headers = metadata.get_all("cookie").into_iter().filter_map(|value| value.to_str().ok());
    let mut cookies = headers.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find(|(name, value)| *name == COOKIE && !value.is_empty()).map(|(_, value)| value.trim_matches('"'))
}

fn unreadable(error: prost::DecodeError) -> Status {
    Status::invalid_argument(format!("the options cannot be read: {error}"))
}
