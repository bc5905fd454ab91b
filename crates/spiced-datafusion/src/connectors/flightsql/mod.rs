//! `flightsql:` data sets: a table of another Arrow Flight SQL server. A query requests its columns, its limit, and the
//! filters that all engines interpret in the same way by SQL; the rest is done here. They are read only.

mod condition;

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_flight::Ticket;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use spiced_certs::outbound::Refusal;
use spiced_engine::{ErrorKind, Principal, Redacted, Trace};
use tls_core::Secret;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};
use tracing::{debug, warn};
use url::Url;

use self::condition::{conditions, is_plain};
use super::outbound::{MATERIAL, Material, innermost};
use super::outdated::Outdated;
use super::params::Params;
use super::remote::RemoteScan;
use crate::connectors::source::Loading;
use crate::connectors::source::{Connector, LoadError, Opened, Request, Source, quoted};
use crate::engine::start_error::SpecPart;
use crate::error::refusal;
use crate::planning::output_schema::conform;

pub(super) const CONNECTOR: Connector =
    Connector { name: "flightsql", writable: false, params: &[PARAMS, MATERIAL], open, ..Connector::READER };

/// The first three have the names of Spice.ai.
const PARAMS: &[&str] =
    &["flightsql_endpoint", "flightsql_username", "flightsql_password", "flightsql_token", "flightsql_pushdown"];

/// The timeout from the first packet to the end of the handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The maximum size of a message.
const MAX_MESSAGE: usize = 64 << 20;

/// The maximum size of all results that have not been read yet, in bytes.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// The default port of Flight SQL, unless the endpoint names one.
const PORT: u16 = 50051;

fn open(request: Request<'_>) -> Opened {
    let mut params = Params::of(request.spec);
    if request.rest.is_empty() {
        params.wrong.push(SpecPart::From.error("no table stands after `flightsql:`; write `flightsql:schema.table`"));
    }
    let relation = TableReference::parse_str(request.rest);
    let endpoint = params.read("flightsql_endpoint", "`grpc+tls://HOST:PORT`, or `grpc://` for plain text", place);
    if endpoint.is_none() && params.given("flightsql_endpoint").is_none() {
        params.refuse("`flightsql_endpoint` is missing");
    }
    let material = Material::read(&mut params);
    let (user, token) = (params.text("flightsql_username"), params.given("flightsql_token").cloned());
    let credentials = match (user, params.given("flightsql_password").cloned(), token) {
        (Some(user), Some(password), None) => Credentials::Basic(user, password),
        (None, None, Some(token)) => Credentials::Bearer(token),
        (None, None, None) => Credentials::None,
        _ => {
            params.refuse("a password belongs to `flightsql_username`, and both exclude `flightsql_token`");
            Credentials::None
        }
    };
    let filters = params.read("flightsql_pushdown", "one of filters, columns", |word| match word {
        "filters" => Some(true),
        "columns" => Some(false),
        _ => None,
    });
    let filters = filters.unwrap_or(true);
    match endpoint {
        Some(endpoint) if params.wrong.is_empty() => {
            if !endpoint.tls && !matches!(credentials, Credentials::None) && !endpoint.is_loopback() {
                params.refuse("credentials would travel in plain text; use grpc+tls://");
                return Err(params.wrong);
            }
            let (server, changed) = (Server { endpoint, material, credentials }, Arc::default());
            Ok(Arc::new(Peer { server, relation, filters, changed }))
        }
        _ => Err(params.wrong),
    }
}

/// The address of a server.
#[derive(Debug, Clone)]
struct Place {
    host: String,
    port: u16,
    tls: bool,
}

