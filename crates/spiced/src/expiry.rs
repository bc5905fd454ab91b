//! Says once a day what ends soon, for as long as it does: a certificate that nobody renews is in the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use spiced_certs::ending;
use tls_core::ClientTrust;
use tls_core::rotation::Identities;
use tokio::sync::watch;

use crate::identity::say;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks once a day; what the start found has been said then.
pub(crate) async fn remind(identities: Identities, clients: watch::Receiver<Arc<ClientTrust>>) {
    loop {
        tokio::time::sleep(DAY).await;
        let identity = identities.served().identity;
        let now = SystemTime::now();
        let origin = identity.certificate_origin().to_string();
        ending(identity.leaf(), &origin, now).iter().for_each(say);
        let trust = clients.borrow().clone();
        for authority in trust.authorities() {
            ending(authority, "the client CA", now).iter().for_each(say);
        }
    }
}
