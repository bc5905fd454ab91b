//! A session with a Flight SQL server: runs statements, fetches their rows, cancels them, and lists tables.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables, SqlInfo};
use arrow_flight::{CancelFlightInfoRequest, FlightClient, FlightInfo, Ticket};
use arrow_schema::SchemaRef;
use futures::TryStreamExt;
use hyper_util::rt::TokioIo;
use tls_core::{Origin, Secret, Sourced};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::args::Reach;
use crate::connect::error::Unreachable;
use crate::connect::{Connection, Dialer, Link};
use crate::error::{self, SqlError};

/// The maximum message size, in bytes. A batch has a few MiB, but a single row may be larger.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// How long a cancellation may take. After that, dropping the call ends the query too.
const CANCEL: Duration = Duration::from_secs(2);

type Wire = InterceptedService<Channel, Bearer>;

/// A connection to one server, re-established when it is lost. Clones share it.
#[derive(Clone)]
pub(crate) struct Session {
    client: FlightSqlServiceClient<Wire>,
    dialer: Arc<Dialer>,
    key: Option<Origin>,
    /// Whether the server has ever answered as a Flight SQL server.
    proven: Arc<AtomicBool>,
}

impl Session {
    /// Connects. `reach.api_key` is sent with every call.
    ///
    /// # Errors
    /// Fails if the server cannot be reached, or if the key is invalid.
    pub(crate) async fn open(reach: &Reach) -> Result<Self, SqlError> {
        let bearer = Bearer::new(reach.api_key.as_ref())?;
        let dialer = Arc::new(Dialer::new(reach).map_err(Unreachable::from)?);
        let first = dialer.connect().await?;
        let scheme = if first.link.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", reach.endpoint.authority()))
            .and_then(|endpoint| endpoint.user_agent(concat!("spiced-sql/", env!("CARGO_PKG_VERSION"))))
            .map_err(|e| SqlError::new(error::root(&e)))?;
        let (lines, mut ready) = tokio::sync::mpsc::channel::<Connection>(1);
        // The channel has room for one.
        let _ = lines.try_send(first);
        let again = Arc::clone(&dialer);
        let connector = tower::service_fn(move |_| {
            let (ready, again) = (ready.try_recv().ok(), Arc::clone(&again));
            async move {
                let line = match ready {
                    Some(line) => line,
                    None => again.connect().await?,
                };
                Ok::<_, Unreachable>(TokioIo::new(line.io))
            }
        });
        let channel = endpoint.connect_with_connector(connector).await.map_err(|e| SqlError::new(error::root(&e)))?;
        let client = FlightServiceClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self {
            client: FlightSqlServiceClient::new_from_inner(client),
            dialer,
            key: reach.api_key.as_ref().map(|key| key.origin.clone()),
            proven: Arc::default(),
        })
    }

    /// Returns the current connection.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.dialer.latest()
    }

    /// Returns the server's name and version, if it reports them.
    pub(crate) async fn server(&mut self) -> Result<Option<String>, SqlError> {
        let asked = vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerVersion];
        let info = match self.client.get_sql_info(asked).await {
            Ok(info) => info,
            Err(FlightError::Tonic(status)) if matches!(status.code(), Code::Unimplemented) && is_answer(&status) => {
                return Ok(None);
            }
            Err(error) => return Err(self.explain(error).await),
        };
        let rows = self.all(&info).await?;
        Ok(crate::shell::catalog::server(&rows))
    }

    /// Plans a statement and returns the handle for its result.
    pub(crate) async fn plan(&mut self, sql: &str) -> Result<FlightInfo, SqlError> {
        let planned = self.client.execute(sql.to_owned(), None).await;
        self.said(planned).await
    }

    /// Returns the rows of `info`.
    pub(crate) fn rows(&self, info: &FlightInfo) -> Rows {
        // The locations in the endpoints are ignored: the current connection is verified, and keys are sent nowhere
        // else.
        let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.clone()).collect();
        Rows { session: self.clone(), tickets, current: None, schema: None }
    }

    /// Cancels the query of `info`. Errors are ignored: the server may not support it, or may have finished already.
    pub(crate) async fn cancel(&self, info: FlightInfo) {
        let mut client = FlightClient::new_from_inner(self.client.inner().clone());
        let _ = timeout(CANCEL, client.cancel_flight_info(CancelFlightInfoRequest::new(info))).await;
    }

    /// Lists the catalogs: one column with their names.
    pub(crate) async fn catalogs(&mut self) -> Result<FlightInfo, SqlError> {
        let info = self.client.get_catalogs().await;
        self.said(info).await
    }

    /// Lists the schemas of all catalogs.
    pub(crate) async fn schemas(&mut self) -> Result<FlightInfo, SqlError> {
        let info = self.client.get_db_schemas(CommandGetDbSchemas::default()).await;
        self.said(info).await
    }

    /// Lists the tables that match the `LIKE` patterns; with `columns`, includes their columns.
    pub(crate) async fn tables(
        &mut self,
        schema: Option<String>,
        name: Option<String>,
        columns: bool,
    ) -> Result<FlightInfo, SqlError> {
        let command = CommandGetTables {
            db_schema_filter_pattern: schema,
            table_name_filter_pattern: name,
            include_schema: columns,
            ..CommandGetTables::default()
        };
        let info = self.client.get_tables(command).await;
        self.said(info).await
    }

    /// Fetches all rows of a metadata result.
    pub(crate) async fn all(&mut self, info: &FlightInfo) -> Result<Vec<RecordBatch>, SqlError> {
        let mut rows = self.rows(info);
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }

    async fn said<T>(&self, result: Result<T, FlightError>) -> Result<T, SqlError> {
        match result {
            Ok(told) => {
                self.proven.store(true, Ordering::Relaxed);
                Ok(told)
            }
            Err(error) => Err(self.explain(error).await),
        }
    }

    /// Explains an error. For a connection error, may have to probe what the server speaks.
    async fn explain(&self, error: FlightError) -> SqlError {
        let status = error::status(error);
        if let Some(unreachable) = error::cause::<Unreachable>(&status) {
            return unreachable.clone().into();
        }
        let Some(link) = self.link() else { return SqlError::answered(&status, self.key.as_ref()) };
        if let Some(refusal) = link.refused() {
            return Unreachable::Tls { endpoint: link.endpoint.clone(), refusal }.into();
        }
        let answered = is_answer(&status);
        if answered && status.code() != Code::Unavailable {
            self.proven.store(true, Ordering::Relaxed);
        }
        if self.proven.load(Ordering::Relaxed) {
            return match std::error::Error::source(&status) {
                None => SqlError::answered(&status, self.key.as_ref()),
                Some(source) => SqlError::hinted(
                    format!("the connection to {} is lost: {}", link.endpoint.authority(), error::root(source)),
                    "the next statement makes a new one",
                ),
            };
        }
        if link.tls.is_none() && self.dialer.speaks_tls().await {
            return Unreachable::SpeaksTls { endpoint: link.endpoint.clone() }.into();
        }
        if answered {
            return SqlError::answered(&status, self.key.as_ref());
        }
        let reason = match (std::error::Error::source(&status), status.message().rsplit_once("status")) {
            (Some(source), _) => error::root(source),
            // The text that tonic uses for a response that is HTTP but not gRPC.
            (None, Some((_, http))) => {
                format!("it answers HTTP {}", http.trim_start_matches([':', ' ']).trim_start_matches("code "))
            }
            (None, None) => status.message().to_owned(),
        };
        Unreachable::NotFlight { endpoint: link.endpoint.clone(), reason }.into()
    }
}

