//! From the settings to the access policy, and the findings about it.

use std::sync::Arc;

use spiced_certs::{Clients, Finding, Severity};
use spiced_config::{Auth, IdentityName as Named, Role as Said};
use spiced_engine::Role;
use spiced_middleware::{
    Anonymous, ApiKey, ApiKeys, ClientIdentityRule, Identities, IdentityName, KeyError, KeyRotation, Policy,
    RotatingKey, is_weak,
};
use tls_core::Sourced;

use crate::failure::Failure;
use crate::tls::Subscribe;

/// Builds the access policy. `asks` means that clients are asked for certificates.
pub(crate) fn establish(auth: &Auth, asks: bool, subscribe: Subscribe<'_>) -> Result<(Policy, KeyRotation), Failure> {
    let rotation = KeyRotation::new(
        auth.keys
            .iter()
            .flatten()
            .map(|key| RotatingKey {
                key: ApiKey {
                    key: key.key.clone().map(|value| value.current().clone()),
                    role: key.role.map_or(Role::ReadOnly, role),
                },
                changes: subscribe(&key.key),
            })
            .collect(),
    );
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
            Some(_) => Some(Arc::new(ApiKeys::new(&rotation.keys()).map_err(|errors| refused(&errors))?)),
            None => None,
        },
        certificates: asks.then_some(identities),
        require_all: auth.require_all,
        anonymous: auth.allow_anonymous.map_or(Anonymous::Unsaid, |who| Anonymous::Said(who.map(role))),
    };
    Ok((policy, rotation))
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
