//! spiced-datafusion
