//! spiced-config
