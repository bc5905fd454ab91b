//! Secret references, the secret stores, and the resolver that connects them.
//!
//! - [`Template`] is a value of the pod file with its `${store:KEY}` references; it does not depend on stores.
//! - [`SecretStore`] is a place that secrets are read from. [`Environment`] and the pod's directory ([`StoreEnv`]) are
//!   passed in, so nothing in this crate reads a global.
//! - [`Resolver`] queries the stores, fails closed, and reports every failure at once.
//! - [`SecretsRefresh`] reads the stores again and updates the values.
//!
//! ```
//! use spiced_secrets::{Environment, Resolver, StoreEnv, Template};
//! use tls_core::{Origin, Sourced};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let surroundings = StoreEnv {
//!     environment: Environment::of([("PG_PASSWORD", "correct horse")]),
//!     ..StoreEnv::of_process("/srv/pod".into())
//! };
//! let resolver = Resolver::open(Vec::new(), &surroundings).await;
//! let url = Template::parse("postgres://app:${env:PG_PASSWORD}@db").unwrap();
//! let secrets = resolver.resolve_all(&[Sourced::new(url, Origin::Default)]).await.unwrap();
//! assert_eq!(secrets[0].expose_text(), Ok("postgres://app:correct horse@db"));
//! # });
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod refresh;
mod report;
mod resolver;
mod secret_value;
mod status;
mod store;
mod template;

pub use refresh::{Refresher, SecretsRefresh, WatchedSecrets};
pub use report::{FailureKind, Resolution, ResolveError, ResolveErrors, Unresolved};
pub use resolver::{DeclaredStore, Resolver};
pub use secret_value::SecretValue;
pub use status::{Refresh, StoreStatus, StoreTrouble};
pub use store::{Environment, SecretStore, Snapshot, StoreEnv, StoreError};
pub use template::{Part, Reference, ReferenceError, Template};
