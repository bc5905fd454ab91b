//! `spiced connect`: prints client snippets, from the configuration that the server would use.

use std::fmt::Write;
use std::time::SystemTime;

use spiced_certs::{Issued, Sources, load};
use spiced_client_snippets::{CLIENTS, Client, EndpointUrl, Target, Trust, find};
use spiced_config::{Listen, Settings};
use tls_core::ListenAddress;
use tls_core::Sourced;
use tls_core::suggest::nearest;

use crate::args::ConnectArgs;
use crate::commands::{print, runtime};
use crate::failure::Failure;
use crate::{config, tls};

pub(crate) fn run(args: &ConnectArgs) -> Result<(), Failure> {
    let chosen = args.client.as_deref().map(|name| find(name).ok_or_else(|| unknown(name))).transpose()?;
    runtime()?.block_on(async {
        let (settings, _) = config::settle(&args.pod).await?;
        let target = target(settings)?;
        print(&match chosen {
            Some(client) => format!("{}{}", target.note(), (client.lines)(&target)),
            None => all(&target),
        })
    })
}

/// Returns the snippets of all clients.
fn all(target: &Target) -> String {
    let mut out = target.note();
    for (at, Client { name, about, lines }) in CLIENTS.iter().enumerate() {
        let gap = if at == 0 && out.is_empty() { "" } else { "\n" };
        let _ = write!(out, "{gap}# {name}: {about}\n{}", lines(target));
    }
    out
}

fn target(mut settings: Settings) -> Result<Target, Failure> {
    let query = settings.sample_query();
    let (key, metrics_key) =
        (settings.runtime.auth.keys.is_some(), settings.runtime.auth.keys.is_some() && settings.runtime.auth.metrics);
    let certificate = settings.runtime.tls.as_ref().and_then(|tls| tls.clients.as_ref()).is_some_and(|c| c.required);
    let (trust, names) = match settings.runtime.tls.take() {
        None => (None, Vec::new()),
        Some(tls) => {
            let (Sources { mut pair, .. }, development) = tls::sources(tls, &mut |_| None);
            development.as_ref().map(tls::make).transpose()?;
            let ca_file = development.map(|made| made.ca_file());
            let file = ca_file.clone().or_else(|| pair.certificate.value.file().map(ToOwned::to_owned));
            let loaded = load(&mut pair).map_err(|e| Failure::configuration(&e, e.hint()))?;
            let names = loaded.identity.leaf().names.clone();
            let trust = match ca_file {
                Some(file) => Trust::File(file),
                None => Trust::of(Issued::of(&loaded.identity, SystemTime::now()), file),
            };
            (Some(trust), names)
        }
    };
    let Listen { http, flight, grpc, metrics, probe, .. } = &settings.runtime.listen;
    let endpoint = |endpoint: &str, address: &Sourced<ListenAddress>, names: &[String]| match address.value.port() {
        0 => Err(Failure::configuration(
            format!("{}: port 0 takes a different port at each start, so there is no line to print", address.origin),
            format!("name the port that the server logged: --{endpoint} localhost:PORT"),
        )),
        port => Ok(EndpointUrl::new(&address.value, port, names)),
    };
    Ok(Target {
        http: endpoint("http", http, &names)?,
        flight: endpoint("flight", flight, &names)?,
        grpc: endpoint("grpc", grpc, &names)?,
        metrics: metrics.as_ref().map(|address| endpoint("metrics", address, &names)).transpose()?,
        probe: probe.as_ref().map(|address| endpoint("probe", address, &[])).transpose()?,
        trust,
        query,
        key,
        metrics_key,
        certificate,
    })
}

/// Rejects an unknown client name. Repeats it only if it is close to a known one: it may be a directory or a key in the
/// wrong place.
fn unknown(name: &str) -> Failure {
    let known: Vec<&str> = CLIENTS.iter().map(|client| client.name).collect();
    let (given, like) = match nearest(name, known.iter().copied()) {
        Some(like) => (format!("`{name}`"), format!("did you mean `{like}`? ")),
        None => ("like the first argument".to_owned(), String::new()),
    };
    Failure::Usage(format!(
        "error: no client is called {given}\nhint: {like}there are {}; for a directory, name the client first: spiced \
         connect curl DIR\n",
        known.join(", ")
    ))
}
