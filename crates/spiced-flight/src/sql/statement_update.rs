//! `CommandStatementUpdate`: runs SQL text, and returns the number of affected rows.

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_flight::sql::CommandStatementUpdate;
use arrow_schema::{DataType, Schema};
use futures::stream::TryStreamExt;
use spiced_engine::{Effect, Execution, Parameters, Prepared};
use tonic::Status;

use crate::codec::command;
use crate::session::{self, Caller};
use crate::state::FlightServiceState;
use crate::status;

/// The count of an update whose statement does not report how many rows it affected.
const UNKNOWN_COUNT: i64 = -1;

/// Runs an update and returns the number of affected rows.
pub(crate) async fn run(
    state: &FlightServiceState,
    caller: &Caller,
    update: CommandStatementUpdate,
) -> Result<i64, Status> {
    command::no_transaction(update.transaction_id.as_ref())?;
    count(session::plan(state, caller, update.query).await?.as_ref(), Parameters::none()).await
}

/// Runs a planned statement to its end and returns the total number of affected rows. A statement that changes data
/// returns it in a single column, `count`. `SET` and DDL affect no row. The count of a query that is run as an update
/// is unknown.
pub(crate) async fn count(planned: &dyn Prepared, parameters: Parameters) -> Result<i64, Status> {
    let Execution { schema, mut batches } = planned.execute(parameters).await.map_err(status::from_engine)?;
    let counts = planned.effect() != Effect::Read && has_count(&schema);
    let mut total = 0_u64;
    while let Some(batch) = batches.try_next().await.map_err(status::from_engine)? {
        if counts {
            let column = batch.column(0).as_primitive::<UInt64Type>();
            total = column.iter().flatten().fold(total, u64::saturating_add);
        }
    }
    Ok(match planned.effect() {
        _ if counts => i64::try_from(total).unwrap_or(i64::MAX),
        Effect::Session | Effect::Ddl => 0,
        _ => UNKNOWN_COUNT,
    })
}

fn has_count(schema: &Schema) -> bool {
    matches!(schema.fields().as_ref(), [field] if field.name() == "count" && *field.data_type() == DataType::UInt64)
}
