//! Arrow Flight SQL over any [`Engine`].
//!
//! [`router`] returns an [`axum::Router`] for `arrow.flight.protocol.FlightService`. It takes the caller from
//! the request's extensions, where a middleware has put a [`Principal`](spiced_engine::Principal), and refuses a
//! request without one. [`serve()`] serves the router on a socket, for programs that embed only this endpoint.
//!
//! The service keeps no session between requests. A ticket or prepared statement handle contains the statement itself,
//! signed (`handles::signed_handle`), so any replica with the same secret can accept it.
//!
//! How the modules fit together: `service` implements the calls of Flight, `get` and `put` those that carry batches,
//! and `command` decodes descriptors and tickets. `statements`, `prepared`, `metadata` and `actions` do the work; each
//! adds methods to `state::FlightServiceState`. `responses` turns batches into messages.
//!
//! ```
//! use std::sync::Arc;
//!
//! use spiced_engine::{Execution, Role, engine_fn};
//! use spiced_flight::{FlightOptions, router};
//! use spiced_middleware::{Access, Dialect, admission};
//!
//! let engine = engine_fn(|_sql, _parameters| Ok(Execution::of(Vec::new())));
//! let who = admission(Access::anonymous(Some(Role::ReadOnly)), Dialect::Grpc).except(spiced_flight::HANDSHAKE);
//! let endpoint: axum::Router = router(Arc::new(engine), FlightOptions::default()).layer(who);
//! ```
//!
//! `examples/embed_flight.rs` serves it over TLS.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod codec;
mod handles;
mod options;
mod request_context;
mod service;
mod session;
mod sql;
mod state;
mod status;

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use axum::Router;
use axum::middleware::map_request;
use axum::routing::post;
use spiced_engine::Engine;
use tonic::server::NamedService;
use tonic::service::Routes;

use codec::grpc_framing;
pub use options::FlightOptions;
pub use service::handshake::HANDSHAKE;
pub use service::serve::{FlightState, serve};
use service::{do_get, do_put};

/// The full name of the gRPC service, for health and metrics.
pub const SERVICE_NAME: &str = <FlightServiceServer<state::FlightServiceState> as NamedService>::NAME;

/// Returns a router for Flight SQL over `engine`. It has no fallback, so it can be merged with other routers.
///
/// The principal is taken from the request's extensions; a request without one fails with UNAUTHENTICATED.
pub fn router(engine: Arc<dyn Engine>, options: FlightOptions) -> Router {
    let limit = options.max_message_bytes;
    let endpoint = Arc::new(state::FlightServiceState::new(engine, options));
    let service = FlightServiceServer::from_arc(endpoint.clone()).max_decoding_message_size(limit);
    let by_hand = Router::new()
        .route(do_get::PATH, post(do_get::get))
        .route(do_put::PATH, post(do_put::put))
        .with_state(endpoint);
    Routes::new(service).into_axum_router().reset_fallback().layer(map_request(grpc_framing::prepared)).merge(by_hand)
}
