//! Measures the CPU time of a server and of the load.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::process::{Process, cpu_of};

/// The delay before the final reading: after the last response, the server still closes connections and updates
/// counters.
const SETTLE: Duration = Duration::from_millis(30);

/// A running measurement.
pub(crate) struct Meter<'p> {
    process: &'p Process,
    server: Duration,
    client: Duration,
    started: Instant,
}

/// A finished measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// The amount of work: handshakes, requests, gigabytes.
    pub(crate) units: f64,
    /// CPU time of the server.
    pub(crate) server: Duration,
    /// CPU time of the load, which has one thread.
    pub(crate) client: Duration,
    /// Wall-clock time.
    pub(crate) wall: Duration,
}

impl<'p> Meter<'p> {
    /// Starts to measure `process`.
    pub(crate) fn start(process: &'p Process) -> Outcome<Self> {
        Ok(Self { process, server: process.cpu()?, client: own_cpu()?, started: Instant::now() })
    }

    /// Finishes the measurement after `units` of work.
    pub(crate) async fn stop(self, units: f64) -> Outcome<Sample> {
        let wall = self.started.elapsed();
        let client = own_cpu()? - self.client;
        tokio::time::sleep(SETTLE).await;
        let server = self.process.cpu()? - self.server;
        Ok(Sample { units, server, client, wall })
    }
}

impl Sample {
    /// Returns the CPU seconds of the server per unit.
    pub(crate) fn cost(&self) -> f64 {
        self.server.as_secs_f64() / self.units
    }

    /// Returns the units per second of wall time.
    pub(crate) fn rate(&self) -> f64 {
        self.units / self.wall.as_secs_f64()
    }

    /// Returns the CPU utilization of the load's thread.
    pub(crate) fn client_share(&self) -> f64 {
        self.client.as_secs_f64() / self.wall.as_secs_f64()
    }
}

pub(crate) fn own_cpu() -> Outcome<Duration> {
    cpu_of(std::process::id())
}
