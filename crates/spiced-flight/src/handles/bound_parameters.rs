//! Bound parameters by handle, for clients that keep using the handle they had before the bind.
//!
//! The response to a bind carries a new handle that includes the parameters. For a client that ignores the response,
//! this replica looks the parameters up in this map. The map is bounded in entries, bytes and time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::handles::signed_handle::Id;

/// The maximum number of statements whose parameters are kept.
const MAX_ENTRIES: usize = 1024;
/// The maximum size of all kept parameters, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long parameters are kept.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// A cache of recently bound parameters. The oldest entries are evicted first.
#[derive(Default)]
pub(crate) struct BoundParameterCache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_id: HashMap<Id, Entry>,
    /// Insertion order. The id of a replaced or removed entry stays here until it is the oldest.
    order: VecDeque<(Instant, Id)>,
    bytes: usize,
}

struct Entry {
    at: Instant,
    parameters: Bytes,
}

impl BoundParameterCache {
    /// Stores `parameters` for the statement `id`, replacing any earlier ones.
    pub(crate) fn insert(&self, id: Id, parameters: Bytes) {
        self.entries().insert(id, parameters, Instant::now());
    }

    /// Returns the parameters stored for the statement `id`.
    pub(crate) fn get(&self, id: &Id) -> Option<Bytes> {
        self.entries().get(id, Instant::now())
    }

    /// Removes the parameters of the statement `id`.
    pub(crate) fn remove(&self, id: &Id) {
        self.entries().remove(id);
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        // No method panics while it holds the lock, so the data of a poisoned lock is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn insert(&mut self, id: Id, parameters: Bytes, now: Instant) {
        self.remove(&id);
        self.bytes += parameters.len();
        self.by_id.insert(id, Entry { at: now, parameters });
        self.order.push_back((now, id));
        while let Some(&(at, oldest)) = self.order.front() {
            let stale = self.by_id.get(&oldest).is_none_or(|entry| entry.at != at);
            let late = now.saturating_duration_since(at) >= LIFETIME;
            // The length of `order` is checked too, because binding one statement repeatedly leaves stale ids in it.
            if !(stale || late || self.order.len() > MAX_ENTRIES || self.bytes > MAX_BYTES) {
                break;
            }
            self.order.pop_front();
            if !stale {
                self.remove(&oldest);
            }
        }
    }

    fn get(&self, id: &Id, now: Instant) -> Option<Bytes> {
        let entry = self.by_id.get(id)?;
        (now.saturating_duration_since(entry.at) < LIFETIME).then(|| entry.parameters.clone())
    }

    fn remove(&mut self, id: &Id) {
        if let Some(entry) = self.by_id.remove(id) {
            self.bytes -= entry.parameters.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> Id {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        id
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let mut entries = Entries::default();
        let start = Instant::now();
        for n in 0..3_000 {
            entries.insert(id(n), Bytes::from_static(b"p"), start + Duration::from_nanos(n.into()));
        }
        assert_eq!((entries.by_id.len(), entries.order.len(), entries.bytes), (MAX_ENTRIES, MAX_ENTRIES, MAX_ENTRIES));
        assert!(entries.get(&id(2_999), start).is_some() && entries.get(&id(0), start).is_none());
        for n in 0..40 {
            entries.insert(id(n), vec![0; 1024 * 1024].into(), start + Duration::from_secs(1));
            assert!(entries.bytes <= MAX_BYTES);
        }
        assert_eq!(entries.by_id.len(), 16);
    }

    #[test]
    fn binding_one_statement_over_and_over_takes_no_more_room() {
        let mut entries = Entries::default();
        let start = Instant::now();
        entries.insert(id(0), Bytes::from_static(b"other"), start);
        for n in 0..5_000 {
            entries.insert(id(1), Bytes::from(n.to_string()), start + Duration::from_nanos(n));
        }
        assert!(entries.order.len() <= MAX_ENTRIES);
        assert_eq!(entries.get(&id(1), start).unwrap(), "4999");
    }

    #[test]
    fn time_and_removal_end_it() {
        let mut entries = Entries::default();
        let start = Instant::now();
        entries.insert(id(1), Bytes::from_static(b"p"), start);
        entries.insert(id(2), Bytes::from_static(b"p"), start);
        assert!(entries.get(&id(1), start + LIFETIME - Duration::from_nanos(1)).is_some());
        assert!(entries.get(&id(1), start + LIFETIME).is_none());
        entries.remove(&id(2));
        assert!(entries.get(&id(2), start).is_none());
        assert_eq!(entries.bytes, 1);
        entries.insert(id(3), Bytes::new(), start + LIFETIME);
        assert_eq!((entries.by_id.len(), entries.bytes), (1, 0), "what is late goes with the next insertion");
    }
}
