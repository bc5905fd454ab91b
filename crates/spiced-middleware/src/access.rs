//! Who calls, and whether that caller is let in. The one place that decides it for every endpoint.

use std::borrow::Cow;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Uri};
use metrics::counter;
use spiced_engine::{Principal, RequestContext, Role, Trace};
use tls_core::{ClientCertificate, ConnInfo, Secret, Standing, TlsInfo};
use tokio::sync::watch;

use crate::address::TrustedProxies;
use crate::credentials::Credentials;
use crate::keys::{ApiKeys, AttemptTracker, Busy, Checked, Key, SlowCheck};
use crate::origins::AllowedOrigins;
use crate::policy::{Anonymous, Policy};
use crate::throttle::{Source, Throttle};
use crate::{Dialect, audit};

/// How often an address may fail at once, and a minute after that, unless it is set.
const FAILURES: NonZero<u32> = NonZero::new(30).expect("it is not zero");

/// Decides who calls an endpoint. Cheap to clone.
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
    /// Callers without credentials get `role`, or nothing where it is `None`. There are no others.
    pub fn anonymous(role: Option<Role>) -> Self {
        Self::of(Policy { anonymous: Anonymous::Said(role), ..Policy::default() })
    }

    /// Callers as `policy` has it.
    pub fn of(policy: Policy) -> Self {
        // Nobody changes it: the last value stays.
        let (_, policy) = watch::channel(Arc::new(policy));
        Self::following(policy)
    }

    /// Callers as `policy` has it at each request.
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

    /// The same for an endpoint that only this machine reaches.
    #[must_use]
    pub fn local(self) -> Self {
        self.with(|inner| inner.is_local = true)
    }

    /// The same, and a request without credentials whose `Host` is no loopback name is refused, so that no
    /// web page reaches the endpoint by rebinding a name of its own.
    #[must_use]
    pub fn loopback(self) -> Self {
        self.with(|inner| (inner.is_local, inner.loopback_names) = (true, true))
    }

    /// Failures are counted together with all others that share `throttle`.
    #[must_use]
    pub fn throttled(self, throttle: Arc<Throttle>) -> Self {
        self.with(|inner| inner.throttle = throttle)
    }

    /// Whose word on the client's address counts.
    #[must_use]
    pub fn behind(self, proxies: TrustedProxies) -> Self {
        self.with(|inner| inner.proxies = proxies)
    }

    /// Pages of these origins may call.
    #[must_use]
    pub fn from_pages_of(self, origins: AllowedOrigins) -> Self {
        self.with(|inner| inner.origins = origins)
    }

    fn with(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// Lets a request in, as whom, or says why not. What is refused is counted and told to the audit log.
    pub fn admit(&self, request: &Parts, dialect: Dialect) -> Decision {
        let credentials = Credentials::read(&request.headers, dialect);
        self.decide(credentials, &request.headers, Some(&request.uri), request.extensions.get())
    }

    /// The same for gRPC, where a key may come in a message, too: `key` counts where no header has one. Gives
    /// the key as well, whichever it is.
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

    /// Whether there are credentials that a caller could give.
    pub fn has_credentials(&self) -> bool {
        self.0.policy.borrow().has_credentials()
    }

    /// What lets `principal` go on, whose request came by `connection`.
    pub(crate) fn grant(&self, principal: &Principal, connection: Option<&ConnInfo>) -> Grant {
        let mut policy = self.0.policy.clone();
        policy.mark_unchanged();
        let tls = connection.and_then(|connection| connection.tls.clone());
        Grant { policy, principal: principal.clone(), tls, is_local: self.0.is_local }
    }

    /// Tells the audit log of a caller that was let in and whose role does not suffice for what it asks.
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
            // Where no keys are set up, whatever looks like one is somebody else's.
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
                if self.0.throttle.recently_authenticated(source, key));
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

    /// A caller that gives no key: its certificate decides, or else it is anonymous. Browsers show either
    /// for whatever page asks.
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

    /// No web page of another origin may use a developer's or an intranet's open endpoint (Fetch
    /// Metadata, and RFC 6454 §7 for `Origin`).
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
            // Behind a proxy that ends TLS, the page is https and the connection is plain.
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
            // One that is missing, or cannot be read, is no loopback name either.
            _ if self.0.loopback_names && !ambient => Err(Refusal::ForeignHost),
            _ => Ok(()),
        }
    }
}

impl Policy {
    fn wants_both(&self) -> bool {
        self.require_all && self.keys.is_some() && self.certificates.is_some()
    }

