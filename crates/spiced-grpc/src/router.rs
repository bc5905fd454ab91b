//! The routers of this crate.

use std::sync::Arc;

use axum::Router;
use spiced_engine::Engine;
use tokio::sync::watch;

use crate::health::Health;
use crate::{otlp, reflection};

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
