//! Serving: the accept loop, and the stages of every connection.
//!
//! Read `accept`, then `connection`, `limits`, `workers` and [`drain`]; these five are the server. The other modules
//! each hold one measured detail: `idle` and `lingering_close` (idle connections, and those that end), [`buf_list`] and
//! `body` (frames out and in), `connection_table` (which connections make room), `frame_budget` and
//! `request_memory` (bounds on what a peer may send), `socket_options`.

mod accept;
mod body;
pub mod buf_list;
mod connection;
mod connection_table;
pub mod drain;
mod frame_budget;
mod idle;
mod limits;
mod lingering_close;
mod request_memory;
mod socket_options;
mod workers;

pub use accept::serve;
pub use body::{BodyError, RequestBody};
pub use connection_table::ConnectionTable;
pub use limits::Limits;
pub use request_memory::{RequestCharge, RequestMemory};
pub use workers::Workers;
