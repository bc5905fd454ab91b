//! The clock that ends queries. It has a thread of its own: the timer of a runtime stands still
//! while all of its threads compute, and queries compute.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A runtime that does nothing but wait. Dropping it ends its thread.
#[derive(Debug)]
pub(crate) struct Clock {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl Clock {
    /// # Errors
    /// The system gives no more threads.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("query-clock".to_owned()).spawn(move || {
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _end: end })
    }

    /// Where to wait.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}
