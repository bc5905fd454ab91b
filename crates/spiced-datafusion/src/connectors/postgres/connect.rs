//! Connections to a PostgreSQL server: address, credentials, certificate verification, and the connection pool.
//! Certificates are read again for each new connection, so a renewed one needs no restart.

use std::sync::Arc;
use std::time::Duration;

use datafusion::error::DataFusionError;
use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult, Timeouts};
use rustls_pki_types::ServerName;
use spiced_certs::outbound::{ClientTls, HandshakeObserver, Refusal, Verify};
use spiced_engine::ErrorKind;
use tls_core::Secret;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::outbound::Material;
use crate::DatasetSpec;
use crate::connectors::source::text;
use crate::engine::start_error::{SpecError, SpecPart};
use crate::error::{refusal, without_values};

pub(super) const PARAMS: &[&str] = &[
    "pg_host",
    "pg_port",
    "pg_db",
    "pg_user",
    "pg_pass",
    "pg_sslmode",
    "pg_sslrootcert",
    "pg_sslcert",
    "pg_sslkey",
    "connection_pool_size",
    "pg_pushdown",
    "pg_options",
];

/// The default number of connections of a data set.
const CONNECTIONS: usize = 5;
const MAX_CONNECTIONS: usize = 100;
/// The timeout from the first packet to the end of the login, and for a query that waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The meaning of generated statements and texts must not depend on the defaults of a role or database: a backslash in
/// a literal is an ordinary character, a time without a zone is UTC, and no digit of a number is omitted.
const SESSION: [(&str, &str); 5] = [
    ("standard_conforming_strings", "on"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
];
/// Set if no statement may write.
const READ_ONLY: (&str, &str) = ("default_transaction_read_only", "on");

/// How the session settings are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settings {
    /// In the `options` of the start-up packet.
    AtStart,
    /// By `SET` after the session has started: connection poolers (PgBouncer, Odyssey) refuse `options`.
    BySet,
}

/// The modes of libpq (PostgreSQL, "SSL Support", table 34.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: [(&str, Mode); 5] = [
    ("disable", Mode::Disable),
    ("prefer", Mode::Prefer),
    ("require", Mode::Require),
    ("verify-ca", Mode::VerifyCa),
    ("verify-full", Mode::VerifyFull),
];

/// The connection settings of the pod.
#[derive(Debug, Clone)]
pub(super) struct Params {
    host: String,
    port: u16,
    database: String,
    user: String,
    password: Option<Secret>,
    mode: Mode,
    material: Material,
    connections: usize,
    /// Whether joins, aggregates and sorts are pushed down to the server.
    whole_queries: bool,
    settings: Settings,
}