    /// Name and role of who showed a certificate; `None` where nobody did.
    fn client_identity(&self, certificate: Option<&ClientCertificate>) -> Result<Option<(String, Role)>, Refusal> {
        let (Some(identities), Some(certificate)) = (&self.certificates, certificate) else { return Ok(None) };
        if !certificate.is_in_date(SystemTime::now()) {
            return Err(Refusal::CertificateEnded);
        }
        if certificate.is_distrusted() {
            return Err(Refusal::CertificateDistrusted);
        }
        identities.find(certificate).map(Some).ok_or(Refusal::Unmapped)
    }
}

/// What a caller was let in by, as long as its request runs.
#[derive(Debug)]
pub(crate) struct Grant {
    policy: watch::Receiver<Arc<Policy>>,
    principal: Principal,
    tls: Option<Arc<TlsInfo>>,
    is_local: bool,
}

impl Grant {
    /// Waits until the caller would not be let in any more, or not with the same rights: its key or its identity is
    /// taken away or may do less, its certificate is revoked. Counts it and tells the audit log.
    pub(crate) async fn revoked(mut self) {
        let tls = self.tls.clone();
        let distrusted = async {
            match tls.as_ref().and_then(|tls| tls.client.as_ref()) {
                Some(certificate) => certificate.distrusted().await,
                None => std::future::pending().await,
            }
        };
        let withdrawn = async {
            // It may have changed since the caller was let in.
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

impl Policy {
    /// Whether a caller that was let in as `principal` would be let in now, with the same rights at least.
    fn still_admits(&self, principal: &Principal, tls: Option<&TlsInfo>, is_local: bool) -> bool {
        let certificate = tls.and_then(|tls| tls.client.as_ref());
        let holder = self.client_identity(certificate);
        if let Err(Refusal::CertificateEnded | Refusal::CertificateDistrusted) = holder {
            return false;
        }
        let suffices = |role: Role| role >= principal.role();
        let holder = holder.ok().flatten();
        if *principal == Principal::anonymous(principal.role()) {
            return holder.is_none() && self.anonymous(is_local).is_some_and(suffices);
        }
        let mut bearers = self.keys.iter().flat_map(|keys| keys.bearers());
        if self.wants_both() {
            return holder.is_some_and(|(name, role)| {
                bearers.any(|key| principal.name() == format!("{} {name}", key.name) && suffices(role.min(key.role)))
            });
        }
        bearers.any(|key| *key.name == *principal.name() && suffices(key.role))
            || holder.is_some_and(|(name, role)| name == principal.name() && suffices(role))
    }
}

/// One request's caller, as far as it is known before it is let in.
struct Caller {
    access: Access,
    source: Option<Source>,
    way: RequestContext,
    /// Of the connection.
    standing: Option<Standing>,
}

impl Caller {
    fn with_wrong_key(self) -> Result<Principal, Refusal> {
        let waits = self.source.is_some_and(|source| self.access.0.throttle.failed(source));
        self.end(Err(Refusal::WrongKey { waits }))
    }

    /// Decides on a caller that gave a key of ours.
    fn with_key(
        self,
        key: &Key,
        policy: &Policy,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Principal, Refusal> {
        if let Some(source) = self.source {
            self.access.0.throttle.record_success(source, key);
        }
        let principal = match policy.client_identity(certificate) {
            Ok(Some((name, role))) if policy.wants_both() => {
                Ok(Principal::new(format!("{} {name}", key.name), role.min(key.role)))
            }
            Ok(None) if policy.wants_both() => Err(Refusal::CertificateMissing),
            // A connection that would not be let in any more has no use for a key either.
            Err(refusal @ (Refusal::CertificateEnded | Refusal::CertificateDistrusted)) => Err(refusal),
            Err(refusal) if policy.wants_both() => Err(refusal),
            _ => Ok(Principal::new(key.name.clone(), key.role)),
        };
        self.end(principal)
    }

    /// Counts and tells a refusal.
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
                    Refusal::WrongKey { waits: true } => Some("the address has to wait from now on"),
                    _ => None,
                };
                audit::denied(None, &self.way, refusal.reason(), detail);
                Err(refusal)
            }
        }
    }
}

