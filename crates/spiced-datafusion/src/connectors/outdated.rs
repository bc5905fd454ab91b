//! Tables that are other ones now: a column was dropped, or has another type. What is known of them is asked for again.

use std::sync::Arc;

use tokio::sync::Notify;

/// Says of one data set, or of several, that it is to be loaded again.
#[derive(Debug, Clone, Default)]
pub(super) struct Outdated(Arc<[Arc<Notify>]>);

impl Outdated {
    /// For one data set.
    pub(super) fn new(of: Arc<Notify>) -> Self {
        Self(Arc::new([of]))
    }

    /// For those of both.
    pub(super) fn and(&self, other: &Self) -> Self {
        let other = other.0.iter().filter(|one| !self.0.iter().any(|known| Arc::ptr_eq(known, one)));
        Self(self.0.iter().chain(other).cloned().collect())
    }

    /// Says it.
    pub(super) fn notify(&self) {
        self.0.iter().for_each(|one| one.notify_one());
    }
}
