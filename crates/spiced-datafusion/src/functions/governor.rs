//! What every governed function needs.

use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryPool;

use super::bounds::Bounds;

/// State shared by all governed functions of one engine.
#[derive(Debug)]
pub(super) struct Governor {
    pub(super) bounds: Bounds,
    pub(super) pool: Arc<dyn MemoryPool>,
}
