//! Layers that every door shares: who calls and whether it may ([`admission`]), what a browser may
//! do ([`Access`] decides both), how an error is worded ([`Problem`]), and how requests are counted
//! ([`measured`]).
//!
//! ```
//! use axum::{Router, routing::get};
//! use spiced_engine::{Principal, Role};
//! use spiced_middleware::{Access, Dialect, admission};
//!
//! // Callers without credentials may read.
//! let access = Access::anonymous(Some(Role::ReadOnly));
//! let app: Router = Router::new()
//!     .route("/", get(|caller: axum::Extension<Principal>| async move { caller.name().to_owned() }))
//!     .layer(admission(access, Dialect::Http));
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod admission;
mod measured;
mod problem;

pub use access::{Access, Refusal};
pub use admission::{Admission, AdmissionLayer, Dialect, admission};
pub use measured::{Measured, MeasuredLayer, measured};
pub use problem::Problem;
