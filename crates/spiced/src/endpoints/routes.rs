//! Builds the router of each endpoint from the protocol crates, and puts access control in front of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use spiced_config::Settings;
use spiced_engine::Engine;
use spiced_flight::FlightOptions;
use spiced_http::{HttpOptions, HttpState, Probes, ReloadHandle};
use spiced_middleware::{
    Access, AllowedOrigins, Dialect, Hsts, Policy, Throttle, TrustedProxies, admission, either, grpc_only,
};
use spiced_telemetry::Metrics;
use tls_core::{Secret, Sourced};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{BoundEndpoint, Endpoints};
use crate::failure::Failure;
use crate::observe::status::StatusSources;
use crate::tls::Served;

const FLIGHT_ONLY: &str =
    "this endpoint speaks Arrow Flight SQL (gRPC over HTTP/2); SQL over HTTP is on the http endpoint\n";
const GRPC_ONLY: &str = "this endpoint speaks gRPC (HTTP/2); SQL over HTTP is on the http endpoint\n";

/// The access policy that all endpoints share.
pub(crate) struct AuthContext {
    pub(crate) policy: watch::Receiver<Arc<Policy>>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) proxies: TrustedProxies,
}

impl AuthContext {
    /// Returns whether all callers are on this machine. A proxy on this machine forwards for callers elsewhere.
    pub(crate) fn is_local(&self, endpoint: &BoundEndpoint) -> bool {
        endpoint.is_local() && !self.proxies.are_local()
    }

    fn on(&self, endpoint: &BoundEndpoint) -> Access {
        let access =
            Access::following(self.policy.clone()).throttled(self.throttle.clone()).behind(self.proxies.clone());
        let policy = self.policy.borrow();
        if policy.keys.is_some() && !endpoint.is_tls() && !endpoint.is_loopback() {
            warn!(
                endpoint = endpoint.endpoint,
                "API keys are sent to this endpoint in plain text, and others on the way can read them; set up \
                 runtime.tls"
            );
        }
        let is_local = self.is_local(endpoint);
        let anonymous = policy.anonymous(is_local);
        if anonymous.is_none() && !policy.has_credentials() {
            warn!(
                endpoint = endpoint.endpoint,
                "every caller is refused: the endpoint is reachable from other machines, and no credentials are set \
                 up; set up runtime.auth.api_key, or set runtime.auth.allow_anonymous to ro or rw"
            );
        }
        debug!(endpoint = endpoint.endpoint, ?anonymous, "callers without credentials");
        match (is_local, endpoint.endpoint) {
            (true, "http" | "metrics") => access.loopback(),
            (true, _) => access.local(),
            (false, _) => access,
        }
    }
}

/// The shared parts that the routers are built from.
pub(crate) struct EndpointDeps {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) ready: watch::Receiver<bool>,
    pub(crate) status: StatusSources,
    pub(crate) metrics: Metrics,
    pub(crate) http: HttpOptions,
    /// The secret that replicas share, so that each accepts the others' Flight tickets.
    pub(crate) signing_secret: Option<Secret>,
    /// Whether the metrics endpoint requires credentials.
    pub(crate) guards_metrics: bool,
    /// How long a query may take; planning counts too.
    pub(crate) query_timeout: Duration,
}

/// Builds the router of each endpoint.
pub(crate) fn build(endpoints: Endpoints, behind: EndpointDeps, callers: &AuthContext) -> Vec<(BoundEndpoint, Router)> {
    let Endpoints { http, flight, grpc, metrics: metrics_endpoint, probe } = endpoints;
    let EndpointDeps { engine, ready, status, metrics, http: options, signing_secret, guards_metrics, query_timeout } =
        behind;
    let grpc_access =
        |endpoint: &BoundEndpoint| admission(callers.on(endpoint), Dialect::Grpc).except(spiced_grpc::HEALTH_PREFIX);
    let health = || spiced_grpc::health(ready.clone(), &[spiced_flight::SERVICE_NAME]);

    let probed = Probes { readiness: ready.clone(), responsive: options.responsive.clone() };
    let http_router = spiced_http::router(HttpState {
        engine: engine.clone(),
        readiness: ready.clone(),
        status: Arc::new(move || status.status()),
        access: callers.on(&http),
        options,
    });
    let defaults = FlightOptions::default();
    let options = FlightOptions {
        signing_secret: signing_secret.unwrap_or(defaults.signing_secret),
        request_timeout: defaults.request_timeout.min(query_timeout),
        ..defaults
    };
    let flight_access = grpc_access(&flight).except(spiced_flight::HANDSHAKE);
    let flight_router = spiced_flight::router(engine.clone(), options).merge(health()).layer(flight_access);
    let grpc_router = spiced_grpc::router(ready.clone(), &[spiced_flight::SERVICE_NAME], Some(engine.clone()));
    let grpc_router = grpc_router.layer(grpc_access(&grpc));

    let mut routers = vec![
        (http, http_router),
        (flight, grpc_only(flight_router, FLIGHT_ONLY)),
        (grpc, grpc_only(grpc_router, GRPC_ONLY)),
    ];
    routers.extend(metrics_endpoint.map(|endpoint| {
        let router = metrics.router();
        match guards_metrics {
            true => {
                let access = callers.on(&endpoint);
                (endpoint, router.layer(admission(access, Dialect::Http)))
            }
            false => (endpoint, router),
        }
    }));
    routers.extend(probe.map(|endpoint| (endpoint, either(health(), spiced_http::probe_router(probed)))));
    routers
}

/// Returns the options of the HTTP endpoint. A development certificate disables HSTS, which browsers would remember.
pub(crate) fn http_options(
    settings: &Settings,
    served: Option<&Served>,
    reload: ReloadHandle,
) -> Result<HttpOptions, Failure> {
    let allowed_origins = settings.runtime.cors.allowed_origins.as_deref().map(allowed).transpose()?;
    let named = served.filter(|served| served.development_ca.is_none());
    let hsts =
        settings.runtime.http.hsts.zip(named).map(|(max_age, served)| Hsts::new(max_age, served.identities.clone()));
    Ok(HttpOptions {
        body_limit: settings.runtime.http.body_limit,
        allowed_origins,
        hsts,
        reload: Some(reload),
        ..HttpOptions::default()
    })
}

/// Parses the allowed origins; reports all invalid ones at once.
fn allowed(origins: &[Sourced<String>]) -> Result<AllowedOrigins, Failure> {
    let (mut allowed, mut causes) = (AllowedOrigins::default(), Vec::new());
    for Sourced { value, origin } in origins {
        if let Err(error) = allowed.add(value.trim()) {
            causes.push(format!("{origin}: {error}"));
        }
    }
    if causes.is_empty() {
        return Ok(allowed);
    }
    let hints = vec!["write each as a browser sends it: https://app.example.com, or * for any".to_owned()];
    Err(Failure::Configuration { causes, hints })
}
