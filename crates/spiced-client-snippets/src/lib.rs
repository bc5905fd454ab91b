//! Snippets that connect each client: lines to paste, with the endpoints' addresses and the CA to trust filled in.
//! `spiced connect` and the banner print them.
//!
//! A [`Target`] says what clients need to know of the server; each of [`CLIENTS`] turns it into lines. Deliberately
//! absent: the pod, and any I/O.
//!
//! ```
//! use spiced_client_snippets::{EndpointUrl, Target, Trust, find};
//!
//! let endpoint = |port| EndpointUrl { host: "localhost".to_owned(), port, loopback: true };
//! let target = Target {
//!     http: endpoint(3000),
//!     flight: endpoint(50051),
//!     grpc: endpoint(50052),
//!     metrics: None,
//!     probe: None,
//!     trust: Some(Trust::File("ca.pem".into())),
//!     query: "SELECT 1".to_owned(),
//!     key: false,
//!     metrics_key: false,
//!     certificate: false,
//! };
//! let lines = (find("curl").unwrap().lines)(&target);
//! assert_eq!(lines, "curl --cacert ca.pem https://localhost:3000/v1/sql -H 'Accept: text/plain' -d 'SELECT 1'\n");
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod lines;
mod shell_quote;
mod target;

pub use lines::{curl, curl_get, sql};
pub use shell_quote::quoted;
pub use target::{EndpointUrl, Target, Trust};

/// A client and its snippet.
#[derive(Debug)]
pub struct Client {
    /// Its name for `spiced connect NAME`.
    pub name: &'static str,
    /// A description, and what to install.
    pub about: &'static str,
    /// Returns shell lines or a file, ending in a newline.
    pub lines: fn(&Target) -> String,
}

/// All known clients.
pub const CLIENTS: &[Client] = &[
    Client { name: "curl", about: "SQL over HTTP", lines: lines::curl },
    Client { name: "sql", about: "the prompt of spiced itself, over Flight SQL", lines: lines::sql },
    Client { name: "openssl", about: "what the server presents", lines: lines::openssl },
    Client { name: "pyarrow", about: "Python: pip install pyarrow", lines: lines::pyarrow },
    Client { name: "adbc", about: "Python: pip install adbc-driver-flightsql pyarrow", lines: lines::adbc },
    Client { name: "polars", about: "Python: pip install polars adbc-driver-flightsql pyarrow", lines: lines::polars },
    Client { name: "grpc", about: "Python: pip install grpcio grpcio-health-checking", lines: lines::grpc },
    Client { name: "go", about: "Go, with google.golang.org/grpc", lines: lines::go },
    Client { name: "node", about: "Node.js: npm install @spiceai/spice", lines: lines::node },
    Client { name: "jdbc", about: "the URL for org.apache.arrow:flight-sql-jdbc-driver", lines: lines::jdbc },
    Client { name: "prometheus", about: "for prometheus.yml", lines: lines::prometheus },
    Client { name: "kubernetes-probe", about: "for a container in a Deployment", lines: lines::kubernetes_probe },
];

/// Returns the client called `name`.
pub fn find(name: &str) -> Option<&'static Client> {
    CLIENTS.iter().find(|client| client.name == name)
}
