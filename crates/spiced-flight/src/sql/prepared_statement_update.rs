//! `CommandPreparedStatementUpdate`: run a prepared statement once for each row of parameters.

use arrow_flight::FlightData;
use futures::stream::Stream;
use spiced_engine::Parameters;
use tonic::Status;

use crate::codec::ipc_decoder::{IpcDecoder, MAX_UNPACKED};
use crate::codec::parameters;
use crate::session::{self, Caller};
use crate::sql::{prepared_statement, statement_update};
use crate::state::FlightServiceState;

/// Runs a prepared update once for each row sent with it, in order; otherwise once for each bound row; otherwise once
/// without parameters. Returns the total number of affected rows.
pub(crate) async fn run<S>(
    state: &FlightServiceState,
    caller: &Caller,
    handle: &[u8],
    first: FlightData,
    rest: S,
) -> Result<i64, Status>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
{
    let statement = prepared_statement::opened(state, caller, handle)?;
    let planned = session::plan(state, caller, statement.sql).await?;
    let mut total = 0_i64;
    let mut run = async |parameters| {
        let touched = statement_update::count(planned.as_ref(), parameters).await?;
        // One unknown count makes the sum unknown.
        total = if total < 0 || touched < 0 { -1 } else { total.saturating_add(touched) };
        Ok::<(), Status>(())
    };

    match IpcDecoder::open(first, rest, state.request_timeout, MAX_UNPACKED).await? {
        // If the client sends columns but no row, the statement runs zero times.
        Some(mut sent) => {
            while let Some(batch) = sent.next().await? {
                for row in parameters::by_row(&batch) {
                    run(row?).await?;
                }
            }
        }
        None => match parameters::decode(&statement.parameters)? {
            None => run(Parameters::none()).await?,
            Some(bound) => {
                for row in parameters::by_row(&bound) {
                    run(row?).await?;
                }
            }
        },
    }
    Ok(total)
}
