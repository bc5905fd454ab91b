//! From raw to resolved `runtime.auth`: keys, certificates and callers without either, and contradictions among them.

use tls_core::{Origin, Sourced};

use crate::problem::Problem;
use crate::raw::spanned::Spanned;
use crate::raw::spicepod::{self, Anonymous, Require};
use crate::settings::{ApiKey, Auth, ClientIdentityRule, IdentityName, Role, Warning};

impl spicepod::Auth {
    /// Resolves the settings. `asks`: client certificates are requested.
    pub(crate) fn decide(self, asks: bool, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) -> Auth {
        let keys = self.api_key.decide(problems, warnings);
        let mut refused = |origin: Origin, message: &str, hint: &str| {
            problems.push(Problem::new(origin, message).hint(hint));
        };
        if let (false, Some(Spanned(first))) = (asks, self.mtls.identities.first()) {
            refused(
                first.origin.clone(),
                "gives client certificates a role, and clients are not asked for one",
                "set runtime.tls.client_auth_mode to request or required, and client_auth_ca_file",
            );
        }
        let require_all = match self.require {
            Some(Spanned(Sourced { value: Require::All, origin })) => {
                if keys.is_none() || !asks {
                    refused(
                        origin,
                        "wants a key and a certificate, and not both are set up",
                        "set up runtime.auth.api_key.keys and runtime.tls.client_auth_mode, or take it away",
                    );
                }
                true
            }
            _ => false,
        };
        let metrics = match self.metrics {
            Some(Spanned(Sourced { value: true, origin })) => {
                if keys.is_none() && !asks && self.allow_anonymous.is_none() {
                    refused(
                        origin,
                        "wants credentials on the metrics endpoint, and none are set up",
                        "set up runtime.auth.api_key.keys or runtime.tls.client_auth_mode",
                    );
                }
                true
            }
            _ => false,
        };
        Auth {
            keys,
            identities: self
                .mtls
                .identities
                .into_iter()
                .filter_map(|identity| identity_of(identity, problems))
                .collect(),
            require_all,
            allow_anonymous: self.allow_anonymous.map(|who| match who {
                Anonymous::Nobody => None,
                Anonymous::ReadOnly => Some(Role::ReadOnly),
                Anonymous::ReadWrite => Some(Role::ReadWrite),
            }),
            metrics,
        }
    }
}

impl spicepod::ApiKeys {
    fn decide(self, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) -> Option<Vec<ApiKey>> {
        match &self.enabled {
            Some(Spanned(on)) if !on.value => {
                if !self.keys.is_empty() {
                    let message = "API keys are switched off, so the keys that are listed are not checked".to_owned();
                    warnings.push(Warning { origin: Some(on.origin.clone()), message });
                }
                return None;
            }
            Some(Spanned(on)) if self.keys.is_empty() => {
                problems.push(
                    Problem::new(on.origin.clone(), "API keys are switched on, and there is none")
                        .hint("list them under runtime.auth.api_key.keys; make one with: spiced key generate"),
                );
                return None;
            }
            None if self.keys.is_empty() => return None,
            _ => {}
        }
        let keys = self.keys.into_iter().map(|spicepod::ApiKey { key, role }| ApiKey { key: key.value(), role });
        Some(keys.collect())
    }
}

fn identity_of(
    Spanned(given): Spanned<spicepod::RawClientIdentity>,
    problems: &mut Vec<Problem>,
) -> Option<ClientIdentityRule> {
    let Sourced { value: spicepod::RawClientIdentity { san_uri, san_dns, subject_cn, role }, origin } = given;
    let names =
        [(IdentityName::SanUri, san_uri), (IdentityName::SanDns, san_dns), (IdentityName::SubjectCn, subject_cn)];
    let mut given = names.into_iter().filter_map(|(name, pattern)| Some((name, pattern?)));
    match (given.next(), given.next()) {
        (Some((name, pattern)), None) if !pattern.trim().is_empty() => {
            Some(ClientIdentityRule { name, pattern: pattern.trim().to_owned(), role })
        }
        _ => {
            let message = "an identity has exactly one of san_uri, san_dns and subject_cn, and it is not empty";
            problems.push(Problem::new(origin, message).hint("write one entry a name; the first that fits decides"));
            None
        }
    }
}
