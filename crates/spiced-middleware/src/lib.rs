//! spiced-middleware
