//! Session options in a signed cookie, which the client keeps as it keeps tickets. The server stores nothing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use prost::Message;
use spiced_engine::Principal;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::handles::signed_handle::{HandleSigner, Kind, StatementHandle};

/// The name of the cookie, as Arrow's clients and servers use it.
const COOKIE: &str = "arrow_flight_session_id";

/// The header size that clients and servers accept by default.
const MAX_COOKIE: usize = 4 << 10;

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
pub(crate) struct SessionOptions {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) options: BTreeMap<String, OptionValue>,
}

impl OptionValue {
    /// Returns true if the client asks to reset the option.
    pub(crate) fn is_reset(&self) -> bool {
        self.value.is_none()
    }

    /// Returns the value in the form that `SET` accepts. `None` resets the option.
    pub(crate) fn text(&self) -> Option<String> {
        Some(match self.value.as_ref()? {
            Value::Text(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Double(number) => number.to_string(),
            Value::List(list) => list.values.join(","),
        })
    }
}

/// Returns the options in the cookie of a request; none without a cookie.
pub(crate) fn read(
    signer: &HandleSigner,
    metadata: &MetadataMap,
    principal: &Principal,
) -> Result<SessionOptions, Status> {
    let Some(cookie) = find(metadata) else { return Ok(SessionOptions::default()) };
    let handle = BASE64_URL_SAFE_NO_PAD.decode(cookie).unwrap_or_default();
    let signed = signer.verify(Kind::Session, &handle, principal)?;
    SessionOptions::decode(signed.parameters)
        .map_err(|_| Status::invalid_argument("the session cookie cannot be decoded"))
}

/// Returns the value of `Set-Cookie` that makes the client keep these options.
pub(crate) fn set(signer: &HandleSigner, options: &SessionOptions, principal: &Principal) -> Result<String, Status> {
    let content = StatementHandle::new("", options.encode_to_vec().into());
    let handle = BASE64_URL_SAFE_NO_PAD.encode(signer.sign(Kind::Session, &content, principal)?);
    if handle.len() > MAX_COOKIE {
        return Err(Status::resource_exhausted("the options of a session may take at most 3 KiB together; set fewer"));
    }
    Ok(format!("{COOKIE}={handle}"))
}

/// Returns the value of `Set-Cookie` that makes the client drop its cookie.
pub(crate) fn clear() -> String {
    format!("{COOKIE}=; Max-Age=0")
}

/// Returns the session cookie from the `Cookie` headers (RFC 6265 §4.2).
fn find(metadata: &MetadataMap) -> Option<&str> {
    let headers = metadata.get_all("cookie").into_iter().filter_map(|value| value.to_str().ok());
    let mut cookies = headers.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find(|(name, value)| *name == COOKIE && !value.is_empty()).map(|(_, value)| value.trim_matches('"'))
}
