//! `CommandStatementIngest`: bulk ingestion of rows into a table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_flight::FlightData;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use futures::stream::{StreamExt, TryStreamExt};
use spiced_engine::{EngineError, ErrorKind, Execution, IfExists, IfMissing, Ingest, Parameters, TablePath};
use tonic::Status;

use crate::codec::command;
use crate::codec::ipc_decoder::{IpcDecoder, MAX_UNPACKED};
use crate::request_context::Answer;
use crate::session::{self, Caller};
use crate::state::FlightServiceState;
use crate::status;

/// Writes the rows of a `DoPut` stream to a table. Returns the number of rows once all are written.
pub(crate) async fn run(
    state: &FlightServiceState,
    caller: &Caller,
    command: CommandStatementIngest,
    first: FlightData,
    rest: Answer<FlightData>,
) -> Result<i64, Status> {
    command::no_transaction(command.transaction_id.as_ref())?;
    if command.temporary {
        return Err(Status::unimplemented("temporary tables are not supported; leave `temporary` out"));
    }
    let (if_missing, if_exists) = definition(command.table_definition_options.as_ref())?;
    // The engine polls the stream, and reads no batch for a caller that may not write.
    let Some(frames) = IpcDecoder::open(first, rest, state.request_timeout, MAX_UNPACKED).await? else {
        return Err(Status::invalid_argument("the DoPut stream has no schema for the rows to ingest"));
    };
    let schema = frames.schema().clone();
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let rows = frames.into_stream().map(move |batch| match batch {
        Ok(batch) => {
            counted.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            Ok(batch)
        }
        // The stream broke off or contains an invalid batch. The engine discards all rows of the stream.
        Err(said) => Err(EngineError::new(ErrorKind::InvalidStatement, said.message())),
    });
    let CommandStatementIngest { table, schema: in_schema, catalog, .. } = command;
    let ingest = Ingest {
        table: TablePath { catalog, schema: in_schema, name: table },
        if_missing,
        if_exists,
        rows: Execution { schema, batches: rows.boxed() },
        routine: false,
    };
    let session = session::open(state, caller).await?;
    let planned = session.ingest(ingest).await.map_err(status::from_engine)?;
    let Execution { batches, .. } = planned.execute(Parameters::none()).await.map_err(status::from_engine)?;
    batches.try_for_each(|_| async { Ok(()) }).await.map_err(status::from_engine)?;
    Ok(i64::try_from(count.load(Ordering::Relaxed)).unwrap_or(i64::MAX))
}
/// Translates the client's choice for a table that exists or is missing. A request without options is invalid.
fn definition(options: Option<&TableDefinitionOptions>) -> Result<(IfMissing, IfExists), Status> {
    let options = options.ok_or_else(|| Status::invalid_argument("table_definition_options is missing"))?;
    let if_missing = match options.if_not_exist() {
        TableNotExistOption::Create => IfMissing::Create,
        TableNotExistOption::Fail | TableNotExistOption::Unspecified => IfMissing::Fail,
    };
    let if_exists = match options.if_exists() {
        TableExistsOption::Append => IfExists::Append,
        TableExistsOption::Replace => IfExists::Replace,
        TableExistsOption::Fail | TableExistsOption::Unspecified => IfExists::Fail,
    };
    Ok((if_missing, if_exists))
}
