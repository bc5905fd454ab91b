//! The limits of an endpoint, and how connections make room for others when a limit is near.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection_table::{ConnectionTable, POLL_INTERVAL};
use super::request_memory::RequestMemory;

/// Capacity reserved for new connections: one in `RESERVE`, at most `MAX_RESERVE`.
const RESERVE: usize = 16;
const MAX_RESERVE: usize = 64;

/// The limits of an endpoint. Clones share the count of connections, so that all sockets of an endpoint are counted
/// together, and the count of the memory that requests hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Concurrent connections. When few are left, inactive connections make room; further ones wait in the kernel's
    /// queue. Default 10,000.
    pub connections: Arc<Semaphore>,
    /// The open connections; one table for all sockets of an endpoint.
    pub table: ConnectionTable,
    /// Further connections for an endpoint that has reached its own limit, shared by all endpoints with these limits.
    /// Default 0.
    pub spare: Arc<Semaphore>,
    /// Handshakes in progress, for each endpoint. Beyond it, the longest-running ones are closed before their deadline,
    /// starting with the address that has the most. Default 1,024.
    pub handshakes: usize,
    /// Memory limits for request bodies, across all endpoints that share these limits.
    pub memory: RequestMemory,
    /// Time from the accept to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Time for the first request of a connection, and for the head of each further HTTP/1 request; checked once a
    /// second. Default 60 s.
    pub header_timeout: Duration,
    /// HTTP/1 only: a connection that is idle for one or two of these intervals releases its buffers until the next
    /// request. Default 1 s.
    pub rest: Duration,
    /// Concurrent requests on one HTTP/2 connection. Default 256.
    pub streams: u32,
    /// Size of a request head, in bytes. Default 64 KiB.
    pub header_bytes: u32,
    /// HTTP/2 only: how long a connection may be silent before it is pinged; it is closed after twice that time without
    /// an answer. Default 30 s.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(10_000)),
            table: ConnectionTable::default(),
            spare: Arc::new(Semaphore::new(0)),
            handshakes: 1_024,
            memory: RequestMemory::default(),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            rest: Duration::from_secs(1),
            streams: 256,
            header_bytes: 64 * 1024,
            keep_alive: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Waits for capacity for one more connection. When little is left, inactive connections make room.
    pub(super) async fn place(&self, endpoint: &'static str) -> OwnedSemaphorePermit {
        let place = async {
            let place = tokio::select! {
                biased;
                own = self.connections.clone().acquire_owned() => own,
                spare = self.spare.clone().acquire_owned() => spare,
            };
            place.expect("the semaphores are never closed")
        };
        let mut place = pin!(place);
        loop {
            if let Ok(place) = timeout(self.relieve(endpoint), place.as_mut()).await {
                return place;
            }
        }
    }

    /// Returns capacity for one more connection, if there is any.
    pub(super) fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        let own = self.connections.clone().try_acquire_owned();
        own.or_else(|_| self.spare.clone().try_acquire_owned()).ok()
    }

    /// Makes connections leave if capacity is low or there are too many handshakes. Returns when to check again.
    fn relieve(&self, endpoint: &'static str) -> Duration {
        let free = self.connections.available_permits() + self.spare.available_permits();
        let reserve = (self.table.len() / RESERVE).clamp(1, MAX_RESERVE);
        if free < reserve {
            self.table.relieve(endpoint, reserve - free, false);
        } else if self.table.handshakes() >= self.handshakes {
            self.table.relieve(endpoint, self.table.handshakes() - self.handshakes / 8 * 7, true);
        }
        POLL_INTERVAL
    }
}
