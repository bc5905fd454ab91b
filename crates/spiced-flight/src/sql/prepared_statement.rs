//! Prepared statements: create, bind, run, close. The server keeps no state for them except `bound`.

use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, DoPutPreparedStatementResult,
};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use futures::stream::Stream;
use spiced_engine::{Effect, Parameters};
use tonic::Status;

use crate::codec::ipc_decoder::{IpcDecoder, MAX_UNPACKED};
use crate::codec::ipc_encoder::{Chunks, wire_schema};
use crate::codec::parameters;
use crate::codec::responses;
use crate::handles::signed_handle::{HandleError, Kind, StatementHandle};
use crate::request_context::{Answer, RequestDeadline};
use crate::session::Caller;
use crate::sql::statement_query;
use crate::state::FlightServiceState;

impl FlightServiceState {
    /// Plans a statement and returns its handle, the schema of its result, and its parameters.
    pub(crate) async fn create_prepared(
        &self,
        caller: &Caller,
        request: ActionCreatePreparedStatementRequest,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        no_transaction(request.transaction_id.as_ref())?;
        let planned = self.plan(caller, request.query.clone()).await?;
        // A schema marks the statement as a query; JDBC chooses its call by it.
        let dataset_schema = match planned.effect() {
            Effect::Read => responses::schema_bytes(&wire_schema(&planned.schema()))?,
            _ => Bytes::new(),
        };
        let sealed = StatementHandle::new(request.query, Bytes::new());
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: self.sealer.sign(Kind::Prepared, &sealed, caller)?,
            dataset_schema,
            parameter_schema: responses::schema_bytes(planned.parameters())?,
        })
    }

    /// Binds parameters and returns a handle that carries them. The old handle refers to them too, on this replica and
    /// for a limited time, because some clients keep using it.
    pub(crate) async fn bind<S>(
        &self,
        caller: &Caller,
        handle: &[u8],
        first: FlightData,
        rest: S,
    ) -> Result<DoPutPreparedStatementResult, Status>
    where
        S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
    {
        let mut sealed = self.sealer.verify(Kind::Prepared, handle, caller)?;
        sealed.parameters = parameters::encode(parameters::collect(first, rest, self.request_timeout).await?.as_ref())?;
        let handle = self.sealer.sign(Kind::Prepared, &sealed, caller)?;
        if sealed.parameters.is_empty() {
            self.bound.remove(&sealed.id);
        } else {
            self.bound.insert(sealed.id, sealed.parameters);
        }
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    /// Returns the ticket for a prepared query, with its parameters.
    pub(crate) async fn prepared_info(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
        handle: &[u8],
    ) -> Result<FlightInfo, Status> {
        let StatementHandle { sql, parameters, .. } = self.opened(caller, handle)?;
        // Each ticket has a separate id: cancelling it cancels no other run of the statement.
        self.statement_info(caller, descriptor, &StatementHandle::new(sql, parameters)).await
    }

    /// Returns the schema of a prepared query's result.
    pub(crate) async fn prepared_schema(&self, caller: &Caller, handle: &[u8]) -> Result<SchemaRef, Status> {
        let StatementHandle { sql, parameters, .. } = self.opened(caller, handle)?;
        self.statement_schema(caller, sql, &parameters).await
    }

    /// Runs a prepared query by its handle, for clients that use it as the ticket.
    pub(crate) async fn prepared_rows(
        &self,
        caller: &Caller,
        end: RequestDeadline,
        handle: &[u8],
    ) -> Result<Answer<Chunks>, Status> {
        let sealed = self.opened(caller, handle)?;
        self.run(caller, end, sealed).await
    }

    /// Runs a prepared update once for each row sent with it, in order; otherwise once for each bound row; otherwise
    /// once without parameters. Returns the total number of affected rows.
    pub(crate) async fn prepared_update<S>(
        &self,
        caller: &Caller,
        handle: &[u8],
        first: FlightData,
        rest: S,
    ) -> Result<i64, Status>
    where
        S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
    {
        let sealed = self.opened(caller, handle)?;
        let planned = self.plan(caller, sealed.sql).await?;
        let mut total = 0_i64;
        let mut run = async |parameters| {
            let touched = statement_query::count(planned.as_ref(), parameters).await?;
            // One unknown count makes the sum unknown.
            total = if total < 0 || touched < 0 { -1 } else { total.saturating_add(touched) };
            Ok::<(), Status>(())
        };

        match IpcDecoder::open(first, rest, self.request_timeout, MAX_UNPACKED).await? {
            // If the client sends columns but no row, the statement runs zero times.
            Some(mut sent) => {
                while let Some(batch) = sent.next().await? {
                    for row in parameters::by_row(&batch) {
                        run(row?).await?;
                    }
                }
            }
            None => match parameters::decode(&sealed.parameters)? {
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

    /// Drops the parameters bound to a handle. The handle itself stays valid until it expires.
    pub(crate) fn close_prepared(&self, caller: &Caller, handle: &[u8]) -> Result<(), Status> {
        match self.sealer.verify(Kind::Prepared, handle, caller) {
            Ok(sealed) => self.bound.remove(&sealed.id),
            Err(HandleError::Expired) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Decodes a handle, with the parameters bound to it in either way.
    fn opened(&self, caller: &Caller, handle: &[u8]) -> Result<StatementHandle, Status> {
        let mut sealed = self.sealer.verify(Kind::Prepared, handle, caller)?;
        if sealed.parameters.is_empty()
            && let Some(bound) = self.bound.get(&sealed.id)
        {
            sealed.parameters = bound;
        }
        Ok(sealed)
    }
}

/// Rejects a statement that belongs to a transaction: the server does not support beginning one.
pub(crate) fn no_transaction(id: Option<&Bytes>) -> Result<(), Status> {
    match id {
        Some(id) if !id.is_empty() => {
            Err(Status::unimplemented("transactions are not supported; send the statement without a transaction id"))
        }
        _ => Ok(()),
    }
}
