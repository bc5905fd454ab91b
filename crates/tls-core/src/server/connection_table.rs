//! The connections of one endpoint, and the choice of which to close when there is no capacity left for new ones.
//!
//! While there is capacity, no connection is closed. Under pressure, connections are closed in this order: handshakes
//! in progress, then connections without any admitted request, then idle ones. Within each group, those of the address
//! with the most connections are closed first, then those that have been idle the longest. A connection with an
//! admitted request in progress is never closed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use tokio_util::sync::CancellationToken;

use super::idle::{Activity, uptime};
use crate::conn_info::Standing;

/// How long a connection must be inactive before it can be closed. Longer than a round trip around the world.
const GRACE: Duration = Duration::from_millis(500);

/// The same for a connection with requests in progress, none of which has ever been admitted.
const GRACE_NOT_ADMITTED: Duration = Duration::from_secs(1);

/// Minimum time between two selections; each selects enough connections to last until the next.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The connections of one endpoint, across all its sockets. Clones share the table.
#[derive(Debug, Clone, Default)]
pub struct ConnectionTable(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: Mutex<HashMap<u64, Arc<Entry>>>,
    next: AtomicU64,
    handshakes: AtomicUsize,
    chosen: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Entry {
    opened: Duration,
    address: OnceLock<IpAddr>,
    peer: IpAddr,
    handshaking: AtomicBool,
    activity: Activity,
    standing: Standing,
    /// Cancelled when the connection must make room for others.
    leave: CancellationToken,
}

/// A connection's entry in the table; dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct Lease {
    id: u64,
    entry: Arc<Entry>,
    table: ConnectionTable,
}

/// The order in which connections are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Handshake,
    NeverAdmitted,
    /// Requests are in progress, but none was ever admitted.
    BusyNeverAdmitted,
    Idle,
}

impl Rank {
    fn label(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::NeverAdmitted | Self::BusyNeverAdmitted => "never_admitted",
            Self::Idle => "idle",
        }
    }
}

impl ConnectionTable {
    /// Adds a connection from `peer` that begins its handshake.
    pub(crate) fn add(&self, peer: IpAddr, activity: Activity) -> Lease {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry {
            opened: uptime(),
            address: OnceLock::new(),
            peer,
            handshaking: AtomicBool::new(true),
            activity,
            standing: Standing::default(),
            leave: CancellationToken::new(),
        });
        self.0.handshakes.fetch_add(1, Ordering::Relaxed);
        self.entries().insert(id, entry.clone());
        Lease { id, entry, table: self.clone() }
    }

    /// Returns the number of connections, including handshakes in progress.
    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Returns the number of handshakes in progress.
    pub(crate) fn handshakes(&self) -> usize {
        self.0.handshakes.load(Ordering::Relaxed)
    }

    /// Closes up to `count` connections, or only handshakes, including those that are already closing. Does nothing if
    /// it was called less than [`POLL_INTERVAL`] ago.
    pub(crate) fn relieve(&self, endpoint: &'static str, count: usize, only_handshakes: bool) {
        {
            let mut chosen = self.0.chosen.lock().unwrap_or_else(PoisonError::into_inner);
            if chosen.is_some_and(|at| at.elapsed() < POLL_INTERVAL) {
                return;
            }
            *chosen = Some(Instant::now());
        }
        for (rank, entry) in self.choose(uptime(), count, only_handshakes) {
            entry.leave.cancel();
            counter!("spiced_connections_shed_total", "endpoint" => endpoint, "state" => rank.label()).increment(1);
        }
    }

    fn choose(&self, now: Duration, count: usize, only_handshakes: bool) -> Vec<(Rank, Arc<Entry>)> {
        let mut addresses: HashMap<IpAddr, usize> = HashMap::new();
        let (mut found, mut leaving) = (Vec::new(), 0);
        for entry in self.entries().values() {
            *addresses.entry(entry.address()).or_default() += 1;
            leaving += usize::from(entry.leave.is_cancelled());
            if let Some((rank, since)) = entry.rank(now)
                && (rank == Rank::Handshake || !only_handshakes)
            {
                found.push((rank, since, entry.clone()));
            }
        }
        let count = count.saturating_sub(leaving);
        // The address with the most connections first, then the longest idle time.
        let key = |(rank, since, entry): &(Rank, Duration, Arc<Entry>)| {
            (*rank, std::cmp::Reverse(addresses.get(&entry.address()).copied().unwrap_or(0)), *since)
        };
        if found.len() > count && count > 0 {
            found.select_nth_unstable_by_key(count - 1, key);
        }
        found.truncate(count);
        found.into_iter().map(|(rank, _, entry)| (rank, entry)).collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        // No code that holds the lock can panic.
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Returns the client's address; an IPv6 /64 network counts as one.
    fn address(&self) -> IpAddr {
        match self.address.get().unwrap_or(&self.peer).to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        }
    }

    /// Returns the rank and the start of inactivity if the connection may be closed.
    fn rank(&self, now: Duration) -> Option<(Rank, Duration)> {
        if self.leave.is_cancelled() {
            return None;
        }
        let (rank, since, grace) = if self.handshaking.load(Ordering::Relaxed) {
            (Rank::Handshake, self.opened, GRACE)
        } else if self.activity.is_busy() {
            match self.standing.is_refused() {
                true => (Rank::BusyNeverAdmitted, self.opened, GRACE_NOT_ADMITTED),
                false => return None,
            }
        } else if self.standing.is_admitted() {
            (Rank::Idle, self.activity.idle_since(), GRACE)
        } else {
            (Rank::NeverAdmitted, self.activity.idle_since(), GRACE)
        };
        (now.saturating_sub(since) >= grace).then_some((rank, since))
    }
}

