//! An `Arc` whose content the compiler does not look into when it proves that something is `Send`.
//!
//! DataFusion's plans, expressions and sessions contain each other, and sqlparser's syntax tree. The compiler proves
//! `Send` and `Sync` for the four hundred types among them one by one, which takes a second, and repeats that for every
//! method of an `#[async_trait]`: it keeps such a proof only if no lifetime is bounded in the signature. Behind
//! [`Proven`], the proof is made once for each content. (`rustc -Z self-profile`, `evaluate_obligation`: 87 of the
//! crate's 115 s without this module, 9 of 37 s with it.)
//!
//! The same holds for futures: those that contain plans are boxed by functions whose signature bounds no lifetime.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A shared value.
pub(crate) struct Proven<T>(Arc<dyn Holds<T>>);

/// A value of type `T`, known to be `Send` and `Sync` by this declaration.
trait Holds<T>: Send + Sync {
    fn held(&self) -> &T;
}

impl<T: Send + Sync> Holds<T> for T {
    fn held(&self) -> &T {
        self
    }
}

impl<T: Send + Sync + 'static> Proven<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Proven<T> {
    /// Returns whether both are the same value, and not only equal ones.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Proven<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Proven<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().held()
    }
}

impl<T: fmt::Debug> fmt::Debug for Proven<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
