//! Serves until a stop signal arrives, then drains the connections.

use std::io::Write;

use spiced_middleware::{request_metrics, well_formed};
use tls_core::server::drain;
use tokio::task::JoinSet;
use tower::layer::util::Stack;
use tracing::{info, warn};

use super::build::App;
use super::signals::{Signals, Told};
use crate::failure::Failure;

impl App {
    /// Serves until a stop signal arrives, then drains the connections.
    pub(super) async fn serve(self, mut signals: Signals) -> Result<(), Failure> {
        let (trigger, drain) = drain::channel();
        let mut loops = JoinSet::new();
        for (endpoint, router) in self.routers {
            for address in endpoint.addresses() {
                info!(endpoint = endpoint.endpoint, %address, tls = endpoint.is_tls(), "listening");
            }
            let router = router.layer(Stack::new(well_formed(), request_metrics(endpoint.endpoint)));
            endpoint.serve(router, self.connections, &self.limits, &self.workers, &drain, &mut loops);
        }
        // Standard output may be closed; the server runs regardless.
        let _ = std::io::stdout().write_all(self.banner.as_bytes()).and_then(|()| std::io::stdout().flush());
        info!("serving");

        tokio::spawn(spiced_telemetry::report_suppressed());
        let mut reloading = self.reloading;
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => break,
                    Told::Reload => reloading.told(),
                },
                () = reloading.next() => {}
                Some(ended) = loops.join_next() => {
                    let cause = match ended {
                        Ok(Ok(())) => "it ended unexpectedly".to_owned(),
                        Ok(Err(e)) => e.to_string(),
                        Err(e) => e.to_string(),
                    };
                    return Err(Failure::Other(format!("an accept loop failed: {cause}")));
                }
            }
        }
        let (delay, timeout) = self.shutdown;
        self.stopping.send_replace(true);
        trigger.announce();
        info!(?delay, ?timeout, "stopping: readiness is off; a second signal ends at once");
        let orderly = async {
            tokio::time::sleep(delay).await;
            // The health watches end when readiness ends; otherwise they would hold their connections open.
            drop(self.stopping);
            trigger.drain(timeout).await
        };
        tokio::select! {
            left = orderly => match left {
                0 => info!("stopped"),
                left => warn!(connections = left, "stopped; the shutdown timeout ended the remaining work"),
            },
            () = signals.stop() => warn!("stopped at once by a second signal"),
        }
        Ok(())
    }
}
