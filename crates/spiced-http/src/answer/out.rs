//! Where encoders write: bytes of their own, and bytes that they share with a batch.

use std::ops::Deref;

use bytes::Bytes;
use tls_core::pieces::Pieces;

/// Shared bytes below this many are copied instead, which costs less than a place in a frame for each.
const SHARED_AT_LEAST: usize = 4 * 1024;

/// A frame goes out once so many bytes of text are in it,
const TEXT: usize = 64 * 1024;

/// or so many in all.
const FRAME: usize = 1024 * 1024;

/// What is written and not yet sent.
#[derive(Default)]
pub(super) struct Out {
    whole: Pieces,
    tail: Vec<u8>,
}

impl Out {
    /// Where text is appended.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Appends bytes without copying them, where they are many.
    pub(super) fn share<T: Deref<Target = [u8]> + Send + 'static>(&mut self, bytes: T) {
        if bytes.len() < SHARED_AT_LEAST {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        self.close_tail();
        self.whole.push(Bytes::from_owner(Shared(bytes)));
    }

    /// True where there is enough for a frame.
    pub(super) fn is_full(&self) -> bool {
        self.tail.len() >= TEXT || self.whole.len() >= FRAME
    }

    /// All that is written.
    pub(super) fn take(&mut self) -> Pieces {
        self.close_tail();
        std::mem::take(&mut self.whole)
    }

    fn close_tail(&mut self) {
        self.whole.push(Bytes::from(std::mem::take(&mut self.tail)));
    }
}

struct Shared<T>(T);

impl<T: Deref<Target = [u8]>> AsRef<[u8]> for Shared<T> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