impl Params {
    /// Reads the params of `spec`; adds every error to `wrong`.
    pub(super) fn read(spec: &DatasetSpec, wrong: &mut Vec<SpecError>) -> Option<Self> {
        let mut get = |name: &str| match spec.params.get(name).map(|value| text(name, value)) {
            Some(Ok(value)) if value.trim().is_empty() => {
                wrong.push(SpecPart::Params.error(format!("`{name}` is empty")));
                None
            }
            Some(Ok(value)) => Some(value.trim().to_owned()),
            Some(Err(why)) => {
                wrong.push(why);
                None
            }
            None => None,
        };
        let host = get("pg_host").unwrap_or_else(|| "localhost".to_owned());
        let (port, database, user) = (get("pg_port"), get("pg_db"), get("pg_user"));
        let (mode, authority) = (get("pg_sslmode"), get("pg_sslrootcert"));
        let (certificate, key, size) = (get("pg_sslcert"), get("pg_sslkey"), get("connection_pool_size"));
        let pushdown = get("pg_pushdown");
        // An empty value means `none`.
        let options = spec.params.get("pg_options").map(|value| text("pg_options", value));
        // Blanks may be part of it.
        let password = spec.params.get("pg_pass").cloned();
        for (name, given) in [("pg_db", &database), ("pg_user", &user)] {
            if given.is_none() && !spec.params.contains_key(name) {
                wrong.push(SpecPart::Params.error(format!("`{name}` is missing")));
            }
        }
        let port = match port.as_deref().map(str::parse) {
            Some(Err(_)) => {
                wrong.push(SpecPart::Params.error("`pg_port` wants a port, such as 5432"));
                None
            }
            Some(Ok(port)) => Some(port),
            None => Some(5432),
        };
        let mode = match mode.as_deref() {
            None => Some(Mode::VerifyFull),
            Some(word) => {
                let found = MODES.iter().find(|(name, _)| *name == word).map(|(_, mode)| *mode);
                if found.is_none() {
                    let known = MODES.map(|(name, _)| name).join(", ");
                    wrong.push(SpecPart::Params.error(format!("`pg_sslmode` wants one of {known}")));
                }
                found
            }
        };
        let files = [authority, certificate, key].map(|path| path.map(|path| spec.folder.join(path)));
        let material = Material::new(["pg_sslrootcert", "pg_sslcert", "pg_sslkey"], files, wrong);
        let mode = match mode {
            // The rule of libpq "for backward compatibility": if a CA is named, it is verified.
            Some(Mode::Require) if material.has_authority() => Some(Mode::VerifyCa),
            mode => mode,
        };
        if mode == Some(Mode::Disable) && material.is_of_files() {
            wrong.push(SpecPart::Params.error("certificates are given, and `pg_sslmode: disable` uses none"));
        }
        let connections = match size.as_deref().map(str::parse::<usize>) {
            None => Some(CONNECTIONS),
            Some(Ok(size)) if (1..=MAX_CONNECTIONS).contains(&size) => Some(size),
            Some(_) => {
                wrong.push(
                    SpecPart::Params
                        .error(format!("`connection_pool_size` wants a number from 1 to {MAX_CONNECTIONS}")),
                );
                None
            }
        };
        let whole_queries = match pushdown.as_deref() {
            None | Some("queries") => Some(true),
            Some("filters") => Some(false),
            Some(_) => {
                wrong.push(SpecPart::Params.error("`pg_pushdown` wants one of queries, filters"));
                None
            }
        };
        let settings = match options {
            None => Some(Settings::AtStart),
            Some(Ok(word)) => match word.trim() {
                "startup" => Some(Settings::AtStart),
                "" | "none" => Some(Settings::BySet),
                _ => {
                    wrong.push(SpecPart::Params.error(
                        "`pg_options` wants one of startup, none (for connection poolers: nothing is sent with the \
                         start-up packet, and settings are made by SET)",
                    ));
                    None
                }
            },
            Some(Err(why)) => {
                wrong.push(why);
                None
            }
        };
        let (port, mode, connections, whole_queries) = (port?, mode?, connections?, whole_queries?);
        let (database, user, settings) = (database?, user?, settings?);
        Some(Self { host, port, database, user, password, mode, material, connections, whole_queries, settings })
    }

    /// Returns the server, the user and the security settings, for comparison.
    fn way(&self) -> impl PartialEq {
        let Self { host, port, database, user, password, mode, material, .. } = self;
        (host, port, database, user, password.as_ref().map(Secret::expose), mode, material)
    }
}

/// An error of a connection or a query: a phrase without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Trouble {
    message: String,
    kind: ErrorKind,
}

impl Trouble {
    pub(super) fn unavailable(message: String) -> Self {
        Self { message, kind: ErrorKind::Unavailable }
    }

