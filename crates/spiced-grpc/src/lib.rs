//! The gRPC endpoint: health, server reflection, and telemetry ingest (OTLP).
//!
//! [`health`] is for endpoints that mainly serve another protocol (Flight, the probe port); [`router`] is the whole
//! gRPC endpoint. Both return an [`axum::Router`] without a fallback, so that they can be merged with others;
//! [`serve()`] serves the latter on a socket. This crate spawns no task, so a router can run on any runtime.
//!
//! Health is open to every client that the handshake accepts. Reflection and OTLP require a [`Principal`] in the
//! request's extensions and reject a request without one. The OTLP services write to the [`telemetry_tables`] of the
//! engine, as an ingest by the caller; without an engine, these services are absent.
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

/// The path prefix of every health call, which access control must leave open.
pub const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// A router with only `grpc.health.v1.Health`: `Check` and `Watch` for the server overall (`""`), for the health
/// service and for each of `services`. All of these statuses follow `readiness`.
///
/// ```
/// let (ready, readiness) = tokio::sync::watch::channel(false);
/// let router = spiced_grpc::health(readiness, &["arrow.flight.protocol.FlightService"]);
/// # drop((ready, router));
/// ```
pub fn health(readiness: watch::Receiver<bool>, services: &[&str]) -> Router {
    Health::new(readiness, services).into_router()
}

/// The gRPC endpoint: [`health`], which covers all its services; server reflection v1 and v1alpha, which describe every
/// service of this endpoint; and the OTLP services, which write to the tables of `engine`.
pub fn router(readiness: watch::Receiver<bool>, services: &[&str], engine: Option<Arc<dyn Engine>>) -> Router {
    let own = reflection::NAMES.into_iter().chain(engine.iter().flat_map(|_| otlp::NAMES));
    let names: Vec<&str> = services.iter().copied().chain(own).collect();
    let endpoint = health(readiness, &names).merge(reflection::router(engine.is_some()));
    match engine {
        Some(engine) => endpoint.merge(otlp::router(engine)),
        None => endpoint,
    }
}

/// Removes tonic's fallback from the routes: two routers with a fallback cannot be merged.
fn mergeable(routes: Routes) -> Router {
    routes.into_axum_router().reset_fallback().layer(map_request(body::prepared))
}
