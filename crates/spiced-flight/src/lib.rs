//! Arrow Flight SQL over any [`Engine`](spiced_engine::Engine).
//!
//! [`router`] returns an [`axum::Router`] for `arrow.flight.protocol.FlightService`. It takes the caller from
//! the request's extensions, where a middleware has put a [`Principal`](spiced_engine::Principal), and refuses a
//! request without one. [`serve()`] serves the router on a socket, for programs that embed only this endpoint.
//!
//! The service keeps no session between requests. A ticket or prepared statement handle contains the statement itself,
//! signed (`handles::signed_handle`), so any replica with the same secret can accept it.
//!
//! How the modules fit together: `service` has one file per call of Flight, and `sql` one per command of Flight SQL.
//! Both consist of free functions over `state`. `codec` encodes and decodes messages, `handles` signs the tickets and
//! handles that clients carry, and `session` is one request's view of the engine.
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

pub use options::FlightOptions;
pub use service::handshake::HANDSHAKE;
pub use service::serve::{FlightState, serve};
pub use service::{SERVICE_NAME, router};
