//! From the settings to the access policy: checks it, reports findings, and follows keys that come from secret stores.

use std::sync::Arc;

use futures::future::select_all;
use spiced_certs::{Clients, Finding, Severity};
use spiced_config::{Auth, IdentityName as Named, Role as Said};
use spiced_engine::Role;
use spiced_middleware::{
    Anonymous, ApiKey, ApiKeys, ClientIdentityRule, Identities, IdentityName, KeyError, Policy, is_weak,
};
use tls_core::{Secret, Sourced};
use tokio::sync::watch;
use tracing::{error, info};

use crate::failure::Failure;
use crate::tls::Subscribe;

/// Builds the access policy. `asks` means that clients are asked for certificates.
pub(crate) fn establish(auth: &Auth, asks: bool, subscribe: Subscribe<'_>) -> Result<(Policy, KeyRotation), Failure> {
    let rotating: Vec<RotatingKey> = auth
        .keys
        .iter()
        .flatten()
        .map(|key| RotatingKey {
            key: ApiKey {
                key: key.key.clone().map(|value| value.current().clone()),
                role: key.role.map_or(Role::ReadOnly, role),
            },
            changes: subscribe(&key.key),
        })
        .collect();
    let identities = auth.identities.iter().map(|identity| ClientIdentityRule {
        name: match identity.name {
            Named::SanUri => IdentityName::SanUri,
            Named::SanDns => IdentityName::SanDns,
            Named::SubjectCn => IdentityName::SubjectCn,
        },
        pattern: identity.pattern.clone(),
        role: role(identity.role),
    });
    let identities = Identities::new(identities.collect());
    let policy = Policy {
        keys: match auth.keys {
            Some(_) => Some(Arc::new(ApiKeys::new(&keys(&rotating)).map_err(|errors| refused(&errors))?)),
            None => None,
        },
        certificates: asks.then_some(identities),
        require_all: auth.require_all,
        anonymous: auth.allow_anonymous.map_or(Anonymous::Unsaid, |who| Anonymous::Said(who.map(role))),
    };
    Ok((policy, KeyRotation(rotating)))
}

/// Returns the findings about the access policy that an operator should know.
pub(crate) fn findings(auth: &Auth, asks: bool) -> Vec<Finding> {
    let finding = |code, severity, origin: String, message: &str, fix: &str| {
        let [message, fix] = [message, fix].map(str::to_owned);
        Finding { code, severity, origin, subject: String::new(), message, fix, refused_by: Clients::default() }
    };
    let mut found = Vec::new();
    for key in auth.keys.iter().flatten() {
        let origin = || key.key.origin.to_string();
        if key.role.is_none() {
            let message = "an API key has neither :ro nor :rw at its end: it is read-only";
            found.push(finding("AUTH-KEY-NO-ROLE", Severity::Info, origin(), message, "write :ro or :rw after it"));
        }
        if is_weak(key.key.value.current()) {
            let message = "an API key is shorter than 16 characters and may be guessed";
            let fix = "create one with: spiced key generate";
            found.push(finding("AUTH-KEY-SHORT", Severity::Warning, origin(), message, fix));
        }
    }
    if asks && auth.identities.is_empty() {
        found.push(finding(
            "AUTH-NO-IDENTITIES",
            Severity::Warning,
            "runtime.auth.mtls.identities".to_owned(),
            "no identities are set: every verified client certificate may read",
            "list those that may, with their roles",
        ));
    }
    found
}

/// Follows the API keys that come from secret stores.
pub(crate) struct KeyRotation(Vec<RotatingKey>);

/// A key, and how it changes if it comes from a secret store.
struct RotatingKey {
    key: ApiKey,
    changes: Option<watch::Receiver<Secret>>,
}

fn keys(rotating: &[RotatingKey]) -> Vec<ApiKey> {
    rotating.iter().map(|rotating| rotating.key.clone()).collect()
}

impl KeyRotation {
    /// Applies each change of a key to `policy`, for all later requests. Returns when no key can change any more. If
    /// the new keys are unusable, the previous ones stay in force.
    pub(crate) async fn run(self, policy: Arc<watch::Sender<Arc<Policy>>>) {
        let Self(mut rotating) = self;
        loop {
            let changes = rotating.iter_mut().enumerate().filter_map(|(at, key)| Some((at, key.changes.as_mut()?)));
            let waits: Vec<_> =
                changes.map(|(at, changes)| Box::pin(async move { (at, changes.changed().await) })).collect();
            if waits.is_empty() {
                return;
            }
            let ((at, changed), ..) = select_all(waits).await;
            if changed.is_err() {
                rotating[at].changes = None;
                continue;
            }
            for RotatingKey { key, changes } in &mut rotating {
                if let Some(changes) = changes {
                    key.key.value = changes.borrow_and_update().clone();
                }
            }
            match ApiKeys::new(&keys(&rotating)) {
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

fn refused(errors: &[Sourced<KeyError>]) -> Failure {
    Failure::Configuration {
        causes: errors.iter().map(|e| format!("{}: {}", e.origin, e.value)).collect(),
        hints: errors.iter().map(|e| e.value.hint().to_owned()).collect(),
    }
}

fn role(said: Said) -> Role {
    match said {
        Said::ReadOnly => Role::ReadOnly,
        Said::ReadWrite => Role::ReadWrite,
    }
}
