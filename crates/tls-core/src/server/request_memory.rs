//! Limits the memory that request bodies hold, for each connection, each caller and the whole process.
//!
//! A request is charged for the bytes it has sent until its response begins; a gRPC request, for the current message
//! only. On a connection that reaches its limit, one request at a time continues and the others wait (HTTP/2 flow
//! control holds the client back). If a caller or the process reaches its limit, further bodies are refused.
//!
//! Data that HTTP/2 buffers between the socket and the handlers is counted separately: DATA that no handler has read
//! yet, and frames of responses that the client does not read. When all connections together reach the limit for
//! either, connections that hold more than a little wait until their own bytes move.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::Waker;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::drain::Drain;

/// The part of each body that its connection does not limit, and that may use the reserve of the process.
const SMALL: usize = 64 << 10;

/// The fraction of the process limit that is reserved for small bodies: an eighth.
const RESERVE: usize = 8;

/// A connection may always receive while it holds no more unread DATA than this.
const UNREAD: usize = 32 << 10;

/// A connection may always send while it holds no more unsent frames than this.
const UNSENT: usize = 1 << 20;

/// The maximum of unread DATA on a connection: its HTTP/2 window.
pub(crate) const CONNECTION_WINDOW: u32 = 4 << 20;

/// Maximum number of callers with separate limits; see [`RequestMemory::caller`].
const MAX_CALLERS: usize = 4096;

/// The memory held by request bodies. Clones share the count.
#[derive(Debug, Clone)]
pub struct RequestMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    process: Pool,
    /// DATA that no handler has read.
    unread: Pool,
    /// Response frames that have not been sent.
    unsent: Pool,
    connection: usize,
    callers: Mutex<HashMap<String, Weak<Pool>>>,
}

#[derive(Debug)]
struct Pool {
    used: AtomicUsize,
    limit: usize,
}

impl Pool {
    fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }
}

impl Default for RequestMemory {
    /// Limits the process to 512 MiB, one caller to half of that, and one connection to 64 MiB.
    fn default() -> Self {
        Self::new(512 << 20, 64 << 20)
    }
}

impl RequestMemory {
    /// Limits the memory of all request bodies to `process`, of one caller to half of that, and of one connection to
    /// `connection` (one request at a time may exceed the latter). Unread HTTP/2 DATA may take another half of
    /// `process`; unsent frames as much as bodies, in total and for each connection.
    pub fn new(process: usize, connection: usize) -> Self {
        Self(Arc::new(Shared {
            process: Pool::new(process),
            unread: Pool::new(process / 2),
            unsent: Pool::new(process),
            connection,
            callers: Mutex::default(),
        }))
    }

    /// Returns the number of bytes held.
    pub fn used(&self) -> usize {
        self.0.process.used.load(Ordering::Relaxed)
    }

    /// Returns the number of HTTP/2 DATA bytes that no request has read.
    pub fn unread(&self) -> usize {
        self.0.unread.used.load(Ordering::Relaxed)
    }

    pub(crate) fn connection(&self, drain: Drain) -> Arc<ConnectionMemory> {
        Arc::new(ConnectionMemory {
            memory: self.clone(),
            used: AtomicUsize::new(0),
            overdraft: Arc::new(Semaphore::new(1)),
            drain,
            unread: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            waits: Mutex::default(),
            unsent: AtomicUsize::new(0),
        })
    }

    /// Returns the pool of a caller. If there are too many callers, further ones share one pool.
    fn caller(&self, name: &str) -> Arc<Pool> {
        let mut callers = self.0.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = callers.get(name).and_then(Weak::upgrade) {
            return pool;
        }
        if callers.len() >= MAX_CALLERS {
            callers.retain(|_, pool| pool.strong_count() > 0);
        }
        let name = if callers.len() >= MAX_CALLERS { "" } else { name };
        if let Some(pool) = callers.get(name).and_then(Weak::upgrade) {
            return pool;
        }
        let pool = Arc::new(Pool::new(self.0.process.limit / 2));
        callers.insert(name.to_owned(), Arc::downgrade(&pool));
        pool
    }
}

