//! The HTTP API over any [`Engine`](spiced_engine::Engine): SQL in, results out in the format that `Accept` requests,
//! in bounded memory.
//!
//! [`router`] returns the whole API, [`probe_router`] only the two routes for probes. Neither opens a socket: [`serve`]
//! serves the API on one, with the listener of `tls-core`.
//!
//! The status is sent once the first rows are available, so a query that fails before them gets an error status. If a
//! query fails later, the response is aborted: over HTTP/1.1 the connection closes before the last chunk, over HTTP/2
//! the stream is reset. No client mistakes such a response for a complete one. A client that disconnects cancels its
//! query.
//!
//! [`RowWriter`](spiced_formats::RowWriter) writes the same formats without HTTP.
//!
//! ```
//! use std::sync::Arc;
//!
//! use spiced_engine::{Execution, Role, engine_fn};
//! use spiced_http::{HttpOptions, HttpState, Status, router};
//! use spiced_middleware::Access;
//!
//! let engine = engine_fn(|_sql, _parameters| Ok(Execution::of(Vec::new())));
//! let (_readiness, ready) = tokio::sync::watch::channel(true);
//! let api: axum::Router = router(HttpState {
//!     engine: Arc::new(engine),
//!     readiness: ready,
//!     status: Arc::new(|| Status { version: "0.1.0".to_owned(), ..Status::default() }),
//!     access: Access::anonymous(Some(Role::ReadOnly)),
//!     options: HttpOptions::default(),
//! });
//! ```
//!
//! `examples/embed_http.rs` serves it over TLS.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accept;
mod answer;
mod failure;
mod openapi;
mod parameters;
mod probe;
mod reload;
mod request;
mod router;
mod routes;
mod serve;
mod state;
mod status;

pub use probe::{Probes, probe_router};
pub use reload::{ReloadFinding, ReloadHandle, ReloadOptions, ReloadReply, ReloadResult, ReloadedPart, Severity};
pub use router::router;
pub use serve::serve;
pub use state::{HttpOptions, HttpState};
pub use status::{
    AuthStatus, AuthorityStatus, CertificateStatus, ClientAuthMode, ClientAuthStatus, CredentialsRequired,
    EndpointStatus, RejectionStatus, SecretStoreState, SecretStoreStatus, SecretStoreTrouble, Status, Time, TlsStatus,
};
