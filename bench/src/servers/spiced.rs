//! `spiced`, with a pod of in-memory tables.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;

use crate::Outcome;
use crate::certificate::Certificate;
use crate::figures::{ROW, SMALL_ROWS};
use crate::load::{Put, Target, once, put};
use crate::process::Process;

/// The name of the other build.
pub(crate) const AGAINST: &str = "spiced before";

/// Selects the large table in batches of 8,192 rows.
pub(crate) const LARGE: &str = "SELECT * FROM large";

/// Selects the large table in batches of 65,536 rows.
pub(crate) const WIDE: &str = "SELECT * FROM wide";

/// The table that is sent.
pub(crate) const PUT: &str = "put";

const PATIENCE: Duration = Duration::from_secs(30);

/// Eight columns of eight bytes: name, type and expression.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("a", "BIGINT", "value"),
    ("b", "BIGINT", "value * 7919 % 1000003"),
    ("c", "BIGINT", "value % 1000"),
    ("d", "BIGINT", "value * value"),
    ("e", "DOUBLE", "CAST(value AS DOUBLE) / 8.0"),
    ("f", "DOUBLE", "sqrt(CAST(value AS DOUBLE))"),
    ("g", "DOUBLE", "CAST(value % 1000 AS DOUBLE) * 0.1"),
    ("h", "DOUBLE", "CAST(-value AS DOUBLE)"),
];

/// Returns the columns' names and expressions.
pub(super) fn columns() -> impl Iterator<Item = (&'static str, &'static str)> {
    COLUMNS.iter().map(|(name, _, expression)| (*name, *expression))
}

/// A spiced process: all endpoints over TLS, or all in plain text.
pub(crate) struct Spiced {
    pub(crate) who: &'static str,
    pub(crate) tls: bool,
    pub(crate) process: Process,
    pub(crate) http: SocketAddr,
    pub(crate) flight: SocketAddr,
}

impl Spiced {
    /// Starts `program` with empty tables.
    pub(crate) fn start(who: &'static str, program: &Path, tls: Option<&Certificate>, folder: &Path) -> Outcome<Self> {
        Self::start_with(who, program, tls, &[], folder)
    }

    /// Starts `program` with additional certificates: the files of each chain and its key.
    pub(crate) fn start_with(
        who: &'static str,
        program: &Path,
        tls: Option<&Certificate>,
        more: &[(PathBuf, PathBuf)],
        folder: &Path,
    ) -> Outcome<Self> {
        let name = format!("{who}, {}", if tls.is_some() { "TLS" } else { "plain" });
        let folder = folder.join(name.replace([' ', ','], "-"));
        let pod = folder.join("spicepod.yaml");
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&pod, pod_file(tls, more)));
        written.map_err(|e| format!("{}: {e}", pod.display()))?;
        let mut command = Command::new(program);
        command.current_dir(&folder).args(["--log-format", "json"]);
        for endpoint in ["--http", "--flight", "--grpc"] {
            command.args([endpoint, "127.0.0.1:0"]);
        }
        let mut process = Process::start(name, command.arg(&folder))?;
        let (mut http, mut flight) = (None, None);
        let (http, flight) = process.wait_for(PATIENCE, |line| {
            let fields = serde_json::from_str::<Value>(line).ok()?["fields"].take();
            if fields["message"] == "listening" {
                let address = fields["address"].as_str().and_then(|address| address.parse::<SocketAddr>().ok());
                match fields["endpoint"].as_str() {
                    Some("http") => http = address,
                    Some("flight") => flight = address,
                    _ => {}
                }
            }
            if fields["message"] == "serving" { http.zip(flight) } else { None }
        })?;
        Ok(Self { who, tls: tls.is_some(), process, http, flight })
    }

    /// Waits until the server is ready.
    pub(crate) async fn ready(&self, certificate: &Certificate) -> Outcome {
        let tls = self.tls.then_some(certificate);
        let target = Target { process: &self.process, address: self.http, tls, command: "" };
        let end = Instant::now() + PATIENCE;
        while once(target, "/v1/ready", None).await?.0 != StatusCode::OK {
            if Instant::now() > end {
                return Err(format!("{} is not ready after {PATIENCE:?}", self.who));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Fills the tables: `large` and `wide` with `rows` rows each, and `small` if requested.
    pub(crate) async fn load(&self, certificate: &Certificate, rows: u64, small: bool) -> Outcome {
        self.ready(certificate).await?;
        let tls = self.tls.then_some(certificate);
        let target = Target { process: &self.process, address: self.http, tls, command: "" };
        for (table, rows) in [("large", rows), ("small", if small { SMALL_ROWS } else { 0 })] {
            if rows == 0 {
                continue;
            }
            let columns: Vec<&str> = columns().map(|(_, expression)| expression).collect();
            let insert = format!("INSERT INTO {table} SELECT {} FROM generate_series(1, {rows})", columns.join(", "));
            let (status, answer) = once(target, "/v1/sql", Some(&insert)).await?;
            if status != StatusCode::OK {
                return Err(format!("{}: {insert}: {}", self.who, answer.escape_ascii()));
            }
        }
        if rows > 0 {
            let target = Target { address: self.flight, command: "wide", ..target };
            put(target, Put::Loaded, rows * ROW).await?;
        }
        Ok(())
    }
}

fn pod_file(tls: Option<&Certificate>, more: &[(PathBuf, PathBuf)]) -> String {
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let files = |chain: &Path, key: &Path| format!("certificate_file: {}, key_file: {}", quoted(chain), quoted(key));
    let more: Vec<String> = more.iter().map(|(chain, key)| format!("{{ {} }}", files(chain, key))).collect();
    let tls = tls.map(|pair| {
        let more = if more.is_empty() { String::new() } else { format!(", certificates: [{}]", more.join(", ")) };
        format!("  tls: {{ enabled: true, {}{more} }}\n", files(&pair.chain, &pair.key))
    });
    let tls = tls.unwrap_or_default();
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, sql_type, _)| format!("{{ name: {name}, type: {sql_type}, nullable: false }}"))
        .collect();
    let datasets = ["large", "small", "wide"].map(|name| {
        format!("  - {{ from: \"memory:\", name: {name}, access: read_write, columns: [{}] }}\n", columns.join(", "))
    });
    format!(
        "version: v1\nkind: Spicepod\nname: bench\nruntime:\n{tls}  sql: {{ memory_limit: 6GiB }}\ndatasets:\n{}",
        datasets.concat()
    )
}
