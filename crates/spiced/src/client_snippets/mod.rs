//! Snippets that connect each client: lines to paste, with the endpoints' addresses and the CA to trust filled in.
//! `spiced connect` and the banner print them.

mod lines;
pub(crate) mod shell_quote;
mod target;

pub(crate) use lines::{curl, curl_get, sql};
pub(crate) use target::{EndpointUrl, Target, Trust};

/// A client and its snippet.
pub(crate) struct Client {
    /// Its name for `spiced connect NAME`.
    pub(crate) name: &'static str,
    /// A description, and what to install.
    pub(crate) about: &'static str,
    /// Returns shell lines or a file, ending in a newline.
    pub(crate) lines: fn(&Target) -> String,
}

/// All known clients.
pub(crate) const CLIENTS: &[Client] = &[
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
pub(crate) fn find(name: &str) -> Option<&'static Client> {
    CLIENTS.iter().find(|client| client.name == name)
}
