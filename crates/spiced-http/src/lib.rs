//! spiced-http