    /// Creates the error for a message from `whom`, or for a failed connection to it.
    fn of(whom: &str, error: &tokio_postgres::Error, observer: Option<&HandshakeObserver>) -> Self {
        let kind = match error.as_db_error().map(|said| said.code()) {
            Some(&SqlState::QUERY_CANCELED) => ErrorKind::Timeout,
            Some(&SqlState::LOCK_NOT_AVAILABLE) => ErrorKind::Unavailable,
            // Connection exceptions, transaction rollbacks, insufficient resources, operator intervention and system
            // errors; nor is failed authentication the fault of a statement (PostgreSQL, "Error Codes").
            Some(code) if !["08", "28", "40", "53", "57", "58"].contains(&&code.code()[..2]) => {
                ErrorKind::InvalidStatement
            }
            _ => ErrorKind::Unavailable,
        };
        Self { message: format!("{whom}: {}", told(error, observer)), kind }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::of("PostgreSQL", &error, None)
    }
}

/// The error for the caller: it has the server's message, which is about the caller's statement.
impl From<Trouble> for DataFusionError {
    fn from(trouble: Trouble) -> Self {
        refusal(trouble.kind, trouble.message)
    }
}

/// The connections of a data set. Clones are cheap.
#[derive(Debug, Clone)]
pub(super) struct Pool(managed::Pool<Server>);

/// A connection borrowed from the pool.
pub(super) type Loan = Object<Server>;

impl Pool {
    /// Creates the pool, which connects on first use. Unless the data set is `writable`, no statement can write.
    pub(super) fn new(params: Params, writable: bool) -> Self {
        let size = params.connections;
        let timeouts =
            Timeouts { wait: Some(CONNECT_TIMEOUT), create: Some(CONNECT_TIMEOUT), recycle: Some(CONNECT_TIMEOUT) };
        let pool = managed::Pool::builder(Server { params, writable })
            .max_size(size)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a runtime is named, which the time-outs need");
        Self(pool)
    }

    /// Returns a connection. Must be called within a runtime.
    pub(super) async fn get(&self) -> Result<Loan, Trouble> {
        let Params { host, port, .. } = &self.0.manager().params;
        self.0.get().await.map_err(|error| match error {
            PoolError::Backend(trouble) => trouble,
            PoolError::Timeout(managed::TimeoutType::Wait) => Trouble::unavailable(format!(
                "no connection to PostgreSQL at {host}:{port} was free within {CONNECT_TIMEOUT:?}"
            )),
            PoolError::Timeout(_) => {
                Trouble::unavailable(format!("PostgreSQL at {host}:{port} did not answer within {CONNECT_TIMEOUT:?}"))
            }
            other => Trouble::unavailable(format!("no connection to PostgreSQL at {host}:{port}: {other}")),
        })
    }

    /// Whether joins, aggregates and sorts are pushed down to the server.
    pub(super) fn takes_whole_queries(&self) -> bool {
        self.0.manager().params.whole_queries
    }

    /// Whether both pools use the same server with the same settings and user, so that both may read the same tables.
    pub(super) fn is_of_one_server(&self, other: &Self) -> bool {
        self.0.manager().params.way() == other.0.manager().params.way()
    }

    /// Cancels the query of a connection over a separate connection, as PostgreSQL requires.
    pub(super) async fn cancel(&self, token: CancelToken) {
        let server = self.0.manager();
        // If the cancel request fails, closing the connection ends the query a little later.
        let _ = match server.tls() {
            Ok(Some((tls, _))) => token.cancel_query(tls).await,
            Ok(None) => token.cancel_query(NoTls).await,
            Err(_) => return,
        };
    }
}

/// A connection that runs a statement. If it is dropped before the statement ends, it cancels the statement on the
/// server and is not returned to the pool, because the rest of the result or transaction is still pending.
pub(super) struct Busy {
    loan: Option<Loan>,
    pool: Pool,
}

impl Busy {
    pub(super) async fn new(pool: Pool) -> Result<Self, Trouble> {
        Ok(Self { loan: Some(pool.get().await?), pool })
    }

    /// Returns the connection, or `None` once the statement has ended.
    pub(super) fn client(&self) -> Option<&Client> {
        self.loan.as_deref()
    }

    /// Marks the statement as ended.
    pub(super) fn over(&mut self) {
        self.loan = None;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Some(loan) = self.loan.take() else { return };
        let client = Loan::take(loan);
        let (pool, token) = (self.pool.clone(), client.cancel_token());
        drop(client);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { pool.cancel(token).await });
        }
    }
}

