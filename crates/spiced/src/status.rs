//! The document of `GET /v1/status`, and the readiness of the program.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use spiced_engine::{DatasetState, DatasetStatus};
use spiced_middleware::Policy;
use spiced_secrets::StoreStatus;
use tls_core::rotation::{Identities, Rejection};
use tls_core::{CertificateSummary, ClientAuth, ClientAuthPolicy, Identity, Validity};
use tokio::sync::watch;

use crate::endpoints::BoundEndpoint;
use crate::secrets::store_status;

/// Where an endpoint listens.
#[derive(Debug, Clone)]
pub(crate) struct EndpointStatus {
    pub(crate) endpoint: &'static str,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) tls: bool,
}

impl EndpointStatus {
    pub(crate) fn of(endpoint: &BoundEndpoint) -> Self {
        Self { endpoint: endpoint.endpoint, addresses: endpoint.addresses().to_vec(), tls: endpoint.is_tls() }
    }
}

/// The sources of the status document.
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<EndpointStatus>,
    pub(crate) identities: Option<Identities>,
    pub(crate) clients: Option<watch::Receiver<Arc<ClientAuthPolicy>>>,
    pub(crate) policy: watch::Receiver<Arc<Policy>>,
    /// The current stores; a reload of the pod replaces them.
    pub(crate) stores: watch::Receiver<watch::Receiver<Vec<StoreStatus>>>,
    pub(crate) datasets: watch::Receiver<Vec<DatasetStatus>>,
    pub(crate) readiness: watch::Receiver<bool>,
}

impl Status {
    /// Returns the current document.
    pub(crate) fn document(&self) -> Value {
        let endpoints: Vec<Value> = self
            .endpoints
            .iter()
            .map(|endpoint| json!({ "endpoint": endpoint.endpoint, "addresses": endpoint.addresses, "tls": endpoint.tls }))
            .collect();
        let served = self.identities.as_ref().map(Identities::served);
        let identities = served.iter().flat_map(|served| served.identities.iter());
        let rejection = served.as_ref().and_then(|served| served.rejection.as_ref());
        let certificates: Vec<Value> = identities.map(|identity| certificate(identity, rejection)).collect();
        json!({
            "name": self.name,
            "version": env!("CARGO_PKG_VERSION"),
            "ready": *self.readiness.borrow(),
            "endpoints": endpoints,
            "tls": {
                "enabled": self.identities.is_some(),
                "certificates": certificates,
                "strict_sni": served.as_ref().is_some_and(|served| served.identities.is_strict()),
                "client_auth": self.clients.as_ref().map(|trust| client_auth(&trust.borrow())),
            },
            "auth": auth(&self.policy.borrow()),
            "stores": self.stores.borrow().borrow().iter().map(store_status).collect::<Vec<_>>(),
            "datasets": *self.datasets.borrow(),
        })
    }
}

fn client_auth(trust: &ClientAuthPolicy) -> Value {
    let authorities: Vec<Value> = trust
        .authorities()
        .iter()
        .map(|ca| {
            json!({
                "subject": ca.subject,
                "fingerprint": ca.fingerprint,
                "not_after": date(ca.not_after),
                "health": health(ca),
            })
        })
        .collect();
    let mode = match trust.mode() {
        ClientAuth::None => "none",
        ClientAuth::Request => "request",
        ClientAuth::Required => "required",
    };
    json!({ "mode": mode, "authorities": authorities })
}

fn auth(policy: &Policy) -> Value {
    json!({
        "api_keys": policy.keys.as_ref().map_or(0, |keys| keys.len()),
        "identities": policy.certificates.as_ref().map_or(0, |identities| identities.len()),
        "require": if policy.require_all { "all" } else { "any" },
    })
}

fn certificate(identity: &Identity, rejection: Option<&Rejection>) -> Value {
    let leaf = identity.leaf();
    json!({
        "subject": leaf.subject,
        "names": leaf.names,
        "issuer": leaf.issuer,
        "fingerprint": leaf.fingerprint,
        "not_before": date(leaf.not_before),
        "not_after": date(leaf.not_after),
        "health": health(leaf),
        "origin": identity.certificate_origin().to_string(),
        "key_origin": identity.key_origin().to_string(),
        "last_swap": stamp(identity.paired_at()),
        "last_rejection": rejection.map(|Rejection { at, reason }| json!({ "at": stamp(*at), "reason": reason })),
    })
}

/// Returns `ok`, or the reason for an alert.
pub(crate) fn health(leaf: &CertificateSummary) -> &'static str {
    match leaf.validity(SystemTime::now()) {
        Validity::NotYet { .. } => "not valid yet",
        Validity::Expired => "expired",
        Validity::EndsWithin7Days => "degraded: expires within 7 days",
        Validity::EndsWithin30Days => "degraded: expires within 30 days",
        Validity::Valid => "ok",
    }
}

/// Formats a certificate's date, in UTC.
pub(crate) fn date(unix: i64) -> String {
    stamp(UNIX_EPOCH + Duration::from_secs(unix.max(0) as u64))
}

/// Formats a point in time, in UTC.
pub(crate) fn stamp(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Returns a watch that is true while every data set can be queried, statements run, and no shutdown has begun, and the
/// future that updates it.
pub(crate) fn readiness(
    mut datasets: watch::Receiver<Vec<DatasetStatus>>,
    mut stopping: watch::Receiver<bool>,
    mut responsive: watch::Receiver<bool>,
) -> (watch::Receiver<bool>, impl Future<Output = ()> + Send + 'static) {
    let (sender, receiver) = watch::channel(false);
    let follow = async move {
        loop {
            let stop = *stopping.borrow_and_update();
            let loaded = datasets.borrow_and_update().iter().all(|set| set.state == DatasetState::Ready);
            let is_ready = loaded && !stop && *responsive.borrow_and_update();
            sender.send_if_modified(|ready| std::mem::replace(ready, is_ready) != is_ready);
            tokio::select! {
                // A closed `datasets` channel means that nothing is left to load: then only the other channels matter.
                Ok(()) = datasets.changed() => {}
                Ok(()) = responsive.changed() => {}
                changed = stopping.changed() => if changed.is_err() { return },
            }
        }
    };
    (receiver, follow)
}
