//! The Handshake call: a client sends a user and a password, and receives the header to send from then on.
//!
//! The token is the API key that was sent as the password. It is valid on every replica until the key is revoked.

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

/// The path of the call. Exclude it from the admission layer: the handler authenticates the client.
pub const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// How long a client may take to send its first message.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Exchanges Basic credentials, as metadata or as the payload, for a bearer token: the key itself.
pub(crate) async fn answer(
    request: Request<Streaming<HandshakeRequest>>,
) -> Result<Response<Answer<HandshakeResponse>>, Status> {
    let (metadata, extensions, mut messages) = request.into_parts();
    let Some(access) = extensions.get::<Access>() else {
        return Err(Status::unimplemented(
            "this server does not exchange credentials; connect without a user and a password",
        ));
    };
    let headers = metadata.into_headers();
    // A client with credentials in its headers need not send a message, and some clients send none.
    let payload = match headers.contains_key("authorization") || headers.contains_key("x-api-key") {
        true => None,
        false => tokio::time::timeout(TIMEOUT, messages.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no message arrived within 10 s"))??,
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

/// Returns the password of a `BasicAuth` message, in which some clients send their credentials.
fn password(payload: Bytes) -> Option<Secret> {
    let BasicAuth { password, .. } = BasicAuth::decode(payload).ok()?;
    Some(Secret::from(password))
}

fn bearer(key: &Secret) -> Option<MetadataValue<tonic::metadata::Ascii>> {
    let mut value = MetadataValue::try_from([b"Bearer ", key.expose()].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