impl Lease {
    /// Ends the handshake. `address` is the client's, if a proxy named it.
    pub(crate) fn established(&self, address: Option<IpAddr>) {
        if let Some(address) = address {
            let _ = self.entry.address.set(address);
        }
        self.entry.activity.touch();
        self.end_handshake();
    }

    /// Returns whether requests of this connection were admitted.
    pub(crate) fn standing(&self) -> Standing {
        self.entry.standing.clone()
    }

    /// Waits until the connection must make room for others.
    pub(crate) async fn leave(&self) {
        self.entry.leave.cancelled().await;
    }

    /// Returns true once the connection must make room for others.
    pub(crate) fn is_leaving(&self) -> bool {
        self.entry.leave.is_cancelled()
    }

    fn end_handshake(&self) {
        if self.entry.handshaking.swap(false, Ordering::Relaxed) {
            self.table.0.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end_handshake();
        self.table.entries().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(60);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Creates a connection in the named state.
    fn connection(
        table: &ConnectionTable,
        from: &str,
        state: &str,
    ) -> (Lease, Option<crate::server::idle::RequestGuard>) {
        let activity = Activity::default();
        let lease = table.add(address(from), activity.clone());
        if state != "handshake" {
            lease.established(None);
        }
        match state {
            "admitted" | "admitted busy" => lease.standing().admit(),
            "refused" | "refused busy" => lease.standing().refuse(),
            _ => {}
        }
        let turn = state.ends_with("busy").then(|| activity.begin());
        (lease, turn)
    }

    #[test]
    fn who_goes_first() {
        let table = ConnectionTable::default();
        let states = ["admitted busy", "unknown busy", "admitted", "refused busy", "refused", "handshake"];
        let held: Vec<_> = states.iter().map(|state| (state, connection(&table, "192.0.2.1", state))).collect();
        let leaving = || -> Vec<&str> {
            held.iter().filter(|(_, (lease, _))| lease.is_leaving()).map(|(state, _)| **state).collect()
        };
        assert!(table.choose(uptime(), 9, false).is_empty(), "nobody leaves before the grace period is over");
        for (count, expected) in (1..).zip([
            vec!["handshake"],
            vec!["refused", "handshake"],
            vec!["refused busy", "refused", "handshake"],
            vec!["admitted", "refused busy", "refused", "handshake"],
            // Connections with requests in progress that were not refused stay, whatever the pressure.
            vec!["admitted", "refused busy", "refused", "handshake"],
        ]) {
            for (_, entry) in table.choose(uptime() + LATER, count, false) {
                entry.leave.cancel();
            }
            assert_eq!(leaving(), expected);
        }
        drop(held);
        assert!(table.entries().is_empty() && table.handshakes() == 0);
    }

    #[test]
    fn the_address_with_the_most_connections_gives_them_up_first() {
        let table = ConnectionTable::default();
        let few: Vec<_> = (0..3).map(|_| connection(&table, "192.0.2.1", "admitted")).collect();
        let many: Vec<_> = (0..20).map(|_| connection(&table, "192.0.2.2", "admitted")).collect();
        let networks: Vec<_> = (0..10).map(|n| connection(&table, &format!("2001:db8::{n}"), "admitted")).collect();
        let chosen = table.choose(uptime() + LATER, 25, false);
        let of = |text: &str| chosen.iter().filter(|(_, entry)| entry.address() == address(text)).count();
        assert_eq!((of("192.0.2.2"), of("2001:db8::"), of("192.0.2.1")), (20, 5, 0));
        drop((few, many, networks));
    }

    #[test]
    fn a_proxied_connection_counts_for_the_client() {
        let table = ConnectionTable::default();
        let lease = table.add(address("10.0.0.1"), Activity::default());
        lease.established(Some(address("203.0.113.7")));
        assert_eq!(lease.entry.address(), address("203.0.113.7"));
    }

    #[test]
    fn handshakes_alone_make_room_for_handshakes() {
        let table = ConnectionTable::default();
        let _idle = connection(&table, "192.0.2.1", "unknown");
        let _handshakes: Vec<_> = (0..4).map(|_| connection(&table, "192.0.2.1", "handshake")).collect();
        assert_eq!(table.handshakes(), 4);
        let chosen = table.choose(uptime() + LATER, 9, true);
        assert_eq!(chosen.iter().filter(|(rank, _)| *rank == Rank::Handshake).count(), 4);
        assert_eq!(chosen.len(), 4);
    }
}
