//! spiced-telemetry
