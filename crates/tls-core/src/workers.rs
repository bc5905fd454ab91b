//! The threads that connections live on: one single-threaded runtime each, so that a connection
//! never moves between cores and no query can hold it up.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Each thread wakes so often. A timer that is set for before every other one wakes its thread's driver, by a system call, even
/// where it is that thread which sets it; all that a connection waits for at most is later than this.
const TICK: Duration = Duration::from_secs(1);

/// How long the threads may take to end, and how often they are looked at.
const LAST_WAIT: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Where connections run. Cheap to clone; dropping the last one ends the threads, and with them
/// whatever connection is left.
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
    /// Shared by each of its connections.
    held: Arc<()>,
}

impl Worker {
    fn new(runtime: Handle) -> Self {
        Self { runtime, held: Arc::new(()) }
    }
}

/// A connection's place on a worker, until it is dropped.
#[derive(Debug)]
pub(crate) struct WorkerLease(#[expect(dead_code, reason = "its clones are counted")] Arc<()>);

#[derive(Debug)]
struct Thread {
    // Dropping it ends the thread's `block_on`.
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Drop for Pool {
    /// Waits for the threads: one that is still closing a connection when the process ends would use what is being torn
    /// down.
    fn drop(&mut self) {
        let (ends, threads): (Vec<_>, Vec<_>) = self.threads.drain(..).map(|t| (t.end, t.thread)).unzip();
        drop(ends);
        let here = std::thread::current().id();
        let end = Instant::now() + LAST_WAIT;
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != here) {
            // A join has no bound of its own.
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }
}

impl Workers {
    /// Starts `threads` threads (at least one), each with a runtime of its own.
    ///
    /// # Errors
    /// The system gives no more threads or descriptors.
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

    /// Connections run on the runtime that this is called from: for embedders and tests.
    ///
    /// # Panics
    /// Where it is called outside a tokio runtime.
    pub fn current() -> Self {
        Self(Arc::new(Pool { workers: vec![Worker::new(Handle::current())], threads: Vec::new() }))
    }

    /// A place for one more connection: on the worker that has the fewest.
    pub(crate) fn place(&self) -> (&Handle, WorkerLease) {
        let fewest = self.0.workers.iter().min_by_key(|worker| Arc::strong_count(&worker.held));
        let worker = fewest.expect("there is one at least");
        (&worker.runtime, WorkerLease(worker.held.clone()))
    }
}
