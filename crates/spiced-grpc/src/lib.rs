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

mod health;
mod otlp;
mod reflection;
mod router;
mod routes;
mod serve;

pub use health::Health;
pub use otlp::{TELEMETRY_SCHEMA, telemetry_tables};
pub use router::{HEALTH_PREFIX, health, router};
pub use serve::{GrpcState, serve};