/// A decision: made, or to be waited for.
pub enum Decision {
    /// It is made.
    Ready(Result<Principal, Refusal>),
    /// A hash is to be computed first.
    Pending(BoxFuture<'static, Result<Principal, Refusal>>),
}

/// The trace of a request. Two headers are none: nobody knows which of them is meant.
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
    /// The caller is not let in.
    pub async fn decision(self) -> Result<Principal, Refusal> {
        match self {
            Self::Ready(decision) => decision,
            Self::Pending(decision) => decision.await,
        }
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// No credentials, and callers without them are not let in here.
    Anonymous {
        /// Whether there are any that the caller could give.
        has_credentials: bool,
    },
    /// Nobody has the key that was given.
    WrongKey {
        /// Whether the address has failed too often by now.
        waits: bool,
    },
    /// The credentials are of no form that is taken here.
    Malformed,
    /// Two keys are given that differ.
    SeveralKeys,
    /// A key is wanted beside the certificate.
    KeyMissing,
    /// A certificate is wanted beside the key.
    CertificateMissing,
    /// What the caller was let in by has been taken away while its request ran.
    Revoked,
    /// The client's certificate has ended since its connection began.
    CertificateEnded,
    /// The client's certificate is trusted no more, by a change of the CA or a revocation list.
    CertificateDistrusted,
    /// No identity names the client's certificate.
    Unmapped,
    /// The address has failed too often.
    Throttled {
        /// When it may try again.
        after: Duration,
    },
    /// A browser sent it for a page of another origin.
    CrossSite,
    /// The `Host` is no name of this endpoint.
    ForeignHost,
}

/// How a refusal is worded: an HTTP status and a gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 401, UNAUTHENTICATED: other credentials would help.
    Unauthenticated,
    /// 403, PERMISSION_DENIED: they would not.
    Denied,
    /// 429, RESOURCE_EXHAUSTED: later.
    Exhausted(Duration),
}

impl Refusal {
    /// One sentence for the caller.
    pub fn message(self) -> &'static str {
        match self {
            Self::Anonymous { has_credentials: true } => {
                "no credentials: give an API key (X-API-Key, or Authorization: Bearer) or a client certificate"
            }
            Self::Anonymous { has_credentials: false } => {
                "no credentials, and callers without credentials are not let in: this server listens beyond loopback; \
                 its operator may set up runtime.auth.api_key, or set runtime.auth.allow_anonymous to ro or rw"
            }
            Self::WrongKey { .. } => "the API key is not one of this server's",
            Self::Malformed => "the Authorization header is of no form that is taken here: send Bearer and the API key",
            Self::SeveralKeys => "X-API-Key and Authorization give two different keys; send one",
            Self::KeyMissing => {
                "an API key is wanted beside the client certificate (X-API-Key, or Authorization: Bearer)"
            }
            Self::CertificateMissing => "a client certificate is wanted beside the API key",
            Self::Revoked => "the credentials of this request were revoked while it ran, or may do less now",
            Self::CertificateEnded => "the client certificate has ended since this connection began; renew it",
            Self::CertificateDistrusted => {
                "the client certificate is trusted no more: it was revoked, or its CA was taken away"
            }
            Self::Unmapped => {
                "no identity of this server names the client certificate; its operator may add one to runtime.auth.mtls.identities"
            }
            Self::Throttled { .. } => "too many wrong keys from this address; try again later",
            Self::CrossSite => "a page of another origin may not use this server",
            Self::ForeignHost => {
                "the Host header is no loopback name: this endpoint is for this machine alone; use localhost, 127.0.0.1 or [::1]"
            }
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Anonymous { .. }
            | Self::WrongKey { .. }
            | Self::Malformed
            | Self::SeveralKeys
            | Self::KeyMissing
            | Self::CertificateMissing
            | Self::Revoked
            | Self::CertificateEnded
            | Self::CertificateDistrusted => Kind::Unauthenticated,
            Self::Unmapped | Self::CrossSite | Self::ForeignHost => Kind::Denied,
            Self::Throttled { after } => Kind::Exhausted(after),
        }
    }

    /// The gRPC code (`google.rpc.Code`).
    pub fn grpc_code(self) -> i32 {
        match self.kind() {
            Kind::Unauthenticated => 16,
            Kind::Denied => 7,
            Kind::Exhausted(_) => 8,
        }
    }

    /// The value of the label `reason` of `spiced_auth_failures_total`, and of the audit log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Anonymous { .. } => "anonymous",
            Self::WrongKey { .. } => "wrong_key",
            Self::Malformed => "malformed",
            Self::SeveralKeys => "several_keys",
            Self::KeyMissing => "key_missing",
            Self::CertificateMissing => "certificate_missing",
            Self::Revoked => "revoked",
            Self::CertificateEnded => "certificate_ended",
            Self::CertificateDistrusted => "certificate_distrusted",
            Self::Unmapped => "unmapped_certificate",
            Self::Throttled { .. } => "throttled",
            Self::CrossSite => "cross_site",
            Self::ForeignHost => "foreign_host",
        }
    }
}

/// The authority of the request: HTTP/2's pseudo-header, or HTTP/1's `Host`.
pub(crate) fn authority<'a>(headers: &HeaderMap, uri: Option<&'a Uri>) -> Option<Cow<'a, Authority>> {
    match uri.and_then(Uri::authority) {
        Some(authority) => Some(Cow::Borrowed(authority)),
        None => headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok()).map(Cow::Owned),
    }
}

pub(crate) fn is_loopback_name(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    bare.eq_ignore_ascii_case("localhost")
        || bare.to_ascii_lowercase().ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
