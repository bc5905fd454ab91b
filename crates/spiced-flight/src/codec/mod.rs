//! Encoding and decoding: gRPC frames, Arrow IPC, commands, parameters and responses.

pub(crate) mod command;
pub(crate) mod grpc_framing;
pub(crate) mod ipc_decoder;
pub(crate) mod ipc_encoder;
pub(crate) mod parameters;
pub(crate) mod responses;
