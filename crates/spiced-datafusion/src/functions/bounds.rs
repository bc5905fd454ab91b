//! How much functions may make, and the refusals.

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::human_readable_size;
use spiced_engine::ErrorKind;

use crate::error::refusal;

/// The largest value that a function may make, where the memory limit allows for that much.
const MAX_VALUE: usize = 64 << 20;
/// The most that a function may make for the rows that it is given at once, where the memory limit allows for that much.
const MAX_BATCH: usize = 512 << 20;
/// What the values of a batch that is cut into pieces come to.
const PIECE: usize = 16 << 20;

/// How much a function may make, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// In one value.
    pub(super) value: u64,
    /// For all rows that it is given at once.
    pub(super) batch: u64,
    /// In one piece, where the rows can be given to it piece by piece.
    pub(super) piece: u64,
}

impl Bounds {
    /// An eighth and a quarter of the memory that all share, as long as that is not more than is sensible.
    pub(super) fn of(memory_limit: usize) -> Self {
        let value = (memory_limit / 8).clamp(1 << 20, MAX_VALUE) as u64;
        let batch = (memory_limit / 4).clamp(4 << 20, MAX_BATCH) as u64;
        Self { value, batch, piece: batch.min(PIECE as u64) }
    }
}

/// Refuses what `name` would make.
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