impl Place {
    fn is_loopback(&self) -> bool {
        let address = self.host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

fn place(text: &str) -> Option<Place> {
    let url = Url::parse(text).ok()?;
    let tls = match url.scheme() {
        "grpc+tls" | "grpcs" | "https" => true,
        "grpc" | "grpc+tcp" | "http" => false,
        _ => return None,
    };
    let host = url.host_str().filter(|host| !host.is_empty())?.to_owned();
    let bare = url.username().is_empty() && url.password().is_none() && matches!(url.path(), "" | "/");
    bare.then(|| Place { host, port: url.port().unwrap_or(PORT), tls })
}

/// The credentials for the server.
#[derive(Debug, Clone)]
enum Credentials {
    None,
    Basic(String, Secret),
    Bearer(Secret),
}

/// A server, and how to connect to it.
#[derive(Debug, Clone)]
struct Server {
    endpoint: Place,
    material: Material,
    credentials: Credentials,
}

/// A table of a server.
struct Peer {
    server: Server,
    relation: TableReference,
    /// Whether filters are pushed down.
    filters: bool,
    /// Notified when the table has changed.
    changed: Arc<Notify>,
}

impl Source for Peer {
    fn outdated(&self) -> BoxFuture<'_, ()> {
        async move {
            self.changed.notified().await;
        }
        .boxed()
    }

    fn load<'a>(&'a self, _: &'a SessionState) -> Loading<'a> {
        Box::pin(async move {
            let (server, relation) = (Arc::new(self.server.clone()), self.relation.to_quoted_string());
            let connection = server.connect().await?;
            let sql = format!("SELECT * FROM {relation} LIMIT 0");
            let schema = Arc::new(Schema::new(server.columns(connection.clone(), &sql).await?.fields));
            if schema.fields().is_empty() {
                return Err(server.trouble(&format!("{relation} has no columns")).into());
            }
            Ok(Arc::new(PeerTable {
                server,
                connection,
                relation,
                schema,
                filters: self.filters,
                was_refused: Arc::default(),
                outdated: Outdated::new(self.changed.clone()),
            }) as Arc<dyn TableProvider>)
        })
    }
}

impl Server {
    fn trouble(&self, why: &str) -> String {
        format!("Flight SQL at {}:{}: {}", self.endpoint.host, self.endpoint.port, why.trim_end())
    }

    /// Opens a connection. It reconnects if it breaks, each time with the current certificates.
    async fn connect(self: &Arc<Self>) -> Result<Channel, LoadError> {
        let server = self.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let server = server.clone();
            async move { server.open_channel().await.map(TokioIo::new) }
        });
        let Place { host, port, .. } = &self.endpoint;
        let endpoint =
            Endpoint::from_shared(format!("http://{host}:{port}")).map_err(|e| self.trouble(&e.to_string()))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_WITHIN)
            // A slow reader must leave room for other queries of the same table.
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_while_idle(true);
        endpoint
            .connect_with_connector(dial)
            .await
            .map_err(|error| LoadError::caused(self.trouble(&innermost(&error)), error))
    }

    async fn open_channel(&self) -> std::io::Result<BoxedIo> {
        let Place { host, port, tls } = &self.endpoint;
        let bare = host.trim_matches(['[', ']']);
        let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((bare, *port))).await;
        let tcp = connected.map_err(|_| std::io::Error::other(format!("no answer within {CONNECT_WITHIN:?}")))??;
        tcp.set_nodelay(true)?;
        if !tls {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(std::io::Error::other)?;
        let (config, observer) = self
            .material
            .tls()
            .observed(&["h2"])
            .map_err(|error| std::io::Error::other(format!("{error}: {}", error.hint())))?;
        let handshake = tokio::time::timeout(CONNECT_WITHIN, TlsConnector::from(config).connect(name, tcp)).await;
        let handshake = handshake.map_err(|_| std::io::Error::other("the TLS handshake took too long"))?;
        let stream = handshake.map_err(|error| std::io::Error::other(Refusal::of_io(&error, &observer)))?;
        Ok(Box::new(stream))
    }

    /// Starts a query.
    async fn query(&self, connection: Channel, sql: &str, trace: Option<Trace>) -> Result<Answer, Failure> {
        let said = |error: FlightError| Failure::of(&error, |why| self.trouble(why), &REFUSALS);
        let began =
            |error: FlightError| Failure::of(&error, |why| self.trouble(why), &[&REFUSALS[..], &UNSAID].concat());
        let inner = FlightServiceClient::new(connection).max_decoding_message_size(MAX_MESSAGE);
        let mut client = FlightSqlServiceClient::new_from_inner(inner);
        let other = |why: &str| Failure { why: self.trouble(why), is_refusal: false };
        let not_text = |_| other("the credentials are not UTF-8");
        match &self.credentials {
            Credentials::None => {}
            Credentials::Bearer(token) => client.set_token(token.expose_text().map_err(not_text)?.trim().to_owned()),
            Credentials::Basic(user, password) => {
                client.handshake(user, password.expose_text().map_err(not_text)?).await.map_err(said)?;
            }
        }
        if let Some(trace) = trace {
            client.set_header("traceparent", trace.to_string());
            if let Some(state) = trace.state() {
                client.set_header("tracestate", state);
            }
        }
        let info = client.execute(sql.to_owned(), None).await.map_err(began)?;
        let announced = info.clone().try_decode_schema().ok().filter(|schema| !schema.fields().is_empty());
        let mut tickets = Vec::new();
        for endpoint in info.endpoint {
            if !endpoint.location.is_empty()
                && !endpoint.location.iter().any(|at| at.uri.starts_with("arrow-flight-reuse"))
            {
                return Err(other("it gives its answers elsewhere, which is not followed"));
            }
            tickets.push(endpoint.ticket.ok_or_else(|| other("an answer has no ticket"))?);
        }
        Ok(Answer { client, announced, tickets })
    }

    /// Returns the schema of the result of a statement that returns no rows.
    async fn columns(&self, connection: Channel, sql: &str) -> Result<Schema, LoadError> {
        let Answer { mut client, announced, tickets } =
            self.query(connection, sql, None).await.map_err(|failure| failure.why)?;
        if let Some(schema) = announced {
            return Ok(schema);
        }
        // The schema is known only from the result itself.
        let Some(ticket) = tickets.into_iter().next() else { return Ok(Schema::empty()) };
        let said = |error: FlightError| self.trouble(&words(&error));
        let mut answer = client.do_get(ticket).await.map_err(said)?;
        while answer.try_next().await.map_err(said)?.is_some() {}
        Ok(answer.schema().map(|schema| Schema::clone(schema)).unwrap_or_else(Schema::empty))
    }

    /// Returns the rows of a table: those that match the filters, or all rows if the remote engine rejects the filters
    /// (text here may be another type there, which is comparable with fewer values).
    async fn rows(&self, asked: &Asked, connection: &Channel) -> Result<Batches, LoadError> {
        let begun = async |sql: &str| {
            let answer = self.query(connection.clone(), sql, asked.trace.clone()).await?;
            // Some servers check a statement only when its rows are fetched.
            let mut batches = answer.batches(self.trouble("")).peekable();
            match Pin::new(&mut batches).next_if(Result::is_err).await {
                Some(Err(failure)) => Err(failure),
                _ => Ok(batches.boxed()),
            }
        };
        if let Some(sql) = &asked.filtered {
            match begun(sql).await {
                Err(Failure { why, is_refusal: true }) => {
                    // Both contain constants of the caller.
                    let kept = Redacted::of(sql);
                    debug!(sql = %kept.text, why = kept.message(&why), "a statement is refused for its filters");
                    if !asked.was_refused.swap(true, Ordering::Relaxed) {
                        let refused = self.trouble("it refuses a statement with filters, and is asked again without");
                        warn!(
                            plain = asked.plain,
                            "{refused}; with `flightsql_pushdown: columns` it is asked for none"
                        );
                    }
                }
                other => return other.map_err(|failure| failure.why.into()),
            }
        }
        begun(&asked.plain).await.map_err(|failure| failure.why.into())
    }
}

