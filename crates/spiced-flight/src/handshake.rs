//! The call in which a client shows a user and a password, and gets what it sends from then on.
//!
//! The token is the key that was the password: it is good on every replica, and ends when the key is
//! taken away.

use std::time::Duration;

use arrow_flight::{BasicAuth, HandshakeRequest, HandshakeResponse};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use prost::Message;
use spiced_middleware::Access;
use tls_core::{ConnInfo, Secret};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::request_context::Answer;

/// The path of the call, to be left open by what decides who may call: it decides by itself.
pub const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// How long a client may take for its first message.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn answer(
    request: Request<Streaming<HandshakeRequest>>,
) -> Result<Response<Answer<HandshakeResponse>>, Status> {
    let (metadata, extensions, mut messages) = request.into_parts();
    let Some(access) = extensions.get::<Access>() else {
        return Err(Status::unimplemented("no credentials are traded here; connect without a user and a password"));
    };
    let headers = metadata.into_headers();
    // Who has shown its credentials need not say more; some say nothing at all.
    let payload = match headers.contains_key("authorization") || headers.contains_key("x-api-key") {
        true => None,
        false => tokio::time::timeout(TIMEOUT, messages.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no message came within 10 s"))??,
    };
    let password = payload.and_then(|message| password(message.payload));
    let (admitted, key) = access.admit_bearer(&headers, password, extensions.get::<ConnInfo>());
    if let Err(refusal) = admitted.decision().await {
        return Err(Status::new(Code::from(refusal.grpc_code()), refusal.message()));
    }
    let payload = key.as_ref().map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.expose()));
    let message = HandshakeResponse { protocol_version: 0, payload };
    let mut response = Response::new(stream::iter([Ok(message)]).boxed());
    if let Some(token) = key.as_ref().and_then(bearer) {
        response.metadata_mut().insert("authorization", token);
    }
    Ok(response)
}

/// The password of a `BasicAuth` message, as the payload of clients that show it there.
fn password(payload: Bytes) -> Option<Secret> {
    let BasicAuth { password, .. } = BasicAuth::decode(payload).ok()?;
    Some(Secret::from(password))
}

fn bearer(key: &Secret) -> Option<MetadataValue<tonic::metadata::Ascii>> {
    let mut value = MetadataValue::try_from([b"Bearer ", key.expose()].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
