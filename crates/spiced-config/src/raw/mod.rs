//! Raw settings: the schema of a pod file as serde types, and the keys that this program does not use.

pub(crate) mod aliases;
pub(crate) mod spanned;
pub(crate) mod spicepod;
pub(crate) mod units;
pub(crate) mod unsupported_keys;
