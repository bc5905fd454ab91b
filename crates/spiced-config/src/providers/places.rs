//! The place at which each value of a layer was written, by its path.

use std::collections::HashMap;

use figment::value::Value;
use tls_core::Origin;

/// The places of a value and of its key. An item of a list has no key; the two are then the same.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) value: Origin,
    pub(crate) key: Origin,
}

impl Place {
    /// Orders keys as in their file; keys from elsewhere come last.
    pub(crate) fn position(&self) -> (usize, usize) {
        match &self.key {
            Origin::File { line, column, .. } => (*line, *column),
            _ => (usize::MAX, usize::MAX),
        }
    }
}

impl From<Origin> for Place {
    fn from(origin: Origin) -> Self {
        Self { key: origin.clone(), value: origin }
    }
}

/// The places of a layer. The key is the path of a value as a JSON Pointer (RFC 6901), because a key of a data set's
/// `params` may contain dots.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(HashMap<String, Place>);

impl Places {
    /// Creates places that are the same for all values.
    pub(crate) fn of_all(origin: Origin) -> Self {
        Self(HashMap::from([(String::new(), origin.into())]))
    }

    pub(crate) fn insert(&mut self, pointer: String, place: impl Into<Place>) {
        self.0.insert(pointer, place.into());
    }

    /// Returns the place of a value, or of the innermost value around it that has one.
    pub(crate) fn nearest(&self, pointer: &str) -> Option<&Place> {
        let mut around = Some(pointer);
        while let Some(pointer) = around {
            if let Some(place) = self.0.get(pointer) {
                return Some(place);
            }
            around = parent(pointer);
        }
        None
    }

    /// Returns the place of the value itself.
    pub(crate) fn exact(&self, pointer: &str) -> Option<&Place> {
        self.0.get(pointer)
    }

    /// Returns the place of the first value below a map that was not written itself: variables and options set only
    /// values.
    pub(crate) fn below(&self, pointer: &str) -> Option<&Place> {
        let is_below = |key: &&String| key.strip_prefix(pointer).is_some_and(|rest| rest.starts_with('/'));
        self.0.get(self.0.keys().filter(is_below).min()?)
    }

    /// Copies the places of `value` from `from` to `to`.
    pub(crate) fn copy(&mut self, from: &str, to: &str, value: &Value) {
        if let Some(place) = self.0.get(from).cloned() {
            self.0.insert(to.to_owned(), place);
        }
        match value {
            Value::Dict(_, entries) => {
                entries.iter().for_each(|(name, value)| self.copy(&child(from, name), &child(to, name), value));
            }
            Value::Array(_, items) => {
                let items = items.iter().enumerate().map(|(at, item)| (at.to_string(), item));
                items.for_each(|(at, item)| self.copy(&child(from, &at), &child(to, &at), item));
            }
            _ => {}
        }
    }
}

/// Returns the pointer of an entry of a map, or of an item of a list by its index.
pub(crate) fn child(pointer: &str, name: &str) -> String {
    match name.contains(['~', '/']) {
        false => [pointer, "/", name].concat(),
        true => [pointer, "/", &name.replace('~', "~0").replace('/', "~1")].concat(),
    }
}

/// Returns the pointer of the map or list around a value.
pub(crate) fn parent(pointer: &str) -> Option<&str> {
    pointer.rsplit_once('/').map(|(parent, _)| parent)
}

/// Returns the pointer of a setting: `/runtime/tls/key` for `runtime.tls.key`.
pub(crate) fn pointer(setting: &str) -> String {
    setting.split('.').fold(String::new(), |pointer, name| child(&pointer, name))
}