/// Returns whether a gRPC server sent this status. Otherwise the connection failed or the response was not gRPC, which
/// tonic reports only by its message.
fn is_answer(status: &Status) -> bool {
    let no_grpc = ["grpc-status header missing", "protocol error: "];
    std::error::Error::source(status).is_none() && !no_grpc.iter().any(|start| status.message().starts_with(start))
}

/// The rows of one result, as they arrive.
pub(crate) struct Rows {
    session: Session,
    tickets: VecDeque<Ticket>,
    current: Option<FlightRecordBatchStream>,
    schema: Option<SchemaRef>,
}

impl Rows {
    /// Returns the next batch, or `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, SqlError> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(ticket) = self.tickets.pop_front() else { return Ok(None) };
                let rows = self.session.client.do_get(ticket).await;
                self.current = Some(self.session.said(rows).await?);
                continue;
            };
            let batch = current.try_next().await;
            if self.schema.is_none() {
                self.schema = current.schema().cloned();
            }
            match self.session.said(batch).await? {
                Some(batch) => return Ok(Some(batch)),
                None => self.current = None,
            }
        }
    }

    /// Returns the schema, once a batch or the end has been read.
    pub(crate) fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }
}

/// Adds the API key to every call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn new(key: Option<&Sourced<Secret>>) -> Result<Self, SqlError> {
        let Some(Sourced { value, origin }) = key else { return Ok(Self(None)) };
        let wrong = || {
            SqlError::new(format!("{origin}: the key holds what no header can: blanks at its ends, or more than ASCII"))
        };
        let text = value.expose_text().ok().filter(|text| text.trim() == *text).ok_or_else(wrong)?;
        let mut header: MetadataValue<Ascii> = format!("Bearer {text}").parse().map_err(|_| wrong())?;
        header.set_sensitive(true);
        Ok(Self(Some(header)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}
