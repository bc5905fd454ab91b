//! The document of `GET /v1/status`, and the readiness of the program.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spiced_engine::{DatasetState, DatasetStatus};
use spiced_http::{
    AuthStatus, AuthorityStatus, CertificateStatus, ClientAuthMode, ClientAuthStatus, CredentialsRequired,
    EndpointStatus, RejectionStatus, SecretStoreState, SecretStoreStatus, SecretStoreTrouble, Status, Time, TlsStatus,
};
use spiced_middleware::Policy;
use spiced_secrets::{Refresh, StoreStatus};
use tls_core::rotation::{Identities, Rejection};
use tls_core::{CertificateSummary, ClientAuth, ClientAuthPolicy, Identity};
use tokio::sync::watch;

use crate::endpoints::BoundEndpoint;

/// The sources of the status document.
pub(crate) struct StatusSources {
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

impl StatusSources {
    /// Returns the current status.
    pub(crate) fn status(&self) -> Status {
        Status {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: *self.readiness.borrow(),
            endpoints: self.endpoints.clone(),
            tls: self.tls(),
            auth: auth(&self.policy.borrow()),
            stores: self.stores.borrow().borrow().iter().map(store).collect(),
            datasets: self.datasets.borrow().clone(),
        }
    }

    fn tls(&self) -> TlsStatus {
        let served = self.identities.as_ref().map(Identities::served);
        let identities = served.iter().flat_map(|served| served.identities.iter());
        let rejection = served.as_ref().and_then(|served| served.rejection.as_ref());
        TlsStatus {
            enabled: self.identities.is_some(),
            certificates: identities.map(|identity| certificate(identity, rejection)).collect(),
            strict_sni: served.as_ref().is_some_and(|served| served.identities.is_strict()),
            client_auth: self.clients.as_ref().map(|trust| client_auth(&trust.borrow())),
        }
    }
}

/// Returns the status of an endpoint.
pub(crate) fn endpoint(bound: &BoundEndpoint) -> EndpointStatus {
    EndpointStatus {
        endpoint: bound.endpoint,
        addresses: bound.addresses().iter().map(SocketAddr::to_string).collect(),
        tls: bound.is_tls(),
    }
}

fn client_auth(trust: &ClientAuthPolicy) -> ClientAuthStatus {
    let authority = |ca: &CertificateSummary| AuthorityStatus {
        subject: ca.subject.clone(),
        fingerprint: ca.fingerprint.clone(),
        not_after: unix(ca.not_after),
        health: health(ca),
    };
    ClientAuthStatus {
        mode: match trust.mode() {
            ClientAuth::None => ClientAuthMode::None,
            ClientAuth::Request => ClientAuthMode::Request,
            ClientAuth::Required => ClientAuthMode::Required,
        },
        authorities: trust.authorities().iter().map(authority).collect(),
    }
}

fn auth(policy: &Policy) -> AuthStatus {
    AuthStatus {
        api_keys: policy.keys.as_ref().map_or(0, |keys| keys.len()),
        identities: policy.certificates.as_ref().map_or(0, |identities| identities.len()),
        require: if policy.require_all { CredentialsRequired::All } else { CredentialsRequired::Any },
    }
}

fn certificate(identity: &Identity, rejection: Option<&Rejection>) -> CertificateStatus {
    let leaf = identity.leaf();
    CertificateStatus {
        subject: leaf.subject.clone(),
        names: leaf.names.clone(),
        issuer: leaf.issuer.clone(),
        fingerprint: leaf.fingerprint.clone(),
        not_before: unix(leaf.not_before),
        not_after: unix(leaf.not_after),
        health: health(leaf),
        origin: identity.certificate_origin().to_string(),
        key_origin: identity.key_origin().to_string(),
        last_swap: Time(identity.paired_at()),
        last_rejection: rejection
            .map(|Rejection { at, reason }| RejectionStatus { at: Time(*at), reason: reason.clone() }),
    }
}

fn store(store: &StoreStatus) -> SecretStoreStatus {
    SecretStoreStatus {
        name: store.name.clone(),
        kind: store.kind,
        refresh: match store.refresh {
            Refresh::Told => "on reload".to_owned(),
            Refresh::Every(every) => format!("every {}", humantime::format_duration(every)),
            Refresh::Watch => "watch".to_owned(),
        },
        state: match (&store.trouble, store.last_read) {
            (Some(_), _) => SecretStoreState::Failing,
            (None, Some(_)) => SecretStoreState::Ok,
            (None, None) => SecretStoreState::NotAsked,
        },
        last_read: store.last_read.map(Time),
        trouble: store
            .trouble
            .as_ref()
            .map(|trouble| SecretStoreTrouble { since: Time(trouble.since), problem: trouble.problem.clone() }),
    }
}

/// Returns `ok`, or the reason for an alert.
pub(crate) fn health(leaf: &CertificateSummary) -> &'static str {
    leaf.validity(SystemTime::now()).name()
}

fn unix(seconds: i64) -> Time {
    Time(UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64))
}

/// Formats a certificate's date, in UTC.
pub(crate) fn date(seconds: i64) -> String {
    unix(seconds).to_string()
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
