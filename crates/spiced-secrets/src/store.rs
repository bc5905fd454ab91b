//! What a secret store is, and the one table of the kinds there are.
//!
//! A new kind is one file below `store/` and one line in [`KINDS`].

#[cfg(feature = "aws_secrets_manager")]
mod aws;
mod declaration;
#[cfg(any(feature = "aws_secrets_manager", feature = "hashicorp_vault"))]
mod document;
mod dotenv;
mod env;
mod error;
mod file;
#[cfg(feature = "keyring")]
mod keyring;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod read;
#[cfg(any(feature = "aws_secrets_manager", feature = "hashicorp_vault", feature = "kubernetes"))]
mod remote;
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

/// How many secrets are asked for at once of a store that holds each by itself.
const AT_ONCE: usize = 8;

/// A place that secrets are read from.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// Reads the secrets called `keys`, again.
    ///
    /// # Errors
    /// The store as a whole cannot say. What is wrong with one key alone is in the reading. No error
    /// holds any of a value, or of what the store is asked with.
    async fn read(&self, keys: &[String]) -> Result<Snapshot, StoreError>;

    /// Where [`read`](Self::read) looks for `key`, for the message that it is not there.
    fn places(&self, key: &str) -> String;

    /// Where it is, for the message that it does not answer; `None` for one that is on this machine.
    fn endpoint(&self) -> Option<String> {
        None
    }

    /// How often it is read again where the pod does not say; `None`: only when it is told to.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// True where [`changed`](Self::changed) tells of changes.
    fn watches(&self) -> bool {
        false
    }

    /// Waits until the store says of itself that it may have changed; forever where it has no word
    /// for that. It is polled for as long as anybody follows the store, so what has to go on beside
    /// the reading, such as the renewal of a token, goes on here.
    async fn changed(&self) {
        std::future::pending().await
    }
}

/// What a store said.
#[derive(Debug)]
pub enum Snapshot {
    /// Everything that it has: a key that is not in it is not there.
    Whole(BTreeMap<String, Secret>),
    /// An answer to each key that it was asked for.
    Each(BTreeMap<String, Result<Option<Secret>, StoreError>>),
}

/// Asks for each of `keys` by itself.
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

/// What a store may need of the world: handed in, so that tests need neither globals nor order.
#[derive(Debug, Clone)]
pub struct StoreEnv {
    /// The pod's directory; relative paths of a declaration are relative to it.
    pub pod_folder: PathBuf,
    /// The environment variables of the process.
    pub environment: Environment,
    /// Where Kubernetes mounts the service account of the pod that this process runs in.
    pub service_account: PathBuf,
}

impl StoreEnv {
    /// The usual service account directory (`ServiceAccount` admission in Kubernetes puts it there).
    pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

    /// Those of this process, for the pod in `pod_folder`.
    pub fn of_process(pod_folder: PathBuf) -> Self {
        Self { pod_folder, environment: Environment::process(), service_account: Self::SERVICE_ACCOUNT.into() }
    }
}

/// The text after `kind:` and the parameters, checked against the kind's line in the table.
struct OpenArgs<'a> {
    argument: Option<&'a str>,
    params: &'a BTreeMap<String, Secret>,
    surroundings: &'a StoreEnv,
}

impl OpenArgs<'_> {
    /// A parameter, which may be secret.
    #[cfg(any(feature = "aws_secrets_manager", feature = "hashicorp_vault"))]
    fn secret(&self, name: &str) -> Option<&Secret> {
        self.params.get(name)
    }

    /// A parameter that is no secret, as text without blanks around it.
    fn text(&self, name: &str) -> Result<Option<&str>, StoreError> {
        let Some(value) = self.params.get(name) else { return Ok(None) };
        let text = value.expose_text().map_err(|_| StoreError::declaration(format!("param `{name}` is not UTF-8")))?;
        Ok(Some(text.trim()))
    }
}

/// Opens a store. Nothing is asked of a server yet, so a store that nobody refers to may be down.
type Open = fn(&OpenArgs<'_>) -> Result<Arc<dyn SecretStore>, StoreError>;

struct Kind {
    /// What stands before the `:` of `from`.
    name: &'static str,
    /// What stands after it.
    argument: Argument,
    /// The parameters it knows.
    params: &'static [&'static str],
    /// How it is opened; `None` where this build leaves its feature out.
    open: Option<Open>,
}

enum Argument {
    None,
    Optional,
    /// With what a person would call it.
    Required(&'static str),
}

/// A store's `open`, where the feature of that name is built in.
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

    /// What a store says of one key.
    pub(super) async fn one(store: &Arc<dyn SecretStore>, key: &str) -> Result<Option<Secret>, StoreError> {
        match store.read(&[key.to_owned()]).await? {
            Snapshot::Whole(mut all) => Ok(all.remove(key)),
            Snapshot::Each(mut answers) => answers.remove(key).unwrap(),
        }
    }
}
