//! The runtime for queries.

use std::num::NonZero;

use tokio::runtime::{Builder, Runtime};

/// A query computes on as many threads as there are cores, and some steps of a join take long. With
/// more threads than that the system's scheduler gives other queries their turn.
const THREADS_A_CORE: usize = 4;

/// The stack of each of its threads, in bytes. It is address space until it is used.
///
/// Planning and evaluating recurse with the depth of a statement. What `term_count` lets through was
/// measured to need up to 8 MiB, without optimization.
const STACK: usize = 16 << 20;

/// A multi-threaded runtime fit for queries: four threads a core, a timer, and stacks that hold the
/// deepest statement that the engine admits.
///
/// # Errors
/// The system gives no more threads.
pub fn query_runtime() -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(cores * THREADS_A_CORE)
        .thread_name("query")
        .thread_stack_size(STACK)
        .enable_all()
        .build()
}
