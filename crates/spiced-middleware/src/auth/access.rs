//! Authentication: decides for every endpoint who the caller is and whether the request is accepted.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::ORIGIN;
use http::request::Parts;
use http::{HeaderMap, Uri};
use metrics::counter;
use spiced_engine::{Principal, RequestContext, Role, Trace};
use tls_core::{ClientCertificate, ConnInfo, Secret, Standing, TlsInfo};
use tokio::sync::watch;

use crate::audit;
use crate::auth::credentials::Credentials;
use crate::auth::dialect::Dialect;
use crate::auth::keys::{ApiKeys, AttemptTracker, Busy, Checked, Key, SlowCheck};
use crate::auth::policy::{Anonymous, Policy};
use crate::auth::refusal::Refusal;
use crate::auth::throttle::{Source, Throttle};
use crate::browser::AllowedOrigins;
use crate::browser::host::{authority, is_loopback_name};
use crate::trusted_proxies::TrustedProxies;

/// Default for the failures that an address is allowed at once, and again per minute.
const FAILURES: NonZero<u32> = NonZero::new(30).expect("it is not zero");

/// Authenticates the callers of an endpoint. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    policy: watch::Receiver<Arc<Policy>>,
    throttle: Arc<Throttle>,
    proxies: TrustedProxies,
    origins: AllowedOrigins,
    is_local: bool,
    loopback_names: bool,
}

impl Access {
    /// Accepts callers without credentials with `role`, or refuses them if it is `None`. No credentials are configured.
    pub fn anonymous(role: Option<Role>) -> Self {
        Self::of(Policy { anonymous: Anonymous::Said(role), ..Policy::default() })
    }

    /// Authenticates callers by `policy`.
    pub fn of(policy: Policy) -> Self {
        // The policy never changes: the receiver keeps the last value.
        let (_, policy) = watch::channel(Arc::new(policy));
        Self::following(policy)
    }

    /// Authenticates callers by `policy` as it is at each request.
    pub fn following(policy: watch::Receiver<Arc<Policy>>) -> Self {
        Self(Arc::new(Inner {
            policy,
            throttle: Arc::new(Throttle::new(FAILURES)),
            proxies: TrustedProxies::default(),
            origins: AllowedOrigins::default(),
            is_local: false,
            loopback_names: false,
        }))
    }

    /// Marks the endpoint as reachable only from this machine.
    #[must_use]
    pub fn local(self) -> Self {
        self.with(|inner| inner.is_local = true)
    }

    /// Marks the endpoint as reachable only from this machine, and refuses a request without credentials if its `Host`
    /// is not a loopback name, so that no web page can reach the endpoint by DNS rebinding.
    #[must_use]
    pub fn loopback(self) -> Self {
        self.with(|inner| (inner.is_local, inner.loopback_names) = (true, true))
    }

    /// Counts failures in `throttle`, together with all others that share it.
    #[must_use]
    pub fn throttled(self, throttle: Arc<Throttle>) -> Self {
        self.with(|inner| inner.throttle = throttle)
    }

    /// Sets the proxies whose information on the client's address is trusted.
    #[must_use]
    pub fn behind(self, proxies: TrustedProxies) -> Self {
        self.with(|inner| inner.proxies = proxies)
    }

    /// Allows requests from pages of these origins.
    #[must_use]
    pub fn from_pages_of(self, origins: AllowedOrigins) -> Self {
        self.with(|inner| inner.origins = origins)
    }

