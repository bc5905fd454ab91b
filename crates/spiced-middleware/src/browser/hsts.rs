//! Strict-Transport-Security (RFC 6797): makes browsers use HTTPS only.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use http::header::STRICT_TRANSPORT_SECURITY;
use tls_core::ConnInfo;
use tls_core::rotation::Identities;

use crate::browser::host::{authority, is_loopback_name};

/// Decides whether a response carries the header.
#[derive(Debug, Clone)]
pub struct Hsts {
    value: HeaderValue,
    identities: Identities,
}

impl Hsts {
    /// Sets `max_age` for the header, which is sent if `identities` presents a certificate signed by a CA.
    pub fn new(max_age: Duration, identities: Identities) -> Self {
        let value = HeaderValue::try_from(format!("max-age={}", max_age.as_secs())).expect("digits fit a header");
        Self { value, identities }
    }

    /// Adds the header; a middleware for `axum::middleware::from_fn_with_state`. The header is sent only over TLS
    /// (§7.2), and never if it could lock a developer out: for localhost, an IP address (§8.1.1), or a self-signed
    /// certificate.
    pub async fn apply(State(hsts): State<Self>, request: Request, next: Next) -> Response {
        let tls = request.extensions().get::<ConnInfo>().and_then(|c| c.tls.clone());
        let is_name = tls.is_some()
            && authority(request.headers(), Some(request.uri())).is_some_and(|authority| {
                let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
                !is_loopback_name(bare) && bare.parse::<std::net::IpAddr>().is_err()
            });
        let mut response = next.run(request).await;
        let is_signed = |tls: &tls_core::TlsInfo| {
            let served = hsts.identities.served().identities;
            served.answer(tls.server_name.as_deref()).is_some_and(|identity| !identity.leaf().self_signed)
        };
        if is_name && tls.is_some_and(|tls| is_signed(&tls)) {
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.value);
        }
        response
    }
}
