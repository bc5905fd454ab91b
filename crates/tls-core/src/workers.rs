//! The threads that connections live on: one single-threaded runtime each, so that a connection
//! never moves between cores and no query can hold it up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Where connections run. Cheap to clone; dropping the last one ends the threads, and with them
/// whatever connection is left.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    handles: Vec<Handle>,
    next: AtomicUsize,
    // Dropping a sender ends its thread's `block_on`.
    _ends: Vec<oneshot::Sender<()>>,
}

impl Workers {
    /// Starts `threads` threads (at least one), each with a runtime of its own.
    ///
    /// # Errors
    /// The system gives no more threads or descriptors.
    pub fn start(threads: usize) -> io::Result<Self> {
        let mut handles = Vec::new();
        let mut ends = Vec::new();
        for index in 0..threads.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (end, ended) = oneshot::channel::<()>();
            handles.push(runtime.handle().clone());
            ends.push(end);
            std::thread::Builder::new().name(format!("connections-{index}")).spawn(move || {
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
        }
        Ok(Self(Arc::new(Pool { handles, next: AtomicUsize::new(0), _ends: ends })))
    }

    /// Connections run on the runtime that this is called from: for embedders and tests.
    ///
    /// # Panics
    /// Where it is called outside a tokio runtime.
    pub fn current() -> Self {
        Self(Arc::new(Pool { handles: vec![Handle::current()], next: AtomicUsize::new(0), _ends: Vec::new() }))
    }

    /// The runtime for the next connection, in turn.
    pub(crate) fn next(&self) -> &Handle {
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed);
        &self.0.handles[turn % self.0.handles.len()]
    }
}
