//! The tower layers of an endpoint, from the outside in: request metrics, HTTP validity, admission.

mod admission;
mod protocol_mismatch;
mod request_metrics;
mod well_formed;

pub use admission::{Admission, AdmissionLayer, admission};
pub use protocol_mismatch::{either, grpc_only};
pub use request_metrics::{Measured, MeasuredLayer, request_metrics};
pub use well_formed::{WellFormed, WellFormedLayer, well_formed};
