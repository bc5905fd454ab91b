//! nginx with the same certificate and a fixed response from its configuration.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::certificate::Certificate;
use crate::process::Process;

const PATIENCE: Duration = Duration::from_secs(10);

/// One nginx for all its figures, which are measured one after the other.
pub(crate) struct Nginx {
    pub(crate) process: Process,
    pub(crate) version: String,
    h1: SocketAddr,
    h2: SocketAddr,
    tls: SocketAddr,
}

impl Nginx {
    pub(crate) fn start(program: &Path, certificate: &Certificate, folder: &Path) -> Outcome<Self> {
        let asked = Command::new(program).arg("-v").output();
        let asked = asked.map_err(|e| format!("cannot start {}: {e}", program.display()))?;
        let version = String::from_utf8_lossy(&asked.stderr).trim().trim_start_matches("nginx version: ").to_owned();

        let prefix = folder.join("nginx");
        let file = prefix.join("nginx.conf");
        let [h1, h2, tls] = free_addresses().map_err(|e| format!("no free port: {e}"))?;
        let text = configuration(h1, h2, tls, certificate);
        let written = fs::create_dir_all(&prefix).and_then(|()| fs::write(&file, text));
        written.map_err(|e| format!("{}: {e}", file.display()))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(&prefix).arg("-c").arg(&file).args(["-e", "stderr"]);
        let mut process = Process::start("nginx", &mut command)?;
        // nginx reports nothing when it is ready, and listens before its workers have started.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(tls).is_err() || process.adopt_children()? < cores {
            if Instant::now() > end {
                process.wait_for(Duration::ZERO, |_| None::<()>)?;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { process, version, h1, h2, tls })
    }

    /// Returns the address for a protocol. Over TLS, one port serves both versions by ALPN; in plain text each has its
    /// own.
    pub(crate) fn address(&self, tls: bool, h2: bool) -> SocketAddr {
        match (tls, h2) {
            (true, _) => self.tls,
            (false, true) => self.h2,
            (false, false) => self.h1,
        }
    }
}

/// Finds free ports: nginx cannot report which port it got for port 0.
fn free_addresses<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    let mut held = Vec::new();
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addresses)
}

/// Returns Debian's default configuration, with a worker for each core, and without the access log.
fn configuration(h1: SocketAddr, h2: SocketAddr, tls: SocketAddr, certificate: &Certificate) -> String {
    let (chain, key) = (certificate.chain.display(), certificate.key.display());
    format!(
        r#"daemon off;
worker_processes auto;
pid nginx.pid;
worker_rlimit_nofile 32768;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    default_type text/plain;
    ssl_certificate "{chain}";
    ssl_certificate_key "{key}";
    ssl_protocols TLSv1.2 TLSv1.3;
    server {{
        listen {h1};
        listen {h2} http2;
        listen {tls} ssl http2;
        location = /health {{ return 200 "ok"; }}
    }}
}}
"#
    )
}