    fn with(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// Authenticates a request. Refusals are counted and logged to the audit log.
    pub fn admit(&self, request: &Parts, dialect: Dialect) -> Decision {
        let credentials = Credentials::read(&request.headers, dialect);
        self.decide(credentials, &request.headers, Some(&request.uri), request.extensions.get())
    }

    /// Authenticates a gRPC request, where a key may also arrive in a message: `key` is used if no header has one. Also
    /// returns the key, from either source.
    pub fn admit_bearer(
        &self,
        headers: &HeaderMap,
        key: Option<Secret>,
        connection: Option<&ConnInfo>,
    ) -> (Decision, Option<Secret>) {
        let credentials = match (Credentials::read(headers, Dialect::Grpc), key.filter(|key| !key.is_blank())) {
            (Credentials::None, Some(key)) => Credentials::Key(key),
            (credentials, _) => credentials,
        };
        let key = match &credentials {
            Credentials::Key(key) => Some(key.clone()),
            Credentials::None | Credentials::Malformed | Credentials::Several => None,
        };
        (self.decide(credentials, headers, None, connection), key)
    }

    /// Returns whether any credentials are configured.
    pub fn has_credentials(&self) -> bool {
        self.0.policy.borrow().has_credentials()
    }

    /// Returns the grant of `principal`, whose request arrived on `connection`.
    pub(crate) fn grant(&self, principal: &Principal, connection: Option<&ConnInfo>) -> Grant {
        let mut policy = self.0.policy.clone();
        policy.mark_unchanged();
        let tls = connection.and_then(|connection| connection.tls.clone());
        Grant { policy, principal: principal.clone(), tls, is_local: self.0.is_local }
    }

    /// Logs to the audit log that an authenticated caller's role does not permit its request.
    pub fn denied(&self, principal: &Principal) {
        audit::role_denied(principal);
    }

    fn decide(
        &self,
        credentials: Credentials,
        headers: &HeaderMap,
        uri: Option<&Uri>,
        connection: Option<&ConnInfo>,
    ) -> Decision {
        let policy = self.0.policy.borrow().clone();
        let address = connection.map(|c| self.0.proxies.client(c.remote.ip(), headers));
        let certificate = connection.and_then(|c| c.tls.as_ref()?.client.as_ref());
        let way = RequestContext {
            endpoint: connection.map_or("", |c| c.endpoint),
            address,
            certificate: certificate.map(|c| c.summary().fingerprint.as_str().into()),
            trace: trace(headers),
        };
        let standing = connection.map(|c| c.standing.clone());
        let caller = Caller { access: self.clone(), source: address.map(Source::from), way, standing };
        let (keys, key) = match (&policy.keys, credentials) {
            // If no keys are configured, a value that looks like a key is meant for another server.
            (None, _) | (Some(_), Credentials::None) => {
                return Decision::Ready(caller.end(self.without_key(&policy, headers, uri, connection, certificate)));
            }
            (Some(_), Credentials::Several) => return Decision::Ready(caller.end(Err(Refusal::SeveralKeys))),
            (Some(_), Credentials::Malformed) => return Decision::Ready(caller.end(Err(Refusal::Malformed))),
            (Some(keys), Credentials::Key(key)) => (keys, key),
        };
        let checked = keys.check(key.expose());
        if let Some(after) = caller.source.and_then(|source| self.0.throttle.wait(source)) {
            let is_known = matches!((&checked, caller.source), (Checked::Known(key), Some(source))
                if self.0.throttle.recently_authenticated(source, &key.name));
            if !is_known {
                return Decision::Ready(caller.end(Err(Refusal::Throttled { after })));
            }
        }
        match checked {
            Checked::Known(key) => Decision::Ready(caller.with_key(key, &policy, certificate)),
            Checked::Unknown => Decision::Ready(caller.with_wrong_key()),
            Checked::Unclear => {
                let guesses = AttemptTracker { throttle: self.0.throttle.clone(), source: caller.source };
                let (keys, tls) = (keys.clone(), connection.and_then(|c| c.tls.clone()));
                Decision::Pending(Box::pin(async move {
                    let certificate = tls.as_ref().and_then(|tls| tls.client.as_ref());
                    match ApiKeys::check_slowly(keys, key, guesses).await {
                        Ok(SlowCheck::Known(key)) => caller.with_key(&key, &policy, certificate),
                        Ok(SlowCheck::Unknown { waits }) => caller.end(Err(Refusal::WrongKey { waits })),
                        Ok(SlowCheck::Waits(after)) => caller.end(Err(Refusal::Throttled { after })),
                        Err(Busy) => caller.end(Err(Refusal::Throttled { after: Duration::from_secs(1) })),
                    }
                }))
            }
        }
    }

    /// Handles a caller without a key: its certificate identifies it, otherwise it is anonymous. A browser presents a
    /// certificate, or calls anonymously, for any page, so the page's origin is checked.
    fn without_key(
        &self,
        policy: &Policy,
        headers: &HeaderMap,
        uri: Option<&Uri>,
        connection: Option<&ConnInfo>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Principal, Refusal> {
        let principal = match policy.client_identity(certificate)? {
            Some(_) if policy.wants_both() => return Err(Refusal::KeyMissing),
            Some((name, role)) => Principal::new(name, role),
            None => Principal::anonymous(
                policy
                    .anonymous(self.0.is_local)
                    .ok_or(Refusal::Anonymous { has_credentials: policy.has_credentials() })?,
            ),
        };
        self.refuse_foreign_pages(headers, uri, connection, certificate.is_some())?;
        Ok(principal)
    }

    /// Prevents web pages of other origins from using an open endpoint of a developer or an intranet (Fetch Metadata,
    /// and RFC 6454 §7 for `Origin`).
    fn refuse_foreign_pages(
        &self,
        headers: &HeaderMap,
        uri: Option<&Uri>,
        connection: Option<&ConnInfo>,
        ambient: bool,
    ) -> Result<(), Refusal> {
        let host = authority(headers, uri);
        let origin = headers.get(ORIGIN);
        let is_allowed = origin.is_some_and(|origin| self.0.origins.allows(origin, ambient));
        if !is_allowed && headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site")
        {
            return Err(Refusal::CrossSite);
        }
        if let Some(origin) = origin.filter(|_| !is_allowed) {
            // Behind a proxy that terminates TLS, the page uses https and the connection is plain text.
            let schemes: &[&str] =
                if connection.is_some_and(|c| c.tls.is_some()) { &["https"] } else { &["https", "http"] };
            let own = host.as_ref().is_some_and(|host| {
                schemes.iter().any(|s| origin.as_bytes().eq_ignore_ascii_case(format!("{s}://{host}").as_bytes()))
            });
            if !own {
                return Err(Refusal::CrossSite);
            }
        }
        match host {
            Some(host) if is_loopback_name(host.host()) => Ok(()),
            // A missing or malformed host is not a loopback name either.
            _ if self.0.loopback_names && !ambient => Err(Refusal::ForeignHost),
            _ => Ok(()),
        }
    }
}

/// The basis on which a caller was accepted, kept while its request runs.
#[derive(Debug)]
pub(crate) struct Grant {
    policy: watch::Receiver<Arc<Policy>>,
    principal: Principal,
    tls: Option<Arc<TlsInfo>>,
    is_local: bool,
}

impl Grant {
    /// Waits until the caller would no longer be accepted, or only with fewer rights: its key or identity is removed or
    /// gets a lesser role, or its certificate is revoked. Counts the revocation and logs it to the audit log.
    pub(crate) async fn revoked(mut self) {
        let tls = self.tls.clone();
        let distrusted = async {
            match tls.as_ref().and_then(|tls| tls.client.as_ref()) {
                Some(certificate) => certificate.distrusted().await,
                None => std::future::pending().await,
            }
        };
        let withdrawn = async {
            // The policy may have changed since the caller was accepted.
            while self.policy.borrow_and_update().still_admits(&self.principal, self.tls.as_deref(), self.is_local) {
                if self.policy.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = distrusted => {}
            () = withdrawn => {}
        }
        let way = self.principal.way();
        let endpoint = if way.endpoint.is_empty() { "unknown" } else { way.endpoint };
        let reason = Refusal::Revoked.reason();
        counter!("spiced_auth_failures_total", "endpoint" => endpoint, "reason" => reason).increment(1);
        audit::denied(Some(self.principal.name()), way, reason, Some("the running request was ended"));
    }
}

/// A request's caller before authentication is complete.
struct Caller {
    access: Access,
    source: Option<Source>,
    way: RequestContext,
    /// The standing of the connection.
    standing: Option<Standing>,
}

impl Caller {
    fn with_wrong_key(self) -> Result<Principal, Refusal> {
        let waits = self.source.is_some_and(|source| self.access.0.throttle.failed(source));
        self.end(Err(Refusal::WrongKey { waits }))
    }

    /// Decides on a caller with a valid key.
    fn with_key(
        self,
        key: &Key,
        policy: &Policy,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Principal, Refusal> {
        if let Some(source) = self.source {
            self.access.0.throttle.record_success(source, &key.name);
        }
        let principal = match policy.client_identity(certificate) {
            Ok(Some((name, role))) if policy.wants_both() => {
                Ok(Principal::new(format!("{} {name}", key.name), role.min(key.role)))
            }
            Ok(None) if policy.wants_both() => Err(Refusal::CertificateMissing),
            // If the certificate is no longer accepted, a valid key does not help.
            Err(refusal @ (Refusal::CertificateEnded | Refusal::CertificateDistrusted)) => Err(refusal),
            Err(refusal) if policy.wants_both() => Err(refusal),
            _ => Ok(Principal::new(key.name.clone(), key.role)),
        };
        self.end(principal)
    }

    /// Completes the decision; counts and logs a refusal.
    fn end(self, decided: Result<Principal, Refusal>) -> Result<Principal, Refusal> {
        match decided {
            Ok(principal) => {
                if let Some(standing) = self.standing {
                    standing.admit();
                }
                Ok(principal.with_context(self.way))
            }
            Err(refusal) => {
                if let Some(standing) = self.standing {
                    standing.refuse();
                }
                let endpoint = if self.way.endpoint.is_empty() { "unknown" } else { self.way.endpoint };
                counter!("spiced_auth_failures_total", "endpoint" => endpoint, "reason" => refusal.reason())
                    .increment(1);
                let detail = match refusal {
                    Refusal::WrongKey { waits: true } => Some("the address is throttled from now on"),
                    _ => None,
                };
                audit::denied(None, &self.way, refusal.reason(), detail);
                Err(refusal)
            }
        }
    }
}

/// A decision, which may still be pending.
pub enum Decision {
    /// The decision is made.
    Ready(Result<Principal, Refusal>),
    /// A hash must be computed first.
    Pending(BoxFuture<'static, Result<Principal, Refusal>>),
}

/// Returns the trace of a request. If there are two headers, neither is used, because it is unclear which one is meant.
fn trace(headers: &HeaderMap) -> Option<Trace> {
    let mut given = headers.get_all("traceparent").iter();
    let (only, None) = (given.next()?, given.next()) else { return None };
    let state = headers.get_all("tracestate").iter().map(|value| value.to_str().unwrap_or("malformed"));
    Some(Trace::parse(only.to_str().ok()?)?.with_state(state))
}

impl Decision {
    /// Waits for the decision.
    ///
    /// # Errors
    /// Fails if the caller is refused.
    pub async fn decision(self) -> Result<Principal, Refusal> {
        match self {
            Self::Ready(decision) => decision,
            Self::Pending(decision) => decision.await,
        }
    }
}

#[cfg(test)]
mod tests;
