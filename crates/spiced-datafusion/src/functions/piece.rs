//! The size that a piece of a batch may still take, while a projection is computed in pieces.

use std::cell::Cell;

use datafusion::error::Result;

use super::bounds::{Bounds, too_large};

thread_local! {
    static PIECE: Cell<Option<Piece>> = const { Cell::new(None) };
}

/// The piece that is being produced on this thread.
#[derive(Clone, Copy)]
struct Piece {
    /// The bytes that its values may still take.
    left: u64,
    /// Whether a value would have exceeded that.
    exceeded: bool,
}

/// Returns the maximum size of the result of a call made now.
pub(super) fn most(bounds: &Bounds) -> u64 {
    PIECE.get().map_or(bounds.batch, |piece| piece.left)
}

/// # Errors
/// Fails if the result of `name` would be too large for one batch or one piece.
pub(super) fn admit(name: &str, bytes: u64, rows: usize, bounds: &Bounds) -> Result<()> {
    let most = most(bounds);
    if bytes <= most {
        if let Some(piece) = PIECE.get() {
            PIECE.set(Some(Piece { left: most - bytes, ..piece }));
        }
        return Ok(());
    }
    if let Some(piece) = PIECE.get() {
        PIECE.set(Some(Piece { exceeded: true, ..piece }));
    }
    Err(too_large(name, bytes, rows, bounds.batch))
}

/// Produces a piece of at most `left` bytes, and returns whether it would have exceeded that.
pub(super) fn within<T>(left: u64, make: impl FnOnce() -> Result<T>) -> (Result<T>, bool) {
    /// Ends the piece, even on a panic.
    struct Ends(Option<Piece>);
    impl Drop for Ends {
        fn drop(&mut self) {
            PIECE.set(self.0);
        }
    }
    let _ends = Ends(PIECE.replace(Some(Piece { left, exceeded: false })));
    let made = make();
    (made, PIECE.get().is_some_and(|piece| piece.exceeded))
}
