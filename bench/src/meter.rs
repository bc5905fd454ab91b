//! What a server and the load cost from one moment to another.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::process::{Process, cpu_of};

/// After the last answer the server still closes connections and counts what it did.
const SETTLE: Duration = Duration::from_millis(30);

/// A running measurement.
pub(crate) struct Meter<'p> {
    process: &'p Process,
    server: Duration,
    client: Duration,
    started: Instant,
}

/// A finished one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// How much was done: handshakes, requests, gigabytes.
    pub(crate) units: f64,
    /// CPU time of the server.
    pub(crate) server: Duration,
    /// CPU time of the load, which has one thread.
    pub(crate) client: Duration,
    /// Time on the clock.
    pub(crate) wall: Duration,
}

impl<'p> Meter<'p> {
    /// Starts to measure `process`.
    pub(crate) fn start(process: &'p Process) -> Outcome<Self> {
        Ok(Self { process, server: process.cpu()?, client: own_cpu()?, started: Instant::now() })
    }

    /// Ends when `units` have been done.
    pub(crate) async fn stop(self, units: f64) -> Outcome<Sample> {
        let wall = self.started.elapsed();
        let client = own_cpu()? - self.client;
        tokio::time::sleep(SETTLE).await;
        let server = self.process.cpu()? - self.server;
        Ok(Sample { units, server, client, wall })
    }
}

impl Sample {
    /// CPU seconds of the server for one unit.
    pub(crate) fn cost(&self) -> f64 {
        self.server.as_secs_f64() / self.units
    }

    /// Units in a second on the clock.
    pub(crate) fn rate(&self) -> f64 {
        self.units / self.wall.as_secs_f64()
    }

    /// The share of the time in which the load's one thread computed.
    pub(crate) fn client_share(&self) -> f64 {
        self.client.as_secs_f64() / self.wall.as_secs_f64()
    }
}

pub(crate) fn own_cpu() -> Outcome<Duration> {
    cpu_of(std::process::id())
}
