//! The gRPC endpoint: health, server reflection, and telemetry in (OTLP).
//!
//! [`health`] alone is for the endpoints that carry something else (Flight, the probe port); [`router`] is the whole
//! gRPC endpoint. Both give an [`axum::Router`] without a fallback, so that they can be merged with others; [`serve()`]
//! puts the latter on a socket. Nothing here spawns a task, so a router may serve on any number of runtimes.
//!
//! Health is open to all whom the handshake lets in. Reflection and OTLP need a [`Principal`] in the
//! request's extensions and refuse a request without one. What OTLP's services are sent is put into the
//! [`telemetry_tables`] of the engine, as the caller's own ingest; without an engine they are not there.
//!
//! ```
//! let (ready, readiness) = tokio::sync::watch::channel(true);
//! let endpoint: axum::Router = spiced_grpc::router(readiness, &["arrow.flight.protocol.FlightService"], None);
//! // Health says NOT_SERVING from here on.
//! ready.send_replace(false);
//! # drop(endpoint);
//! ```
//!
//! `examples/embed_grpc.rs` serves it over TLS.
//!
//! [`Principal`]: spiced_engine::Principal

mod body;
mod health;
mod otlp;
mod reflection;
mod serve;

use std::sync::Arc;

pub use health::Health;
pub use otlp::{TELEMETRY_SCHEMA, telemetry_tables};
pub use serve::{GrpcState, serve};

use axum::Router;
use axum::middleware::map_request;
use spiced_engine::Engine;
use tokio::sync::watch;
use tonic::service::Routes;

/// The path of every call of health, to be left open by what decides who may call.
pub const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// `grpc.health.v1.Health` on its own: `Check` and `Watch`, overall (`""`), for itself, and for
/// each of `services`, all of which follow `readiness`.
///
/// ```
/// let (ready, readiness) = tokio::sync::watch::channel(false);
/// let router = spiced_grpc::health(readiness, &["arrow.flight.protocol.FlightService"]);
/// # drop((ready, router));
/// ```
pub fn health(readiness: watch::Receiver<bool>, services: &[&str]) -> Router {
    Health::new(readiness, services).into_router()
}

/// The gRPC endpoint: [`health`], which answers for all of it, server reflection v1 and v1alpha, which describe every
/// service of this endpoint, and OTLP's, which put what they are sent into the tables of `engine`.
pub fn router(readiness: watch::Receiver<bool>, services: &[&str], engine: Option<Arc<dyn Engine>>) -> Router {
    let own = reflection::NAMES.into_iter().chain(engine.iter().flat_map(|_| otlp::NAMES));
    let names: Vec<&str> = services.iter().copied().chain(own).collect();
    let endpoint = health(readiness, &names).merge(reflection::router(engine.is_some()));
    match engine {
        Some(engine) => endpoint.merge(otlp::router(engine)),
        None => endpoint,
    }
}

/// The routes without tonic's own fallback: two routers that have one cannot be merged.
fn mergeable(routes: Routes) -> Router {
    routes.into_axum_router().reset_fallback().layer(map_request(body::prepared))
}
