//! A signal that a table has changed: a column was dropped, or has another type. Its schema is then read again.

use std::sync::Arc;

use tokio::sync::Notify;

/// Requests that one or several data sets are loaded again.
#[derive(Debug, Clone, Default)]
pub(super) struct Outdated(Arc<[Arc<Notify>]>);

impl Outdated {
    /// Creates the signal of one data set.
    pub(super) fn new(of: Arc<Notify>) -> Self {
        Self(Arc::new([of]))
    }

    /// Combines the data sets of both signals.
    #[cfg(feature = "object-store")]
    pub(super) fn and(&self, other: &Self) -> Self {
        let other = other.0.iter().filter(|one| !self.0.iter().any(|known| Arc::ptr_eq(known, one)));
        Self(self.0.iter().chain(other).cloned().collect())
    }

    /// Sends the signal.
    pub(super) fn notify(&self) {
        self.0.iter().for_each(|one| one.notify_one());
    }
}