/// The response of a server to a query.
struct Answer {
    client: FlightSqlServiceClient<Channel>,
    /// The schema, if the server announces it in advance.
    announced: Option<Schema>,
    /// The tickets of the parts.
    tickets: Vec<Ticket>,
}

impl Answer {
    /// Returns the rows, part by part: a part that has not been requested uses none of the connection's window.
    fn batches(self, server: String) -> Batches {
        let Self { client, tickets, .. } = self;
        let parts = futures::stream::iter(tickets).then(move |ticket| {
            let mut client = client.clone();
            async move { client.do_get(ticket).await }
        });
        let failed = move |error: FlightError| Failure::of(&error, |why| format!("{server} {why}"), &REFUSALS);
        parts.try_flatten().map_err(failed).boxed()
    }
}

type Batches = BoxStream<'static, Result<RecordBatch, Failure>>;

/// The cause of an error before or during the transfer of rows.
#[derive(Debug)]
struct Failure {
    why: String,
    /// Whether the server may accept a different statement.
    is_refusal: bool,
}

/// Codes for a statement that the server does not understand, or that names something that does not exist.
const REFUSALS: [Code; 5] =
    [Code::InvalidArgument, Code::Unimplemented, Code::FailedPrecondition, Code::NotFound, Code::OutOfRange];
/// Unspecific codes: before a statement has started, they count as a refusal of it.
const UNSAID: [Code; 2] = [Code::Internal, Code::Unknown];

impl Failure {
    /// A broken connection has a cause, whatever its code, and is not a refusal.
    fn of(error: &FlightError, trouble: impl FnOnce(&str) -> String, refusals: &[Code]) -> Self {
        let is_refusal = matches!(
            error,
            FlightError::Tonic(status) if status.source().is_none() && refusals.contains(&status.code())
        );
        Self { why: trouble(&words(error)), is_refusal }
    }
}

/// The transport of a connection.
type BoxedIo = Box<dyn Wire>;

trait Wire: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Wire for T {}

