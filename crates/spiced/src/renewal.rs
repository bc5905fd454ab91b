//! A development certificate is made anew before it ends; the new one is taken as any that changes.

use std::time::Duration;

use spiced_certs::SelfSigned;
use tls_core::rotation::Identities;
use tokio::task::spawn_blocking;
use tracing::{error, info};

/// The clock of a laptop that slept is ahead by hours, so it is looked at often.
const LOOK: Duration = Duration::from_secs(10);

/// From one failure to the next attempt.
const RETRY: Duration = Duration::from_secs(60 * 60);

/// Looks after the leaf of `made`, which `identities` presents.
pub(crate) async fn keep(made: SelfSigned, identities: Identities) {
    loop {
        tokio::time::sleep(LOOK).await;
        if !SelfSigned::is_due(identities.served().identity().leaf()) {
            continue;
        }
        let renewing = made.clone();
        match spawn_blocking(move || renewing.ensure()).await {
            Ok(Ok(true)) => info!("the development certificate ends soon and was made anew, by the same CA"),
            Ok(Ok(false)) => {}
            Ok(Err(reason)) => {
                error!(%reason, hint = "spiced tls init --dir DIR makes it too", "the development certificate cannot be made anew");
                tokio::time::sleep(RETRY).await;
            }
            // A panic of it has been told.
            Err(_) => return,
        }
    }
}
