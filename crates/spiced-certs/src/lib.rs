//! spiced-certs
