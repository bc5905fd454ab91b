//! The channel that carries the identities to every endpoint: the next handshake uses what is published, and existing
//! connections are not affected.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::{Identity, SniCertResolver};

/// Creates the channel with `initial` as the current identities.
pub fn channel(initial: impl Into<SniCertResolver>) -> (Publisher, Identities) {
    let served = Served { identities: Arc::new(initial.into()), rejection: None };
    let (sender, receiver) = watch::channel(served);
    (Publisher(sender), Identities(receiver))
}

/// The current identities, and the outcome of the last attempt to change them.
#[derive(Debug, Clone)]
pub struct Served {
    /// The identities for the next handshake.
    pub identities: Arc<SniCertResolver>,
    /// The latest candidate rejected since they were published.
    pub rejection: Option<Rejection>,
}

impl Served {
    /// Returns the default identity.
    pub fn identity(&self) -> &Arc<Identity> {
        self.identities.default()
    }
}

/// A candidate that was rejected.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The time of the rejection.
    pub at: SystemTime,
    /// The reason, in one sentence.
    pub reason: String,
}

/// The sending end of the channel: there is one, held by the reloader.
#[derive(Debug)]
pub struct Publisher(watch::Sender<Served>);

impl Publisher {
    /// Makes `identities` current for every handshake from now on.
    pub fn publish(&self, identities: impl Into<SniCertResolver>) {
        self.0.send_replace(Served { identities: Arc::new(identities.into()), rejection: None });
    }

    /// Records that a candidate was rejected; the current identities stay in use.
    pub fn reject(&self, reason: String) {
        self.0.send_modify(|served| served.rejection = Some(Rejection { at: SystemTime::now(), reason }));
    }

    /// Records that a read found no change, which clears an earlier rejection.
    pub fn unchanged(&self) {
        self.0.send_if_modified(|served| served.rejection.take().is_some());
    }

    /// Returns the current state.
    pub fn served(&self) -> Served {
        self.0.borrow().clone()
    }
}

/// The receiving end of the channel: cheap to clone, one for each endpoint and each observer.
#[derive(Debug, Clone)]
pub struct Identities(watch::Receiver<Served>);

impl Identities {
    /// Returns the current state.
    pub fn served(&self) -> Served {
        self.0.borrow().clone()
    }

    /// Returns whether there is a certificate for a client that requests `name`, or no name.
    pub(crate) fn answers(&self, name: Option<&str>) -> bool {
        let served = self.0.borrow();
        !served.identities.is_strict() || served.identities.answer(name).is_some()
    }

    /// Waits for a change. Returns `false` if the publisher is gone, so that no change can follow.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().identities.resolve(&hello).map(|identity| identity.certified_key().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    #[test]
    fn what_is_published_is_served_and_what_is_rejected_is_not() {
        let (publisher, identities) = channel(identity("a.test"));
        publisher.reject("half written".to_owned());
        let served = identities.served();
        assert_eq!(served.identity().leaf().names[0], "a.test");
        assert_eq!(served.rejection.unwrap().reason, "half written");

        publisher.publish(identity("b.test"));
        let served = identities.served();
        assert_eq!(served.identity().leaf().names[0], "b.test");
        assert!(served.rejection.is_none());
    }
}
