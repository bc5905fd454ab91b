//! Layers that every endpoint shares: authentication and authorization ([`admission`]), rules for browsers ([`Access`]
//! decides both, by a [`Policy`]), the format of errors ([`Problem`]), request metrics ([`request_metrics`]), and the
//! audit log ([`AuditLog`]).
//!
//! ```
//! use axum::{Router, routing::get};
//! use spiced_engine::{Principal, Role};
//! use spiced_middleware::{Access, Dialect, admission};
//!
//! // Callers without credentials may read; `Policy` has keys and client certificates.
//! let access = Access::anonymous(Some(Role::ReadOnly));
//! let app: Router = Router::new()
//!     .route("/", get(|caller: axum::Extension<Principal>| async move { caller.name().to_owned() }))
//!     .layer(admission(access, Dialect::Http));
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod address;
mod admission;
mod audit;
mod credentials;
mod excerpt;
mod hsts;
mod identities;
mod keys;
mod origins;
mod policy;
mod problem;
mod request_metrics;
mod throttle;
mod well_formed;

pub use access::{Access, Decision, Refusal};
pub use address::TrustedProxies;
pub use admission::{Admission, AdmissionLayer, Dialect, admission};
pub use audit::{AuditLog, role_denied};
pub use excerpt::excerpt;
pub use hsts::Hsts;
pub use identities::{ClientIdentityRule, Identities, IdentityName};
pub use keys::{ApiKey, ApiKeys, KeyError, NoRandom, generate_key, is_weak};
pub use origins::{AllowedOrigins, OriginError};
pub use policy::{Anonymous, Policy};
pub use problem::Problem;
pub use request_metrics::{Measured, MeasuredLayer, request_metrics};
pub use throttle::Throttle;
pub use well_formed::{WellFormed, WellFormedLayer, well_formed};