/// The memory that the requests of one connection hold.
#[derive(Debug)]
pub(crate) struct ConnectionMemory {
    memory: RequestMemory,
    used: AtomicUsize,
    /// Held by the one request that may exceed the connection's limit.
    overdraft: Arc<Semaphore>,
    pub(crate) drain: Drain,
    /// DATA that arrived and that no handler has read.
    unread: AtomicUsize,
    /// Total bytes that handlers have read; wraps.
    read: AtomicUsize,
    /// Request bodies that may have unread data.
    bodies: AtomicUsize,
    /// Wakes the connection's task while it waits for a handler to read.
    waits: Mutex<Option<Waker>>,
    /// Response frames that have not been sent.
    unsent: AtomicUsize,
}

impl ConnectionMemory {
    /// Counts received DATA of `count` bytes.
    pub(crate) fn received(&self, count: usize) {
        // A client cannot send beyond its window. Padding, and data for a request that is over, are never read.
        let room = (CONNECTION_WINDOW as usize).saturating_sub(self.unread.load(Ordering::Relaxed));
        let count = count.min(room);
        self.unread.fetch_add(count, Ordering::Relaxed);
        self.memory.0.unread.used.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts data that a handler has read.
    pub(crate) fn read(&self, count: usize) {
        self.read.fetch_add(count, Ordering::Relaxed);
        self.forget(count);
    }

    fn forget(&self, count: usize) {
        let less = |unread: usize| Some(unread.saturating_sub(count));
        let before = self.unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or_default();
        self.memory.0.unread.used.fetch_sub(before.min(count), Ordering::Relaxed);
        if before.saturating_sub(count) <= UNREAD
            && let Some(waker) = self.waits().take()
        {
            waker.wake();
        }
    }

    /// Returns whether more may be read from the socket. If not, `waker` is called once the handlers have read enough.
    pub(crate) fn may_receive(&self, waker: &Waker) -> bool {
        let may = || {
            self.unread.load(Ordering::Relaxed) <= UNREAD
                || self.memory.0.unread.used.load(Ordering::Relaxed) < self.memory.0.unread.limit
        };
        if may() {
            return true;
        }
        *self.waits() = Some(waker.clone());
        may()
    }

    /// Returns how much handlers have read so far; only useful to detect progress.
    pub(crate) fn has_read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    /// Returns whether a response may yield another frame.
    pub(crate) fn may_send(&self) -> bool {
        let (own, all) = (self.unsent.load(Ordering::Relaxed), &self.memory.0.unsent);
        own < self.memory.0.connection && (own < UNSENT || all.used.load(Ordering::Relaxed) < all.limit)
    }

    fn waits(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the charge of one request.
    pub(crate) fn charge(self: &Arc<Self>) -> RequestCharge {
        RequestCharge(Arc::new(Charge {
            connection: self.clone(),
            caller: OnceLock::new(),
            pool: OnceLock::new(),
            used: AtomicUsize::new(0),
            pooled: AtomicUsize::new(0),
            is_unary: AtomicBool::new(false),
            overdraft: Mutex::default(),
        }))
    }
}

impl Drop for ConnectionMemory {
    fn drop(&mut self) {
        self.forget(usize::MAX);
    }
}

/// A request body that may have unread data. When the last one is dropped, HTTP/2 discards the rest.
#[derive(Debug)]
pub(crate) struct Unread(Arc<ConnectionMemory>);

impl Unread {
    pub(crate) fn new(connection: &Arc<ConnectionMemory>) -> Self {
        connection.bodies.fetch_add(1, Ordering::Relaxed);
        Self(connection.clone())
    }

    /// Counts `count` bytes of the body as read.
    pub(crate) fn read(&self, count: usize) {
        self.0.read(count);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if self.0.bodies.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.forget(usize::MAX);
        }
    }
}

/// A response frame, until it is sent or discarded.
#[derive(Debug)]
pub(crate) struct Unsent {
    connection: Arc<ConnectionMemory>,
    count: usize,
}

impl Unsent {
    pub(crate) fn new(connection: &Arc<ConnectionMemory>, count: usize) -> Self {
        connection.unsent.fetch_add(count, Ordering::Relaxed);
        connection.memory.0.unsent.used.fetch_add(count, Ordering::Relaxed);
        Self { connection: connection.clone(), count }
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.connection.unsent.fetch_sub(self.count, Ordering::Relaxed);
        self.connection.memory.0.unsent.used.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// The memory that one request holds, until the last clone is dropped; in the extensions of a request that has a body.
#[derive(Debug, Clone)]
pub struct RequestCharge(Arc<Charge>);

#[derive(Debug)]
struct Charge {
    connection: Arc<ConnectionMemory>,
    caller: OnceLock<Box<str>>,
    pool: OnceLock<Arc<Pool>>,
    used: AtomicUsize,
    /// How much of `used` is charged to the caller's pool.
    pooled: AtomicUsize,
    /// The request is one message, after which it must end.
    is_unary: AtomicBool,
    overdraft: Mutex<Option<OwnedSemaphorePermit>>,
}

impl RequestCharge {
    /// Sets the caller of the request, before the body is read.
    pub fn on_behalf_of(&self, caller: &str) {
        let _ = self.0.caller.set(caller.into());
    }

    /// Declares that the request is one gRPC message, so that the end of the request has a deadline too.
    pub fn expect_one_message(&self) {
        self.0.is_unary.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_unary(&self) -> bool {
        self.0.is_unary.load(Ordering::Relaxed)
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.0.connection.drain
    }

    /// Returns the semaphore to acquire before more is read, or `None` if there is room.
    pub(crate) fn wait_for(&self) -> Option<Arc<Semaphore>> {
        let connection = &self.0.connection;
        let is_full = self.0.used.load(Ordering::Relaxed) > SMALL
            && connection.used.load(Ordering::Relaxed) >= connection.memory.0.connection;
        (is_full && self.overdraft().is_none()).then(|| connection.overdraft.clone())
    }

    /// Stores the permit to exceed the connection's limit.
    pub(crate) fn overdraw(&self, permit: OwnedSemaphorePermit) {
        *self.overdraft() = Some(permit);
    }

    /// Charges `count` more bytes. Returns false if they exceed a limit and must be dropped.
    pub(crate) fn add(&self, count: usize) -> bool {
        let charge = &*self.0;
        let used = charge.used.fetch_add(count, Ordering::Relaxed) + count;
        charge.connection.used.fetch_add(count, Ordering::Relaxed);
        let process = &charge.connection.memory.0.process;
        let all = process.used.fetch_add(count, Ordering::Relaxed) + count;
        if used <= SMALL {
            return all <= process.limit;
        }
        // From here on the caller's pool is charged, including the bytes so far.
        let pool = charge.pool.get_or_init(|| self.pool());
        let count = used - charge.pooled.swap(used, Ordering::Relaxed);
        let callers = pool.used.fetch_add(count, Ordering::Relaxed) + count;
        callers <= pool.limit && all <= process.limit - process.limit / RESERVE
    }

    /// Releases the whole charge, once the data read so far is no longer held.
    pub(crate) fn release(&self) {
        self.0.release();
    }

    fn pool(&self) -> Arc<Pool> {
        self.0.connection.memory.caller(self.0.caller.get().map_or("", |caller| caller))
    }

    fn overdraft(&self) -> std::sync::MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        // No code that holds the lock can panic.
        self.0.overdraft.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charge {
    fn release(&self) {
        let used = self.used.swap(0, Ordering::Relaxed);
        if used > 0 {
            self.connection.used.fetch_sub(used, Ordering::Relaxed);
            self.connection.memory.0.process.used.fetch_sub(used, Ordering::Relaxed);
            if let Some(pool) = self.pool.get() {
                pool.used.fetch_sub(self.pooled.swap(0, Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        *self.overdraft.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn connection(memory: &RequestMemory) -> Arc<ConnectionMemory> {
        memory.connection(crate::server::drain::channel().1)
    }

    #[test]
    fn everything_is_given_back() {
        let memory = RequestMemory::new(64 * MIB, 8 * MIB);
        let connection = connection(&memory);
        for sizes in [&[100][..], &[SMALL, 1], &[SMALL - 1, 2, 3 * MIB], &[MIB, MIB]] {
            let charge = connection.charge();
            charge.on_behalf_of("somebody");
            assert!(sizes.iter().all(|size| charge.add(*size)));
            assert_eq!(memory.used(), sizes.iter().sum::<usize>());
            charge.release();
            assert_eq!(memory.used(), 0);
            // The next message of the same request.
            assert!(sizes.iter().all(|size| charge.add(*size)));
            drop(charge);
            assert_eq!((memory.used(), connection.used.load(Ordering::Relaxed)), (0, 0));
            assert_eq!(memory.caller("somebody").used.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_caller_has_half_and_small_bodies_have_a_reserve() {
        let memory = RequestMemory::new(64 * MIB, 64 * MIB);
        let charge = |name: &str| {
            let charge = connection(&memory).charge();
            charge.on_behalf_of(name);
            charge
        };
        let (one, two, three) = (charge("one"), charge("one"), charge("other"));
        assert!(one.add(20 * MIB) && two.add(12 * MIB));
        assert!(!two.add(1), "the caller has its half, on whatever connection");
        assert!(three.add(20 * MIB), "others have theirs");
        assert!(!three.add(5 * MIB), "an eighth is for small bodies");
        three.release();
        assert!(three.add(24 * MIB - 2));
        let small = charge("one");
        assert!(small.add(SMALL));
        assert!(!small.add(1));
    }

    #[test]
    fn one_request_at_a_time_exceeds_the_share_of_a_connection() {
        let memory = RequestMemory::new(64 * MIB, 2 * MIB);
        let connection = connection(&memory);
        let (one, two, small) = (connection.charge(), connection.charge(), connection.charge());
        assert!(one.add(MIB) && two.add(MIB) && small.add(SMALL));
        assert!(small.wait_for().is_none());
        one.overdraw(one.wait_for().unwrap().try_acquire_owned().unwrap());
        assert!(one.wait_for().is_none() && one.add(MIB));
        assert!(two.wait_for().unwrap().try_acquire_owned().is_err());
        drop(one);
        assert!(two.wait_for().is_none(), "there is room again");
    }

    #[test]
    fn what_is_unread_is_bounded_over_all_connections() {
        let memory = RequestMemory::new(16 * MIB, MIB);
        let waker = Waker::noop();
        let (one, two, three) = (connection(&memory), connection(&memory), connection(&memory));
        let unread = |connection: &ConnectionMemory| connection.unread.load(Ordering::Relaxed);
        let bodies: Vec<_> = [&one, &two, &three].map(Unread::new).into();
        one.received(3 * MIB);
        two.received(3 * MIB);
        assert!(one.may_receive(waker) && two.may_receive(waker));
        two.received(3 * MIB);
        assert_eq!(unread(&two), CONNECTION_WINDOW as usize, "no more than its window can be on its way");
        three.received(MIB);
        assert!(!one.may_receive(waker) && !two.may_receive(waker) && !three.may_receive(waker));
        bodies[2].read(MIB - UNREAD);
        assert!(three.may_receive(waker), "who holds little goes on");
        bodies[0].read(2 * MIB);
        assert!(two.may_receive(waker), "there is room again");
        // Dropping the last body of a connection releases the rest.
        let another = Unread::new(&one);
        drop(bodies);
        assert_eq!((unread(&one), unread(&two), unread(&three)), (MIB, 0, 0));
        drop((another, one, two));
        three.received(7);
        drop(three);
        assert_eq!(memory.0.unread.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_unsent_is_bounded() {
        let memory = RequestMemory::new(8 * MIB, 4 * MIB);
        let (one, two, three) = (connection(&memory), connection(&memory), connection(&memory));
        let held = Unsent::new(&one, 4 * MIB);
        assert!(!one.may_send() && two.may_send());
        let more = [Unsent::new(&two, 3 * MIB), Unsent::new(&three, MIB / 2), Unsent::new(&one, MIB / 2)];
        assert!(!two.may_send(), "all together hold what they may");
        assert!(three.may_send(), "who holds little goes on");
        drop(held);
        assert!(one.may_send() && two.may_send());
        drop(more);
        assert_eq!(memory.0.unsent.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn callers_are_bounded() {
        let memory = RequestMemory::new(64 * MIB, 2 * MIB);
        let held: Vec<_> = (0..2 * MAX_CALLERS).map(|n| memory.caller(&n.to_string())).collect();
        assert!(memory.0.callers.lock().unwrap().len() <= MAX_CALLERS + 1);
        drop(held);
    }
}