/// Opens connections to one server.
#[derive(Debug)]
pub(super) struct Server {
    params: Params,
    writable: bool,
}

impl managed::Manager for Server {
    type Type = Client;
    type Error = Trouble;

    async fn create(&self) -> Result<Client, Trouble> {
        let Params { host, port, database, user, password, mode, .. } = &self.params;
        let mut config = Config::new();
        config.host(host).port(*port).dbname(database).user(user).application_name("spiced");
        config.connect_timeout(CONNECT_TIMEOUT).keepalives_idle(Duration::from_secs(60));
        let read_only = (!self.writable).then_some(READ_ONLY);
        let session = SESSION.iter().copied().chain(read_only);
        if self.params.settings == Settings::AtStart {
            let options: Vec<String> = session.clone().map(|(name, value)| format!("-c {name}={value}")).collect();
            config.options(options.join(" "));
        }
        if let Some(password) = password {
            config.password(password.expose());
        }
        config.ssl_mode(match mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        let said = |error: tokio_postgres::Error, observer: Option<&HandshakeObserver>| {
            Trouble::of(&format!("PostgreSQL at {host}:{port}"), &error, observer)
        };
        let client = match self.tls()? {
            Some((tls, observer)) => {
                let (client, connection) = config.connect(tls).await.map_err(|e| said(e, Some(&observer)))?;
                drive(connection);
                client
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(|e| said(e, None))?;
                drive(connection);
                client
            }
        };
        if self.params.settings == Settings::BySet {
            let set: Vec<String> = session.map(|(name, value)| format!("SET {name} TO '{value}'")).collect();
            client.batch_execute(&set.join("; ")).await.map_err(|e| said(e, None))?;
        }
        Ok(client)
    }

    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<Trouble> {
        match client.is_closed() {
            true => Err(RecycleError::message("the server has closed it")),
            false => Ok(()),
        }
    }
}

/// Drives a connection, which lives as long as its client.
fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to PostgreSQL ended");
        }
    });
}

impl Server {
    /// Returns the current TLS configuration, or `None` if TLS is disabled. Reads the certificates.
    fn tls(&self) -> Result<Option<(MakeRustlsConnect, HandshakeObserver)>, Trouble> {
        let Params { host, mode, material, .. } = &self.params;
        let verify = match mode {
            Mode::Disable => return Ok(None),
            Mode::Prefer | Mode::Require => Verify::Nothing,
            Mode::VerifyCa => Verify::Chain,
            Mode::VerifyFull => Verify::Name,
        };
        if verify == Verify::Name && ServerName::try_from(host.as_str()).is_err() {
            return Err(Trouble::unavailable(format!("`{host}` is no name that a certificate can be for")));
        }
        let tls = ClientTls { verify, ..material.tls() };
        let (config, observer) =
            tls.observed(&[]).map_err(|error| Trouble::unavailable(format!("{error}: {}", error.hint())))?;
        Ok(Some((MakeRustlsConnect::new(Arc::unwrap_or_clone(config)), observer)))
    }
}

/// Returns the message of an error: that of the server if it responded, or the cause of a failed handshake.
fn told(error: &tokio_postgres::Error, observer: Option<&HandshakeObserver>) -> String {
    if let Some(said) = error.as_db_error() {
        let code = said.code().code();
        // Messages of class 22, data exceptions, contain the value, which may come from a row.
        let message = match code.starts_with("22") {
            true => without_values(said.message()),
            false => said.message().to_owned(),
        };
        return format!("{message} (SQLSTATE {code})");
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return match observer {
                Some(observer) if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                    Refusal::of_io(io, observer).to_string()
                }
                _ => io.to_string(),
            };
        }
        cause = inner.source();
    }
    std::error::Error::source(error).map_or_else(|| error.to_string(), |inner| format!("{error}: {inner}"))
}
