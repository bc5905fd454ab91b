//! The threads that run connections: each has a single-threaded runtime, so that a connection never moves between cores
//! and no query can delay it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Each thread wakes at this interval. A timer earlier than all others wakes the thread's driver with a system call,
/// even if the thread itself sets it; the timeouts of connections are longer than this interval.
const TICK: Duration = Duration::from_secs(1);

/// How long the threads may take to end, and how often they are checked.
const LAST_WAIT: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The threads that connections run on. Cheap to clone; dropping the last clone ends the threads, and with them the
/// remaining connections.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    workers: Vec<Worker>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Each connection of the worker holds a clone.
    held: Arc<()>,
}

impl Worker {
    fn new(runtime: Handle) -> Self {
        Self { runtime, held: Arc::new(()) }
    }
}

/// A connection's share of a worker, until it is dropped.
#[derive(Debug)]
pub(crate) struct WorkerLease(#[expect(dead_code, reason = "its clones are counted")] Arc<()>);

#[derive(Debug)]
struct Thread {
    // Dropping it ends the thread's `block_on`.
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Drop for Pool {
    /// Waits for the threads: a thread that still closes a connection when the process ends would use memory that is
    /// being torn down.
    fn drop(&mut self) {
        let (ends, threads): (Vec<_>, Vec<_>) = self.threads.drain(..).map(|t| (t.end, t.thread)).unzip();
        drop(ends);
        let here = std::thread::current().id();
        let end = Instant::now() + LAST_WAIT;
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != here) {
            // `JoinHandle::join` has no timeout.
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }
}

impl Workers {
    /// Starts `threads` threads (at least one), each with its own runtime.
    ///
    /// # Errors
    /// Fails if the system provides no more threads or descriptors.
    pub fn start(threads: usize) -> io::Result<Self> {
        let mut workers = Vec::new();
        let mut started = Vec::new();
        for index in 0..threads.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (end, ended) = oneshot::channel::<()>();
            workers.push(Worker::new(runtime.handle().clone()));
            let thread = std::thread::Builder::new().name(format!("connections-{index}")).spawn(move || {
                runtime.spawn(async {
                    loop {
                        tokio::time::sleep(TICK).await;
                    }
                });
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
            started.push(Thread { end, thread });
        }
        Ok(Self(Arc::new(Pool { workers, threads: started })))
    }

    /// Runs connections on the current runtime: for embedders and tests.
    ///
    /// # Panics
    /// Panics if called outside a tokio runtime.
    pub fn current() -> Self {
        Self(Arc::new(Pool { workers: vec![Worker::new(Handle::current())], threads: Vec::new() }))
    }

    /// Assigns one more connection to the worker with the fewest.
    pub(crate) fn place(&self) -> (&Handle, WorkerLease) {
        let fewest = self.0.workers.iter().min_by_key(|worker| Arc::strong_count(&worker.held));
        let worker = fewest.expect("there is at least one");
        (&worker.runtime, WorkerLease(worker.held.clone()))
    }
}
