//! A pyarrow Flight server (C++ behind a few lines of Python) with the same table as spiced.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Outcome;
use crate::certificate::Certificate;
use crate::process::Process;
use crate::servers::spiced::LARGE;

/// The rows of its batches, which are also the names of its tables.
const BATCHES: [&str; 2] = ["8192", "65536"];

/// Returns the name of the table with batches of this many rows.
pub(crate) fn rows(batch: usize) -> &'static str {
    BATCHES[usize::from(batch > 8_192)]
}

/// Includes the time to read the large table.
const PATIENCE: Duration = Duration::from_secs(120);

/// A single process that has an endpoint with TLS and one without.
pub(crate) struct Pyarrow {
    pub(crate) process: Process,
    pub(crate) version: String,
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Pyarrow {
    /// Starts it with the table of the spiced at `source`.
    pub(crate) fn start(python: &Path, source: SocketAddr, certificate: &Certificate, folder: &Path) -> Outcome<Self> {
        let script = folder.join("flight_server.py");
        fs::write(&script, include_str!("../../peers/flight_server.py"))
            .map_err(|e| format!("{}: {e}", script.display()))?;
        let mut command = Command::new(python);
        command.arg(&script).args(["--source", &format!("grpc://{source}"), "--query", LARGE, "--rows"]);
        command.args(BATCHES);
        command.arg("--certificate").arg(&certificate.chain).arg("--key").arg(&certificate.key);
        let mut process = Process::start("pyarrow", &mut command)?;
        let mut version = String::new();
        let (plain, tls) = process.wait_for(PATIENCE, |line| {
            if line.starts_with("pyarrow ") {
                version = line.to_owned();
            }
            let (plain, tls) = line.strip_prefix("serving ")?.split_once(' ')?;
            let at = |port: &str| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?)));
            at(plain).zip(at(tls))
        })?;
        Ok(Self { process, version, plain, tls })
    }

    pub(crate) fn address(&self, tls: bool) -> SocketAddr {
        if tls { self.tls } else { self.plain }
    }
}
