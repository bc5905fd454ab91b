//! Prepares requests before tonic reads them.

use axum::body::Body;
use axum::extract::Request;
use http_body_util::{BodyExt, Limited};

use crate::codec::grpc_framing;
use crate::service::handshake::HANDSHAKE;
use crate::status;

/// The most bytes that a Handshake may send in total: a user and a password.
const MAX_HANDSHAKE: usize = 16 << 10;

/// Prepares a request for tonic: body errors become gRPC statuses, and an unauthenticated client may send little.
pub(crate) async fn prepared(request: Request) -> Request {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let body = if path == HANDSHAKE { Body::new(Limited::new(body, MAX_HANDSHAKE)) } else { body };
    if path != HANDSHAKE {
        grpc_framing::expect_one_message(&parts.extensions);
    }
    Request::from_parts(parts, Body::new(body.map_err(|error| status::from_body(&error))))
}
