//! Warns an operator about what the server exposes: endpoints in plain text, and web pages of any origin.

use spiced_config::Settings;
use spiced_engine::Role;
use tracing::{error, info, warn};

use super::routes::AuthContext;
use super::{BoundEndpoint, Endpoints};

/// Logs the warnings once at startup.
pub(crate) fn report(settings: &Settings, endpoints: &Endpoints, callers: &AuthContext) {
    let may_write = |endpoint: &&BoundEndpoint| {
        let anonymous = callers.policy.borrow().anonymous(callers.is_local(endpoint));
        ["http", "flight", "grpc"].contains(&endpoint.endpoint) && anonymous == Some(Role::ReadWrite)
    };
    plain_text(endpoints, may_write);
    if settings.runtime.cors.allowed_origins.as_ref().is_some_and(Vec::is_empty) {
        warn!("runtime.cors.enabled has no effect: runtime.cors.allowed_origins lists no origin");
    }
    let any_origin = settings.runtime.cors.allowed_origins.iter().flatten().any(|origin| origin.value.trim() == "*");
    if any_origin && may_write(&&endpoints.http) {
        warn!(
            endpoint = endpoints.http.endpoint,
            "pages of any origin may change data here: runtime.cors allows `*`, and callers without credentials may write; \
             name the origins, set up runtime.auth, or set runtime.auth.allow_anonymous to ro"
        );
    }
}

/// Logs one line if endpoints that could use TLS use plain text.
fn plain_text(endpoints: &Endpoints, may_write: impl Fn(&&BoundEndpoint) -> bool) {
    let plain = || endpoints.iter().filter(|endpoint| !endpoint.is_tls() && endpoint.endpoint != "probe");
    let names = |endpoints: Vec<&BoundEndpoint>| {
        endpoints.iter().map(|endpoint| endpoint.endpoint).collect::<Vec<_>>().join(", ")
    };
    let far: Vec<&BoundEndpoint> = plain().filter(|endpoint| !endpoint.is_loopback()).collect();
    let open: Vec<&BoundEndpoint> = far.iter().copied().filter(|endpoint| may_write(endpoint)).collect();
    if !open.is_empty() {
        error!(
            endpoints = names(open),
            "TLS is off, and callers without credentials may write: anyone who reaches this machine can change the \
             data; set up runtime.tls and runtime.auth, or set runtime.auth.allow_anonymous to ro"
        );
    } else if !far.is_empty() {
        warn!(
            endpoints = names(far),
            "TLS is off: data can be read and changed in transit; set up runtime.tls, or listen on localhost behind a \
             proxy that speaks TLS"
        );
    } else if plain().next().is_some() {
        info!(endpoints = names(plain().collect()), "TLS is off: plain text, only for this machine");
    }
}
