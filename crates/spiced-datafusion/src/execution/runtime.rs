//! The runtime for queries.

use std::num::NonZero;

use tokio::runtime::{Builder, Runtime};

/// The number of threads per core. Some steps of a join occupy a thread for long; with more threads than cores, the
/// operating system's scheduler shares the cores among the queries.
const THREADS_A_CORE: usize = 4;

/// The stack of each thread, in bytes. Only address space is reserved until the stack is used.
///
/// Planning and evaluation recurse with the depth of a statement. The deepest statement that `complexity` admits needed
/// up to 8 MiB, measured without compiler optimization.
const STACK: usize = 16 << 20;

/// Builds a multi-threaded runtime for queries: four threads per core, a timer, and stacks that are large enough for
/// the deepest statement that the engine admits.
///
/// # Errors
/// Fails if the system cannot create the threads.
pub fn query_runtime() -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(cores * THREADS_A_CORE)
        .thread_name("query")
        .thread_stack_size(STACK)
        .enable_all()
        .build()
}
