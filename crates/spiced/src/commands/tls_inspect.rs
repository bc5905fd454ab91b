//! `spiced tls inspect`: shows what a server on the network presents, and the doctor's findings. Performs the handshake
//! and disconnects; trusts nothing and sends no request.

use std::fmt::Write;
use std::time::SystemTime;

use serde_json::{Value, json};
use spiced_certs::{Inspected, Presented, inspect};
use tls_core::CertificateSummary;

use crate::args::{StartTls, TlsInspectArgs, host};
use crate::commands::tls_check::{accepted, colours, findings, takers};
use crate::commands::{print, runtime};
use crate::failure::Failure;
use crate::observe::status::date;

/// Exit code: there is a finding at error level.
const BAD: u8 = 1;

pub(crate) fn run(args: &TlsInspectArgs) -> Result<(), Failure> {
    let (host, port) = address(&args.address)?;
    let before = args.starttls.map(|StartTls::Postgres| spiced_certs::StartTls::Postgres);
    let runtime = runtime()?;
    let seen = runtime.block_on(inspect(&host, port, before));
    runtime.shutdown_background();
    let seen =
        seen.map_err(|error| Failure::Output { text: format!("error: {}: {error}\n", args.address), code: BAD })?;
    let mut names = args.name.clone();
    if names.is_empty() {
        names.push(host.trim_matches(['[', ']']).to_owned());
    }
    let presented = Presented::of(&seen.chain, &args.address, &names, SystemTime::now());
    let presented = presented.map_err(|error| Failure::Other(format!("{}: {error}", args.address)))?;
    let text = if args.json {
        format!("{:#}\n", in_json(&seen, &presented))
    } else {
        in_words(&args.address, &seen, &presented)
    };
    if presented.findings.iter().any(|finding| finding.fails(false)) {
        return Err(Failure::Output { text, code: BAD });
    }
    print(&text)
}

fn address(text: &str) -> Result<(String, u16), Failure> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parsed {
        Some((name, port)) if host(name).is_ok() => Ok((name.to_owned(), port)),
        // The argument is not repeated, because it may be a key by mistake.
        _ => Err(Failure::Usage(
            "error: the argument is not HOST:PORT\nhint: such as localhost:3000, or [::1]:3000; no scheme and no path\n"
                .to_owned(),
        )),
    }
}

fn in_json(seen: &Inspected, presented: &Presented) -> Value {
    json!({
        "tls": {
            "version": seen.version,
            "versions": seen.versions,
            "cipher": seen.cipher,
            "group": seen.group,
            "alpn": seen.alpn,
            "resumed": seen.resumed,
        },
        "chain": presented.chain,
        "trusted": presented.trusted.is_ok(),
        "findings": presented.findings,
        "accepted_by": accepted(&presented.accepted_by),
    })
}

fn in_words(address: &str, seen: &Inspected, presented: &Presented) -> String {
    let mut out = String::new();
    let alpn = seen.alpn.as_deref().map_or("no ALPN".to_owned(), |name| format!("ALPN {name}"));
    let resumed = if seen.resumed { "sessions are resumed" } else { "sessions are not resumed" };
    let _ = writeln!(
        out,
        "{address} speaks TLS {}: {} now, {}, {}, {alpn}; {resumed}",
        seen.versions.join(" and "),
        seen.version,
        seen.cipher,
        seen.group,
    );
    for (at, certificate) in presented.chain.iter().enumerate() {
        let CertificateSummary { subject, names, issuer, fingerprint, not_before, not_after, .. } = certificate;
        let names = if names.is_empty() { String::new() } else { format!(", for {}", names.join(", ")) };
        let _ = writeln!(out, "{at} {subject}{names}\n  issued by {issuer}");
        let _ = writeln!(out, "  valid from {} to {}; SHA-256 {fingerprint}", date(*not_before), date(*not_after));
    }
    match &presented.trusted {
        Ok(()) => out.push_str("this system trusts it\n"),
        Err(why) => {
            let _ = writeln!(out, "this system does not trust it: {why}");
        }
    }
    out + &findings(&presented.findings, colours()) + &takers(&presented.accepted_by)
}
