//! The status of the stores, as `/v1/status` shows it.

use std::time::{Duration, SystemTime};

/// The status of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// The name that references use.
    pub name: String,
    /// The kind, such as `hashicorp_vault`.
    pub kind: &'static str,
    /// How changes are detected.
    pub refresh: Refresh,
    /// When it last answered; `None` if it was not queried yet.
    pub last_read: Option<SystemTime>,
    /// The current error, if any. The last good values stay in use meanwhile.
    pub trouble: Option<StoreTrouble>,
}

/// How changes of a store are detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// The store is read again on reload only.
    Told,
    /// The store is read again at this interval.
    Every(Duration),
    /// The store reports changes.
    Watch,
}

/// The error of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreTrouble {
    /// When the error first occurred.
    pub since: SystemTime,
    /// The most recent problem, in one sentence.
    pub problem: String,
}
