//! Where encoders write: bytes of their own, and bytes that they share with a batch.

use std::ops::Deref;

use bytes::Bytes;
use tls_core::pieces::{Gathered, Pieces};

/// A frame goes out once so many bytes of text are in it, if not before.
const TEXT: usize = 64 * 1024;

/// What is written and not yet sent.
#[derive(Default)]
pub(super) struct Out(Gathered);

impl Out {
    /// Where text is appended.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        self.0.copied()
    }

    /// Appends bytes without copying them, where they are many.
    pub(super) fn share<T: Deref<Target = [u8]> + Send + 'static>(&mut self, bytes: T) {
        self.0.push(bytes, |bytes| Bytes::from_owner(Shared(bytes)));
    }

    /// True where there is enough for a frame.
    pub(super) fn is_full(&self) -> bool {
        self.0.copied_len() >= TEXT || self.0.is_full()
    }

    /// All that is written.
    pub(super) fn take(&mut self) -> Pieces {
        self.0.take()
    }
}

struct Shared<T>(T);

impl<T: Deref<Target = [u8]>> AsRef<[u8]> for Shared<T> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
