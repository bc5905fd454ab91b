//! Authentication of callers and their rights: keys, client certificates, the policy over both, and throttling.

mod access;
mod credentials;
mod dialect;
mod identities;
mod key_rotation;
mod keys;
mod policy;
mod refusal;
mod throttle;

pub use access::{Access, Decision};
pub use dialect::Dialect;
pub use identities::{ClientIdentityRule, Identities, IdentityName};
pub use key_rotation::{KeyRotation, RotatingKey};
pub use keys::{ApiKey, ApiKeys, KeyError, NoRandom, generate_key, is_weak};
pub use policy::{Anonymous, Policy};
pub(crate) use refusal::Kind;
pub use refusal::Refusal;
pub use throttle::Throttle;
