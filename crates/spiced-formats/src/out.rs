//! Where encoders write: bytes of their own, and bytes that they share with a batch.

use std::ops::Deref;

use bytes::Bytes;
use tls_core::server::buf_list::{BufList, ChunkBuilder};

/// A frame goes out once so many bytes of text are in it, if not before.
const TEXT: usize = 64 * 1024;

/// So many rows are written before the first look at how long they are, and four times as many at most between two.
const ROWS: usize = 128;

/// What is written and not yet sent.
#[derive(Default)]
pub(crate) struct Out {
    gathered: ChunkBuilder,
    /// Bytes of text for a row, as it was lately; 0 where there was none.
    row: usize,
}

impl Out {
    /// Where text is appended.
    pub(crate) fn text(&mut self) -> &mut Vec<u8> {
        let text = self.gathered.copied();
        if text.is_empty() && self.row > 0 {
            // There are likely to be more rows; and a frame ends behind one.
            text.reserve(TEXT + TEXT / 8);
        }
        text
    }

    /// How many rows of text are likely to make the frame full.
    pub(crate) fn fitting(&self) -> usize {
        let room = TEXT.saturating_sub(self.gathered.copied_len());
        room.checked_div(self.row).map_or(ROWS, |rows| rows + 1).min(4 * ROWS)
    }

    /// Calls `write`, which writes so many rows.
    pub(crate) fn rows<E>(&mut self, rows: usize, write: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        let before = self.gathered.copied_len();
        let written = write(self);
        self.row = self.gathered.copied_len().saturating_sub(before) / rows.max(1);
        written
    }

    /// Appends bytes without copying them, where they are many.
    pub(crate) fn share<T: Deref<Target = [u8]> + Send + 'static>(&mut self, bytes: T) {
        self.gathered.push(bytes, |bytes| Bytes::from_owner(Shared(bytes)));
    }

    /// True where there is enough for a frame.
    pub(crate) fn is_full(&self) -> bool {
        self.gathered.copied_len() >= TEXT || self.gathered.is_full()
    }

    /// All that is written.
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
