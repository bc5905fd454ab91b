//! The `PollFlightInfo` call. A query is planned here and starts only when its rows are requested, so there is nothing
//! to poll for.

use arrow_flight::{FlightDescriptor, PollInfo};
use tonic::Status;

use crate::service::get_flight_info;
use crate::session::Caller;
use crate::state::FlightServiceState;
use crate::status;

/// Returns the flight of a descriptor, complete at once.
pub(crate) async fn run(
    state: &FlightServiceState,
    caller: &Caller,
    descriptor: FlightDescriptor,
) -> Result<PollInfo, Status> {
    let info = get_flight_info::run(state, caller, descriptor).await?;
    PollInfo::new().with_info(info).try_with_progress(1.0).map_err(status::unencodable)
}
