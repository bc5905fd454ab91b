//! Limits on the size of functions' results, and the errors for exceeding them.

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::human_readable_size;
use spiced_engine::ErrorKind;

use crate::error::refusal;

/// The maximum size of a value that a function may return, if the memory limit allows it.
const MAX_VALUE: usize = 64 << 20;
/// The maximum size of a function's results for one batch of rows, if the memory limit allows it.
const MAX_BATCH: usize = 512 << 20;
/// The target size of the results for one piece of a batch that is split.
const PIECE: usize = 16 << 20;

/// The size limits of a function's results, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// For one value.
    pub(super) value: u64,
    /// For all rows of a batch.
    pub(super) batch: u64,
    /// For one piece, if the rows can be passed piece by piece.
    pub(super) piece: u64,
}

impl Bounds {
    /// An eighth and a quarter of the shared memory, within sensible bounds.
    pub(super) fn of(memory_limit: usize) -> Self {
        let value = (memory_limit / 8).clamp(1 << 20, MAX_VALUE) as u64;
        let batch = (memory_limit / 4).clamp(4 << 20, MAX_BATCH) as u64;
        Self { value, batch, piece: batch.min(PIECE as u64) }
    }
}

/// The error for a result of `name` that would be too large.
pub(super) fn too_large(name: &str, bytes: u64, rows: usize, most: u64) -> DataFusionError {
    let what = match rows {
        1 => "a value".to_owned(),
        _ => format!("values for {rows} rows at once"),
    };
    let [bytes, most] = [bytes, most].map(readable);
    refusal(
        ErrorKind::InvalidStatement,
        format!(
            "`{name}` would make {what} of {bytes}; the most is {most}; \
             ask for less, or raise the limit of memory, of which this is a part"
        ),
    )
}

pub(super) fn readable(bytes: u64) -> String {
    human_readable_size(usize::try_from(bytes).unwrap_or(usize::MAX))
}
