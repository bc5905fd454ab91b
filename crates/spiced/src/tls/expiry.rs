//! Logs once a day which certificates and revocation lists expire soon, and immediately when a revocation list expires.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spiced_certs::{clients_ending, ending};
use tls_core::ClientAuthPolicy;
use tls_core::rotation::Identities;
use tokio::sync::watch;

use super::say_all;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks once a day, and whenever a revocation list expires. The first check is a day away: startup has already
/// reported its own findings.
pub(crate) async fn remind(identities: Identities, mut clients: watch::Receiver<Arc<ClientAuthPolicy>>) {
    loop {
        let until = clients.borrow_and_update().crl_next_update();
        tokio::select! {
            () = tokio::time::sleep(pause(until, SystemTime::now())) => {}
            // New lists have another expiry.
            Ok(()) = clients.changed() => continue,
        }
        let now = SystemTime::now();
        let served = identities.served().identities;
        let found = served.iter().flat_map(|identity| ending(identity, now)).collect::<Vec<_>>();
        say_all(&found);
        let trust = clients.borrow().clone();
        say_all(&clients_ending(&trust, now));
    }
}

/// Returns how long to wait: a day, or until just after a revocation list expires if that is sooner.
fn pause(until: Option<i64>, now: SystemTime) -> Duration {
    match until.and_then(|until| left(until, now)) {
        Some(left) => DAY.min(left + Duration::from_secs(1)),
        None => DAY,
    }
}

/// Returns the time left until `until`, or `None` if it has passed.
fn left(until: i64, now: SystemTime) -> Option<Duration> {
    let until = UNIX_EPOCH + Duration::from_secs(u64::try_from(until).ok()?);
    until.duration_since(now).ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_or_until_a_list_ends() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(pause(None, now), DAY);
        assert_eq!(pause(Some(1_000_060), now), Duration::from_secs(61));
        assert_eq!(pause(Some(9_000_000), now), DAY);
        assert_eq!(pause(Some(999_999), now), DAY, "it has been said");
        assert_eq!((left(999_999, now), left(1_000_001, now)), (None, Some(Duration::from_secs(1))));
    }
}
