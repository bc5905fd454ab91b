//! The options of `spiced sql`: the raw options and environment variables, and the options resolved from them.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use spiced_certs::outbound::{ClientTls, Trust};
use spiced_certs::{Input, Pair};
use tls_core::redact::plausible_path;
use tls_core::{Origin, Secret, Sourced};

use crate::connect::endpoint::Endpoint;
use crate::error::failure::ClientError;
use crate::print::format::Format;

/// The path of the development CA, relative to the pod's directory.
const DEVELOPMENT_CA: &str = ".spice/tls/ca.pem";

const ENDPOINT: (&str, &str) = ("--endpoint", "SPICED_SQL_ENDPOINT");
const ROOT: (&str, &str) = ("--tls-root-certificate-file", "SPICED_SQL_TLS_ROOT_CERTIFICATE_FILE");
const CERTIFICATE: (&str, &str) = ("--client-certificate-file", "SPICED_SQL_CLIENT_CERTIFICATE_FILE");
const KEY: (&str, &str) = ("--client-key-file", "SPICED_SQL_CLIENT_KEY_FILE");
const API_KEY: (&str, &str) = ("--api-key", "SPICED_SQL_API_KEY");

const AFTER: &str = "\
ENDPOINT is grpc+tls://HOST:PORT (https:// is the same), grpc://HOST:PORT (http://) for plain text, or HOST:PORT: \
then TLS is tried first, and plain text only if the server is on this machine and does not support TLS.

The server's certificate is verified against --tls-root-certificate-file, or else this system's trust store \
(SSL_CERT_FILE is respected); for a server on this machine also against .spice/tls/ca.pem in the current directory, \
if it exists.

An option that is not given is read from the environment: SPICED_SQL_ENDPOINT, SPICED_SQL_TLS_ROOT_CERTIFICATE_FILE, \
SPICED_SQL_CLIENT_CERTIFICATE_FILE, SPICED_SQL_CLIENT_KEY_FILE, SPICED_SQL_API_KEY.

Exit codes: 0 success; 1 no connection, or a statement failed; 64 usage error.";

/// `spiced sql`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER, after_help = "--help describes endpoints, trust and the environment.")]
pub struct SqlArgs {
    /// Statements to run, separated by `;`; without it, a prompt, or the statements on standard input
    query: Option<String>,
    /// Run the statements of a file
    #[arg(short, long, value_name = "PATH", conflicts_with = "query", value_parser = path())]
    file: Option<PathBuf>,
    /// The server's Flight SQL endpoint [default: localhost:50051]
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// The only CAs to trust, a PEM file [default: this system's trust store]
    #[arg(long, value_name = "PATH", value_parser = path())]
    tls_root_certificate_file: Option<PathBuf>,
    /// The certificate to present to a server that requests one, a PEM file
    #[arg(long, value_name = "PATH", value_parser = path())]
    client_certificate_file: Option<PathBuf>,
    /// That certificate's key, a PEM file
    #[arg(long, value_name = "PATH", value_parser = path())]
    client_key_file: Option<PathBuf>,
    /// The API key (others on this machine can see it in the process list; SPICED_SQL_API_KEY hides it)
    #[arg(long, value_name = "KEY", value_parser = secret)]
    api_key: Option<Secret>,
    /// How long a connection may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    connect_timeout: Duration,
    /// The format of results
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The maximum number of rows of a result that the prompt shows in a table; 0: all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_rows: usize,
}

/// The resolved options.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) input: Option<Given>,
    pub(crate) reach: Reach,
    pub(crate) format: Format,
    pub(crate) max_rows: usize,
}

/// The source of the statements, if given.
#[derive(Debug)]
pub(crate) enum Given {
    Query(String),
    File(PathBuf),
}

/// How to reach the server.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: ClientTls,
    /// Whether an option other than the endpoint's scheme asks for TLS.
    pub(crate) tls_asked: bool,
    pub(crate) api_key: Option<Sourced<Secret>>,
    pub(crate) timeout: Duration,
}

