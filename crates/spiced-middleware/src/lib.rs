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

mod audit;
mod auth;
mod browser;
mod digest;
mod excerpt;
mod layers;
mod problem;
mod statement_metrics;
mod trusted_proxies;

pub use audit::{AuditLog, role_denied};
pub use auth::{
    Access, Anonymous, ApiKey, ApiKeys, ClientIdentityRule, Decision, Dialect, Identities, IdentityName, KeyError,
    KeyRotation, NoRandom, Policy, Refusal, RotatingKey, Throttle, generate_key, is_weak,
};
pub use browser::{AllowedOrigins, Hsts, OriginError};
pub use excerpt::excerpt;
pub use layers::{
    Admission, AdmissionLayer, Measured, MeasuredLayer, WellFormed, WellFormedLayer, admission, either, grpc_only,
    request_metrics, well_formed,
};
pub use problem::Problem;
pub use statement_metrics::StatementMetrics;
pub use trusted_proxies::TrustedProxies;
