//! spiced
