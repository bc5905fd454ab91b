//! What stands behind each door: the protocol crates' routers, and who is let in to them.

use std::sync::Arc;

use axum::Router;
use spiced_config::Settings;
use spiced_engine::{Engine, Role};
use spiced_flight::FlightOptions;
use spiced_http::{HttpOptions, HttpState};
use spiced_middleware::{Access, Dialect, admission};
use spiced_telemetry::Metrics;
use tls_core::Secret;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::browse::{either, grpc_only};
use crate::doors::{Doors, Opened};
use crate::status::Status;

const FLIGHT_ONLY: &str = "this door speaks Arrow Flight SQL (gRPC over HTTP/2); SQL over HTTP is on the http door\n";
const GRPC_ONLY: &str = "this door speaks gRPC (HTTP/2); SQL over HTTP is on the http door\n";

/// Puts a router behind each door. `signing_secret` is what replicas share to take each other's
/// Flight tickets.
pub(crate) fn build(
    doors: Doors,
    settings: &Settings,
    signing_secret: Option<Secret>,
    engine: Arc<dyn Engine>,
    ready: watch::Receiver<bool>,
    status: Status,
    metrics: Metrics,
) -> Vec<(Opened, Router)> {
    let Doors { http, flight, grpc, metrics: metrics_door, probe } = doors;
    let access = |door: &Opened| access(settings, door);
    let grpc_access = |door: &Opened| admission(access(door), Dialect::Grpc).except(spiced_grpc::HEALTH_PREFIX);
    let health = || spiced_grpc::health(ready.clone(), &[spiced_flight::SERVICE_NAME]);

    let http_access = if http.is_loopback() { access(&http).loopback() } else { access(&http) };
    let http_router = spiced_http::router(HttpState {
        engine: engine.clone(),
        readiness: ready.clone(),
        status: Arc::new(move || status.document()),
        access: http_access,
        options: HttpOptions { body_limit: settings.http_body_limit, ..HttpOptions::default() },
    });
    let defaults = FlightOptions::default();
    let options = FlightOptions { signing_secret: signing_secret.unwrap_or(defaults.signing_secret), ..defaults };
    let flight_router = spiced_flight::router(engine, options).merge(health()).layer(grpc_access(&flight));
    let grpc_router = spiced_grpc::router(ready.clone(), &[spiced_flight::SERVICE_NAME]).layer(grpc_access(&grpc));

    let mut routers = vec![
        (http, http_router),
        (flight, grpc_only(flight_router, FLIGHT_ONLY)),
        (grpc, grpc_only(grpc_router, GRPC_ONLY)),
    ];
    routers.extend(metrics_door.map(|door| (door, metrics.router())));
    routers.extend(probe.map(|door| (door, either(health(), spiced_http::probe_router(ready.clone())))));
    routers
}

/// Who may call on a door: what the pod says, else anybody on a door that is this machine's alone.
fn access(settings: &Settings, door: &Opened) -> Access {
    let role = |writes| if writes { Role::ReadWrite } else { Role::ReadOnly };
    let anonymous = match settings.allow_anonymous {
        Some(said) => said.map(role),
        None if door.is_loopback() => Some(Role::ReadWrite),
        None => None,
    };
    if anonymous.is_none() {
        warn!(
            endpoint = door.endpoint,
            "nobody is let in: the door is not for this machine alone and there are no credentials; set runtime.auth.allow_anonymous to ro or rw"
        );
    }
    debug!(endpoint = door.endpoint, ?anonymous, "callers without credentials");
    Access::anonymous(anonymous)
}