/// Returns the server's message, or the cause if the server sent none.
fn words(error: &FlightError) -> String {
    match error {
        FlightError::Tonic(status) => innermost(status.as_ref()),
        other => innermost(other),
    }
}

#[derive(Debug)]
struct PeerTable {
    server: Arc<Server>,
    connection: Channel,
    relation: String,
    schema: SchemaRef,
    filters: bool,
    was_refused: Arc<AtomicBool>,
    outdated: Outdated,
}

impl PeerTable {
    /// Plans a scan.
    fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        // Counting rows requires a column as well.
        let asked = if columns.is_empty() { vec![0] } else { columns };
        let names = asked.iter().map(|at| quoted(self.schema.field(*at).name()));
        let from = format!("SELECT {} FROM {}", names.collect::<Vec<_>>().join(", "), self.relation);
        let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        // The filters are evaluated again here: if the optimizer has since rewritten one into a form that cannot be
        // pushed down, the only cost is the transfer of unneeded rows.
        let filtered = conditions(filters, &self.schema).map(|all| format!("{from} WHERE {all}{limit}"));
        let caller = state.config().get_extension::<Principal>();
        let trace = caller.and_then(|caller| caller.way().trace.clone());
        let scan = Scan {
            server: self.server.clone(),
            connection: self.connection.clone(),
            asked: Asked { filtered, plain: from + &limit, trace, was_refused: self.was_refused.clone() },
            read: Arc::new(self.schema.project(&asked)?),
            schema,
            outdated: self.outdated.clone(),
        };
        Ok(RemoteScan::plan(scan))
    }
}

#[async_trait]
impl TableProvider for PeerTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.filters && is_plain(filter, &self.schema) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    // No `async fn`: see `crate::proven`.
    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'f, Result<Arc<dyn ExecutionPlan>>>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
    {
        Box::pin(std::future::ready(self.plan(state, projection, filters, limit)))
    }
}

/// A scan by one statement.
struct Scan {
    server: Arc<Server>,
    connection: Channel,
    asked: Asked,
    /// The requested columns.
    read: SchemaRef,
    /// The resulting columns.
    schema: SchemaRef,
    outdated: Outdated,
}

/// The statements to send.
#[derive(Clone)]
struct Asked {
    /// The statement with filters, if there are any.
    filtered: Option<String>,
    /// The statement without filters.
    plain: String,
    trace: Option<Trace>,
    /// Whether a statement with filters was refused before, for the same table.
    was_refused: Arc<AtomicBool>,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flight SQL: {}", self.asked.filtered.as_ref().unwrap_or(&self.asked.plain))
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (server, connection) = (self.server.clone(), self.connection.clone());
        let (asked, read, wanted) = (self.asked.clone(), self.read.clone(), self.schema.clone());
        let outdated = self.outdated.clone();
        let unavailable = |why: String| -> DataFusionError { refusal(ErrorKind::Unavailable, why) };
        let batches = async move {
            let batches = server.rows(&asked, &connection).await.map_err(|error| unavailable(error.to_string()))?;
            let columns: Vec<usize> = (0..wanted.fields().len()).collect();
            Ok::<_, DataFusionError>(batches.map(move |batch| {
                let batch = batch.map_err(|failure| unavailable(failure.why))?;
                if batch.num_columns() != read.fields().len() {
                    return Err(unavailable(server.trouble("an answer has other columns than were asked for")));
                }
                if let Some(changed) = changed(&batch.schema(), &read) {
                    outdated.notify();
                    return Err(unavailable(server.trouble(&changed)));
                }
                Ok(conform(batch, &read)?.project(&columns)?)
            }))
        };
        let stream = futures::stream::once(batches).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

/// Returns how the columns that arrive differ from those announced when the data set was loaded.
fn changed(given: &Schema, wanted: &Schema) -> Option<String> {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_bytes =
        |data_type: &DataType| matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    fn values(data_type: &DataType) -> &DataType {
        match data_type {
            DataType::Dictionary(_, values) => values,
            other => other,
        }
    }
    let differs = |(given, wanted): (&DataType, &DataType)| {
        !(given.equals_datatype(wanted) || is_text(given) && is_text(wanted) || is_bytes(given) && is_bytes(wanted))
    };
    given.fields().iter().zip(wanted.fields()).find_map(|(given, wanted)| {
        differs((values(given.data_type()), values(wanted.data_type()))).then(|| {
            format!(
                "the column `{}` is {} now, and was {} when the data set was loaded; it is being loaded again, so send the \
                 statement again",
                wanted.name(),
                given.data_type(),
                wanted.data_type()
            )
        })
    })
}
