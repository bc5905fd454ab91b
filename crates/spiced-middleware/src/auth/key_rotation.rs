//! Follows API keys whose values can change.

use std::sync::Arc;

use futures::future::select_all;
use tls_core::{Secret, Sourced};
use tokio::sync::watch;
use tracing::{error, info};

use crate::auth::keys::{ApiKey, ApiKeys};
use crate::auth::policy::Policy;

/// Follows the API keys that come from secret stores.
#[derive(Debug)]
pub struct KeyRotation(Vec<RotatingKey>);

/// A key, and how it changes if it comes from a secret store.
#[derive(Debug)]
pub struct RotatingKey {
    /// The key as it is now.
    pub key: ApiKey,
    /// Its later values; `None` if it cannot change.
    pub changes: Option<watch::Receiver<Secret>>,
}

impl KeyRotation {
    /// Follows these keys.
    pub fn new(keys: Vec<RotatingKey>) -> Self {
        Self(keys)
    }

    /// Returns the keys as they are now.
    pub fn keys(&self) -> Vec<ApiKey> {
        self.0.iter().map(|rotating| rotating.key.clone()).collect()
    }

    /// Applies each change of a key to `policy`, for all later requests. Returns when no key can change any more. If
    /// the new keys are unusable, the previous ones stay in force.
    pub async fn run(mut self, policy: Arc<watch::Sender<Arc<Policy>>>) {
        loop {
            let changes = self.0.iter_mut().enumerate().filter_map(|(at, key)| Some((at, key.changes.as_mut()?)));
            let waits: Vec<_> =
                changes.map(|(at, changes)| Box::pin(async move { (at, changes.changed().await) })).collect();
            if waits.is_empty() {
                return;
            }
            let ((at, changed), ..) = select_all(waits).await;
            if changed.is_err() {
                self.0[at].changes = None;
                continue;
            }
            for RotatingKey { key, changes } in &mut self.0 {
                if let Some(changes) = changes {
                    key.key.value = changes.borrow_and_update().clone();
                }
            }
            match ApiKeys::new(&self.keys()) {
                Ok(keys) => {
                    let before = Policy::clone(&policy.borrow());
                    let keys = match &before.keys {
                        Some(known) => keys.remembering(known),
                        None => keys,
                    };
                    let changed = Policy { keys: Some(Arc::new(keys)), ..before };
                    policy.send_replace(Arc::new(changed));
                    info!("the API keys have changed; the next request is checked against the new ones");
                }
                Err(errors) => {
                    for Sourced { value, origin } in errors {
                        error!(%origin, reason = %value, hint = value.hint(), "the new API keys are rejected; the \
                                                                               previous ones stay in use");
                    }
                }
            }
        }
    }
}
