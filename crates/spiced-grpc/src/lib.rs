//! The gRPC door: health and server reflection.
//!
//! [`health`] alone is for the doors that carry something else (Flight, the probe port);
//! [`router`] is the whole gRPC door. Both give an [`axum::Router`] without a fallback, so that they
//! can be merged with others; [`serve()`] puts the latter on a socket. Nothing here spawns a task, so a router may serve on any number of
//! runtimes.
//!
//! Health is open to all whom the handshake lets in. Reflection needs a [`Principal`] in the
//! request's extensions and refuses a request without one.
//!
//! ```
//! let (ready, readiness) = tokio::sync::watch::channel(true);
//! let door: axum::Router = spiced_grpc::router(readiness, &["arrow.flight.protocol.FlightService"]);
//! // Health says NOT_SERVING from here on.
//! ready.send_replace(false);
//! # drop(door);
//! ```
//!
//! `examples/embed_grpc.rs` serves it over TLS.
//!
//! [`Principal`]: spiced_engine::Principal

mod health;
mod reflection;
mod serve;

pub use health::Health;
pub use serve::{GrpcState, serve};

use axum::Router;
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

/// The gRPC door: [`health`], which answers for reflection too, and server reflection v1 and
/// v1alpha, which describe every service of this door.
pub fn router(readiness: watch::Receiver<bool>, services: &[&str]) -> Router {
    let names: Vec<&str> = services.iter().copied().chain(reflection::NAMES).collect();
    health(readiness, &names).merge(reflection::router())
}

/// The routes without tonic's own fallback: two routers that have one cannot be merged.
fn mergeable(routes: Routes) -> Router {
    routes.into_axum_router().reset_fallback()
}
