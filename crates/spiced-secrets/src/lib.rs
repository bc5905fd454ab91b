//! spiced-secrets
