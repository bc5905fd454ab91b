//! `kubernetes:SECRET`: a secret of the cluster, read through its API; its `data` fields are the keys. Access uses the
//! pod's service account, or the configuration that KUBECONFIG names.
//!
//! The secret is watched, so a change is seen at once, without waiting for a kubelet to write it into a volume.

mod api;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch::Sender;
use tracing::warn;

use super::{OpenArgs, SecretStore, Snapshot, StoreError};
use api::Api;
use watch::Ended;

struct Kubernetes {
    api: Api,
    /// The version that was read last; empty before the first read.
    seen: Sender<String>,
}

/// Opens the store; see [`super::KINDS`].
pub(super) fn open(opening: &OpenArgs<'_>) -> Result<Arc<dyn SecretStore>, StoreError> {
    let secret = opening.argument.unwrap_or_default();
    let namespace = opening.text("namespace")?;
    // Allow only the names that Kubernetes objects have (RFC 1123), so that no name can alter the path.
    let plain = |name: &str| {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        !name.is_empty() && !name.starts_with('.') && name.chars().all(letters)
    };
    for (what, name) in [("SECRET", Some(secret)), ("namespace", namespace)] {
        if name.is_some_and(|name| !plain(name)) {
            return Err(StoreError::declaration(format!(
                "{what} must be a Kubernetes name: lower-case letters, digits, `-` and `.`"
            )));
        }
    }
    let service_account = opening.surroundings.service_account.clone();
    let environment = opening.surroundings.environment.clone();
    let api = Api::new(secret.to_owned(), namespace.map(str::to_owned), service_account, environment);
    Ok(Arc::new(Kubernetes { api, seen: Sender::new(String::new()) }))
}

#[async_trait]
impl SecretStore for Kubernetes {
    async fn read(&self, _: &[String]) -> Result<Snapshot, StoreError> {
        let (version, fields) = self.api.read().await?;
        self.seen.send_replace(version);
        Ok(Snapshot::Whole(fields))
    }

    fn places(&self, key: &str) -> String {
        format!("the key {key} of the secret {}", self.api.shown())
    }

    fn endpoint(&self) -> Option<String> {
        Some(self.api.endpoint())
    }

    fn watches(&self) -> bool {
        true
    }

    async fn changed(&self) {
        match watch::until_changed(&self.api, &self.seen).await {
            Ended::Changed => {}
            Ended::Forbidden { why, hint } => {
                warn!(
                    secret = self.api.shown(),
                    why, hint, "the secret may be read but not watched; it is read every minute instead"
                );
                watch::poll().await;
            }
        }
    }
}
