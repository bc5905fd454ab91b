//! spiced-grpc
