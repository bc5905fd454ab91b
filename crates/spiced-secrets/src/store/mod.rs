//! The secret store trait, and the table of store kinds.
//!
//! A new kind takes one file in `store/` and one entry in [`KINDS`].

#[cfg(feature = "aws_secrets_manager")]
mod aws;
pub(crate) mod cached_store;
mod declaration;
#[cfg(any(feature = "aws_secrets_manager", feature = "hashicorp_vault"))]
mod document;
mod dotenv;
mod env;
mod error;
mod file;
pub(crate) mod jitter;
#[cfg(feature = "keyring")]
mod keyring;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod read;
#[cfg(any(feature = "aws_secrets_manager", feature = "hashicorp_vault", feature = "kubernetes"))]
mod remote;
pub(crate) mod store_chain;
#[cfg(feature = "hashicorp_vault")]
mod vault;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use tls_core::Secret;

pub(crate) use declaration::{Declared, nearest};
pub use env::Environment;
pub use error::StoreError;

/// The most concurrent requests to a store that returns one secret per request.
const AT_ONCE: usize = 8;

/// A place that secrets are read from.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// Reads the secrets called `keys`, without caching.
    ///
    /// # Errors
    /// Fails if the store as a whole cannot answer. An error of a single key is part of the snapshot. No error contains
    /// any part of a value, or of the credentials for the store.
    async fn read(&self, keys: &[String]) -> Result<Snapshot, StoreError>;

    /// Describes where [`read`](Self::read) looks for `key`, for the message that the key is missing.
    fn places(&self, key: &str) -> String;

    /// Returns the address of the store, for the message that it does not answer; `None` for a store on this machine.
    fn endpoint(&self) -> Option<String> {
        None
    }

    /// Returns the default refresh interval; `None` if the store is read again only on request.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Returns true if [`changed`](Self::changed) reports changes.
    fn watches(&self) -> bool {
        false
    }

    /// Waits until the store reports a possible change; waits forever if it cannot report changes. The future is polled
    /// while the store is in use, so background work, such as the renewal of a token, is done here too.
    async fn changed(&self) {
        std::future::pending().await
    }
}

/// The result of reading a store.
#[derive(Debug)]
pub enum Snapshot {
    /// All secrets of the store: a key that is absent here does not exist.
    Whole(BTreeMap<String, Secret>),
    /// The result for each requested key.
    Each(BTreeMap<String, Result<Option<Secret>, StoreError>>),
}

/// Reads each of `keys` with a separate request.
async fn each<F>(keys: &[String], ask: impl Fn(String) -> F) -> Snapshot
where
    F: Future<Output = Result<Option<Secret>, StoreError>>,
{
    let answers = keys.iter().cloned().map(|key| {
        let answer = ask(key.clone());
        async move { (key, answer.await) }
    });
    Snapshot::Each(stream::iter(answers).buffer_unordered(AT_ONCE).collect().await)
}

/// The environment of a store. It is passed in, so that tests neither need globals nor depend on their order.
#[derive(Debug, Clone)]
pub struct StoreEnv {
    /// The pod's directory; relative paths in a declaration are resolved against it.
    pub pod_folder: PathBuf,
    /// The environment variables of the process.
    pub environment: Environment,
    /// The directory where Kubernetes mounts the service account of the pod in which this process runs.
    pub service_account: PathBuf,
}

impl StoreEnv {
    /// The standard service account directory, which Kubernetes' `ServiceAccount` admission controller mounts.
    pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

    /// Returns the environment of this process, for the pod in `pod_folder`.
    pub fn of_process(pod_folder: PathBuf) -> Self {
        Self { pod_folder, environment: Environment::process(), service_account: Self::SERVICE_ACCOUNT.into() }
    }
}

/// The argument after `kind:` and the parameters, checked against the kind's entry in the table.
struct OpenArgs<'a> {
    argument: Option<&'a str>,
    params: &'a BTreeMap<String, Secret>,
    surroundings: &'a StoreEnv,
}

impl OpenArgs<'_> {
    /// Returns a parameter that may be secret.
    #[cfg(any(feature = "aws_secrets_manager", feature = "hashicorp_vault"))]
    fn secret(&self, name: &str) -> Option<&Secret> {
        self.params.get(name)
    }

    /// Returns a parameter that is not secret, as text without surrounding blanks.
    fn text(&self, name: &str) -> Result<Option<&str>, StoreError> {
        let Some(value) = self.params.get(name) else { return Ok(None) };
        let text = value.expose_text().map_err(|_| StoreError::declaration(format!("param `{name}` is not UTF-8")))?;
        Ok(Some(text.trim()))
    }
}

/// Opens a store. No request is sent yet, so a store without references may be down.
type Open = fn(&OpenArgs<'_>) -> Result<Arc<dyn SecretStore>, StoreError>;

struct Kind {
    /// The name before the `:` of `from`.
    name: &'static str,
    /// The argument after the `:`.
    argument: Argument,
    /// The supported parameters.
    params: &'static [&'static str],
    /// Opens a store of this kind; `None` if its feature is not built in.
    open: Option<Open>,
}

enum Argument {
    None,
    Optional,
    /// Required, with its name for messages.
    Required(&'static str),
}

/// Expands to the `open` function of a store, if the feature is built in.
macro_rules! built {
    ($feature:literal, $open:path) => {{
        #[cfg(feature = $feature)]
        let open: Option<Open> = Some($open);
        #[cfg(not(feature = $feature))]
        let open: Option<Open> = None;
        open
    }};
}

const KINDS: &[Kind] = &[
    Kind { name: "env", argument: Argument::None, params: &["file_path"], open: Some(env::open) },
    Kind { name: "file", argument: Argument::Required("DIR"), params: &[], open: Some(file::open) },
    Kind {
        name: "kubernetes",
        argument: Argument::Required("SECRET"),
        params: &["namespace"],
        open: built!("kubernetes", kubernetes::open),
    },
    Kind {
        name: "aws_secrets_manager",
        argument: Argument::Optional,
        params: &["aws_region", "aws_endpoint_url", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"],
        open: built!("aws_secrets_manager", aws::open),
    },
    Kind {
        name: "hashicorp_vault",
        argument: Argument::Required("PATH"),
        params: &[
            "hashicorp_vault_address",
            "hashicorp_vault_token",
            "hashicorp_vault_namespace",
            "hashicorp_vault_role_id",
            "hashicorp_vault_secret_id",
            "hashicorp_vault_kubernetes_role",
            "hashicorp_vault_ca_file",
        ],
        open: built!("hashicorp_vault", vault::open),
    },
    Kind { name: "keyring", argument: Argument::None, params: &[], open: built!("keyring", keyring::open) },
];

impl fmt::Debug for dyn SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretStore")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the result of a store for one key.
    pub(super) async fn one(store: &Arc<dyn SecretStore>, key: &str) -> Result<Option<Secret>, StoreError> {
        match store.read(&[key.to_owned()]).await? {
            Snapshot::Whole(mut all) => Ok(all.remove(key)),
            Snapshot::Each(mut answers) => answers.remove(key).unwrap(),
        }
    }
}
