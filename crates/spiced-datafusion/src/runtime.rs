//! The runtime for queries.

use tokio::runtime::{Builder, Runtime};

/// The stack of each of its threads, in bytes. It is address space until it is used.
///
/// Planning and evaluating recurse with the depth of a statement. What `size` lets through was
/// measured to need up to 8 MiB, without optimization.
const STACK: usize = 16 << 20;

/// A multi-threaded runtime fit for queries: one thread a core, a timer, and stacks that hold the
/// deepest statement that the engine admits.
///
/// # Errors
/// The system gives no more threads.
pub fn query_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().thread_name("query").thread_stack_size(STACK).enable_all().build()
}
