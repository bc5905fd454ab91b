//! `DoPut`: updates, and the parameters of prepared statements.

use arrow_flight::sql::{Command, DoPutUpdateResult};
use arrow_flight::{FlightData, PutResult};
use futures::stream::{self, StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Status, Streaming};

use crate::call::Answer;
use crate::command::{self, Asked};
use crate::door::Door;
use crate::prepared;
use crate::session::Caller;

impl Door {
    /// Does what the first message's descriptor asks for.
    pub(crate) async fn put(
        &self,
        caller: &Caller,
        mut messages: Streaming<FlightData>,
    ) -> Result<Answer<PutResult>, Status> {
        let mut first = messages.try_next().await?.ok_or_else(|| Status::invalid_argument("DoPut was sent nothing"))?;
        let descriptor = first.flight_descriptor.take();
        let descriptor =
            descriptor.ok_or_else(|| Status::invalid_argument("the first message of DoPut has no descriptor"))?;
        match Asked::by(descriptor)? {
            Asked::Command(Command::CommandStatementUpdate(update)) => {
                prepared::no_transaction(update.transaction_id.as_ref())?;
                let record_count = self.statement_update(caller, update.query).await?;
                // Some clients end their side only after they have read the count.
                let rest = messages.filter_map(|message| async { message.err().map(Err) });
                Ok(stream::iter([Ok(result(&DoPutUpdateResult { record_count }))]).chain(rest).boxed())
            }
            Asked::Command(Command::CommandPreparedStatementUpdate(update)) => {
                let handle = update.prepared_statement_handle;
                let record_count = self.prepared_update(caller, &handle, first, messages).await?;
                Ok(once(&DoPutUpdateResult { record_count }))
            }
            Asked::Command(Command::CommandPreparedStatementQuery(query)) => {
                let handle = query.prepared_statement_handle;
                Ok(once(&self.bind(caller, &handle, first, messages).await?))
            }
            Asked::Command(Command::CommandStatementSubstraitPlan(_)) => Err(Status::unimplemented(
                "Substrait plans are not served here; send SQL text as CommandStatementUpdate",
            )),
            Asked::Command(Command::CommandStatementIngest(ingest)) => {
                let record_count = self.ingest(caller, ingest, first, messages).await?;
                Ok(once(&DoPutUpdateResult { record_count }))
            }
            Asked::Command(other) => Err(command::misplaced(&other, "DoPut")),
            Asked::Sql(_) => {
                Err(Status::invalid_argument("DoPut takes SQL text as CommandStatementUpdate, not as the bare command"))
            }
        }
    }
}

fn once(message: &impl Message) -> Answer<PutResult> {
    stream::iter([Ok(result(message))]).boxed()
}

fn result(message: &impl Message) -> PutResult {
    PutResult { app_metadata: message.encode_to_vec().into() }
}
