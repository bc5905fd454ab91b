//! The output buffer of the encoders: copied bytes, and bytes shared with a batch.

use std::ops::Deref;

use bytes::Bytes;
use tls_core::server::buf_list::{BufList, ChunkBuilder};

/// The number of bytes of text after which a frame is full.
const TEXT: usize = 64 * 1024;

/// The number of rows written before the size of a row is known. At most four times as many are written between two
/// checks of the frame's size.
const ROWS: usize = 128;

/// Bytes that are written but not yet sent.
#[derive(Default)]
pub(crate) struct Out {
    gathered: ChunkBuilder,
    /// The size in bytes of a row of text, measured over the last rows; 0 if nothing was measured.
    row: usize,
}

impl Out {
    /// Returns the buffer to which text is appended.
    pub(crate) fn text(&mut self) -> &mut Vec<u8> {
        let text = self.gathered.copied();
        if text.is_empty() && self.row > 0 {
            // More rows are likely to follow, and the last one may exceed the size of the frame.
            text.reserve(TEXT + TEXT / 8);
        }
        text
    }

    /// Returns how many rows of text are likely to fill the frame.
    pub(crate) fn fitting(&self) -> usize {
        let room = TEXT.saturating_sub(self.gathered.copied_len());
        room.checked_div(self.row).map_or(ROWS, |rows| rows + 1).min(4 * ROWS)
    }

    /// Calls `write`, which writes this number of rows.
    pub(crate) fn rows<E>(&mut self, rows: usize, write: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        let before = self.gathered.copied_len();
        let written = write(self);
        self.row = self.gathered.copied_len().saturating_sub(before) / rows.max(1);
        written
    }

    /// Appends bytes, without copying them if there are many.
    pub(crate) fn share<T: Deref<Target = [u8]> + Send + 'static>(&mut self, bytes: T) {
        self.gathered.push(bytes, |bytes| Bytes::from_owner(Shared(bytes)));
    }

    /// Returns true if a frame is full.
    pub(crate) fn is_full(&self) -> bool {
        self.gathered.copied_len() >= TEXT || self.gathered.is_full()
    }

    /// Takes all written bytes.
    pub(crate) fn take(&mut self) -> BufList {
        self.gathered.take()
    }
}

struct Shared<T>(T);

impl<T: Deref<Target = [u8]>> AsRef<[u8]> for Shared<T> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
