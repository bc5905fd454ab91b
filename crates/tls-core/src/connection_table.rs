//! The connections of one endpoint, and which of them makes room when there is no place left for a newcomer.
//!
//! While there is room, nobody is ended. Under pressure these go first: handshakes in progress, then connections that
//! no request has ever been admitted on, then idle ones. Among equals, those of the address that has the most go first,
//! then those that have been idle the longest. A connection with an admitted request in progress always stays.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use tokio_util::sync::CancellationToken;

use crate::conn_info::Standing;
use crate::idle::{Activity, uptime};

/// How long a connection may do nothing before it can be made to leave. A round trip around the world is shorter.
const GRACE: Duration = Duration::from_millis(500);

/// The same for a connection whose requests are in progress, but none of which has ever been admitted.
const GRACE_NOT_ADMITTED: Duration = Duration::from_secs(1);

/// Connections are chosen at most this often, and then so many at once that it need not be more often.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The connections of one endpoint, over all its sockets. Clones share them.
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
    /// Cancelled where the connection is to make room for others.
    leave: CancellationToken,
}

/// One connection in the table, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    id: u64,
    entry: Arc<Entry>,
    table: ConnectionTable,
}

/// Which connections go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Handshake,
    NeverAdmitted,
    /// Requests are in progress, but no request was ever admitted.
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
    /// Adds a connection from `peer`, whose handshake begins.
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

    /// Connections, handshakes in progress among them.
    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Handshakes in progress.
    pub(crate) fn handshakes(&self) -> usize {
        self.0.handshakes.load(Ordering::Relaxed)
    }

    /// Has up to `count` connections leave, or handshakes alone, counting those that are about to. Does nothing where it
    /// was called just before.
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
        // The heaviest address first, then whoever has been idle the longest.
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
        // Nothing that can panic is done with the lock.
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The client's address, an IPv6 network as one.
    fn address(&self) -> IpAddr {
        match self.address.get().unwrap_or(&self.peer).to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        }
    }

    /// Whether the connection may be made to leave: how early, and since when it has done nothing.
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
    /// The handshake has ended; a proxy said that the client is `address`, where it did.
    pub(crate) fn established(&self, address: Option<IpAddr>) {
        if let Some(address) = address {
            let _ = self.entry.address.set(address);
        }
        self.entry.activity.touch();
        self.end_handshake();
    }

    /// Whether requests of this connection were admitted.
    pub(crate) fn standing(&self) -> Standing {
        self.entry.standing.clone()
    }

    /// Waits until the connection is to make room for others.
    pub(crate) async fn leave(&self) {
        self.entry.leave.cancelled().await;
    }

    /// True once the connection is to make room for others.
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

    /// A connection in the state that is given by name.
    fn connection(table: &ConnectionTable, from: &str, state: &str) -> (Lease, Option<crate::idle::RequestGuard>) {
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
            // Requests in progress stay, however great the pressure.
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