impl SqlArgs {
    /// Resolves the options. `environment` reads a variable; the second argument is the current directory.
    ///
    /// # Errors
    /// Fails if a value is invalid, or if one of two options that belong together is missing.
    pub(crate) fn decide(
        self,
        environment: impl Fn(&str) -> Option<OsString>,
        folder: &Path,
    ) -> Result<Options, ClientError> {
        let choose = |flag: Option<OsString>, (name, variable): (&str, &str)| {
            let flag = flag.map(|value| Sourced::new(value, Origin::Flag(name.to_owned())));
            // An empty variable counts as not set, as in shells and container files.
            let from = || environment(variable).filter(|value| !value.is_empty());
            flag.or_else(|| from().map(|value| Sourced::new(value, Origin::Variable(variable.to_owned()))))
        };
        let endpoint = match choose(self.endpoint.map(Into::into), ENDPOINT) {
            None => "localhost".parse().map_err(|e| usage(ENDPOINT.0, e))?,
            Some(Sourced { value, origin }) => {
                value.to_string_lossy().parse::<Endpoint>().map_err(|e| usage(origin, e))?
            }
        };
        let root = choose(self.tls_root_certificate_file.map(Into::into), ROOT);
        let certificate = choose(self.client_certificate_file.map(Into::into), CERTIFICATE);
        let key = choose(self.client_key_file.map(Into::into), KEY);
        let api_key = match self.api_key {
            Some(key) => Some(Sourced::new(key, Origin::Flag(API_KEY.0.to_owned()))),
            None => match environment(API_KEY.1).filter(|key| !key.is_empty()) {
                None => None,
                Some(key) => {
                    let origin = Origin::Variable(API_KEY.1.to_owned());
                    let key = key.into_string().map_err(|_| usage(&origin, "it is not UTF-8"))?;
                    Some(Sourced::new(Secret::from(key), origin))
                }
            },
        };

        let tls_asked = root.is_some() || certificate.is_some() || key.is_some();
        let identity = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Pair::new(file(certificate)?, file(key)?)),
            (Some(certificate), None) => {
                return Err(usage(certificate.origin, format!("its key is missing: give it with {}", KEY.0)));
            }
            (None, Some(key)) => {
                return Err(usage(key.origin, format!("its certificate is missing: give it with {}", CERTIFICATE.0)));
            }
        };
        let development = folder.join(DEVELOPMENT_CA);
        let trust = match root {
            Some(root) => Trust::only(file(root)?),
            None if endpoint.is_loopback() && development.is_file() => {
                Trust::system().and(Sourced::new(Input::File(development), Origin::Default))
            }
            None => Trust::system(),
        };
        Ok(Options {
            input: self.query.map(Given::Query).or(self.file.map(Given::File)),
            reach: Reach {
                endpoint,
                tls: ClientTls { trust, identity, ..ClientTls::default() },
                tls_asked,
                api_key,
                timeout: self.connect_timeout,
            },
            format: self.format,
            max_rows: self.max_rows,
        })
    }
}

/// Accepts a path that error messages repeat; refuses text that may be a secret.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(plausible_path)
}

/// Accepts a path from an option or a variable.
fn file(path: Sourced<OsString>) -> Result<Sourced<Input>, ClientError> {
    let Sourced { value, origin } = path;
    match plausible_path(value) {
        Ok(path) => Ok(Sourced::new(Input::File(path), origin)),
        Err(reason) => Err(usage(origin, reason)),
    }
}

fn secret(text: &str) -> Result<Secret, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(Secret::from(text)) }
}

fn duration(text: &str) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let duration = humantime::parse_duration(text)?;
    if duration.is_zero() { Err("it is longer than nothing, 10s say".into()) } else { Ok(duration) }
}

fn usage(origin: impl std::fmt::Display, reason: impl std::fmt::Display) -> ClientError {
    ClientError::Usage { origin: origin.to_string(), reason: reason.to_string() }
}
