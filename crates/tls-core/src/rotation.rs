//! The channel that carries the identities to every endpoint: what is published is used by the next
//! handshake, and connections in flight are untouched.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::{Identity, SniCertResolver};

/// Makes the channel, serving `initial` at once.
pub fn channel(initial: impl Into<SniCertResolver>) -> (Publisher, Identities) {
    let served = Served { identities: Arc::new(initial.into()), rejection: None };
    let (sender, receiver) = watch::channel(served);
    (Publisher(sender), Identities(receiver))
}

/// What is served, and how the last attempt to change it ended.
#[derive(Debug, Clone)]
pub struct Served {
    /// The identities of the next handshake.
    pub identities: Arc<SniCertResolver>,
    /// The newest candidate that was refused since.
    pub rejection: Option<Rejection>,
}

impl Served {
    /// The default identity.
    pub fn identity(&self) -> &Arc<Identity> {
        self.identities.default()
    }
}

/// A candidate that was not taken.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// When.
    pub at: SystemTime,
    /// Why, in one sentence.
    pub reason: String,
}

/// The writing end: one, held by whoever reloads.
#[derive(Debug)]
pub struct Publisher(watch::Sender<Served>);

impl Publisher {
    /// Puts `identities` before every handshake from now on.
    pub fn publish(&self, identities: impl Into<SniCertResolver>) {
        self.0.send_replace(Served { identities: Arc::new(identities.into()), rejection: None });
    }

    /// Records that a candidate was refused; what serves goes on serving.
    pub fn reject(&self, reason: String) {
        self.0.send_modify(|served| served.rejection = Some(Rejection { at: SystemTime::now(), reason }));
    }

    /// Records that a reading found nothing new, which ends an earlier rejection.
    pub fn unchanged(&self) {
        self.0.send_if_modified(|served| served.rejection.take().is_some());
    }

    /// What is served now.
    pub fn served(&self) -> Served {
        self.0.borrow().clone()
    }
}

/// The reading end: cheap to clone, one for each endpoint and each observer.
#[derive(Debug, Clone)]
pub struct Identities(watch::Receiver<Served>);

impl Identities {
    /// What is served now.
    pub fn served(&self) -> Served {
        self.0.borrow().clone()
    }

    /// Whether there is a certificate for a client that asks for `name`, or for none.
    pub(crate) fn answers(&self, name: Option<&str>) -> bool {
        let served = self.0.borrow();
        !served.identities.is_strict() || served.identities.answer(name).is_some()
    }

    /// Waits for a change. `false` where the publisher is gone and none will come.
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
