//! Where encoders write: bytes of their own, and bytes that they share with a batch.

use std::collections::VecDeque;
use std::ops::Deref;

use bytes::Bytes;

/// Shared bytes below this many are copied instead: tiny frames cost more than copies, and h2
/// clients count them against a server.
const SHARED_AT_LEAST: usize = 4 * 1024;

/// What is written and not yet sent.
#[derive(Default)]
pub(super) struct Out {
    whole: VecDeque<Bytes>,
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
        self.whole.push_back(Bytes::from_owner(Shared(bytes)));
    }

    /// The next chunk, if it is shared or has at least `size` bytes.
    pub(super) fn take_full(&mut self, size: usize) -> Option<Bytes> {
        if self.tail.len() >= size {
            self.close_tail();
        }
        self.whole.pop_front()
    }

    /// The next chunk, whatever its size.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.close_tail();
        }
        self.whole.pop_front()
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.whole.push_back(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }
}

struct Shared<T>(T);

impl<T: Deref<Target = [u8]>> AsRef<[u8]> for Shared<T> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
