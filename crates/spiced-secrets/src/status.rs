//! How the stores are: what `/v1/status` shows of them.

use std::time::{Duration, SystemTime};

/// How one store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// What references call it.
    pub name: String,
    /// Its kind, `hashicorp_vault`.
    pub kind: &'static str,
    /// How changes are learnt of.
    pub refresh: Refresh,
    /// When it last answered; `None` where nothing was asked of it.
    pub last_read: Option<SystemTime>,
    /// What keeps it from answering; the last good values are kept meanwhile.
    pub trouble: Option<StoreTrouble>,
}

/// How changes of a store are learnt of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// When the program is told to reload.
    Told,
    /// It is read again that often.
    Every(Duration),
    /// It says so itself.
    Watch,
}

/// Why a store is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreTrouble {
    /// Since when.
    pub since: SystemTime,
    /// The newest problem, in one sentence.
    pub problem: String,
}
