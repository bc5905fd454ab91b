//! Record batches as bytes, in the formats of the HTTP API and of the SQL prompt: JSON, NDJSON, the Spice SDKs' JSON,
//! CSV, a table, and the Arrow IPC stream.
//!
//! A [`RowEncoder`] takes batches and encodes them in steps of bounded size, so that its caller decides when to send
//! and when to yield; a [`RowWriter`] writes to any `io::Write`.
//!
//! Deliberately absent: HTTP (media ranges, bodies), and every choice of a format for a client.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod csv;
mod encode;
mod encoder;
mod format;
mod ipc;
mod json;
mod nested;
mod out;
mod row_writer;
mod table;

pub use encoder::RowEncoder;
pub use format::Format;
pub use row_writer::{RowWriter, WriteError};
