//! spiced-flight
