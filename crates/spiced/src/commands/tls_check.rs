//! `spiced tls check`: the doctor. All that the start would find about TLS and auth, and more, without serving.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use spiced_certs::{Finding, Severity, accepted_by, load, load_clients, missing_names};
use spiced_config::Settings;
use spiced_middleware::is_weak;

use crate::args::TlsCheckArgs;
use crate::commands::{print, runtime};
use crate::failure::Failure;
use crate::{identity, policy, settle};

/// Exit code: there is a finding that is bad enough.
const BAD: u8 = 1;

pub(crate) fn run(args: &TlsCheckArgs) -> Result<(), Failure> {
    let runtime = runtime()?;
    let report = runtime.block_on(async {
        let (settings, _) = settle::settle(&args.pod).await?;
        examine(settings, &args.name)
    });
    runtime.shutdown_background();
    let report = report?;
    let text = if args.json { format!("{:#}\n", report.json()) } else { report.text(colours()) };
    let least = if args.strict { Severity::Warning } else { Severity::Error };
    if report.findings.iter().any(|finding| finding.severity >= least) {
        return Err(Failure::Answered { text, code: BAD });
    }
    print(&text)
}

/// What was found, the worst first, and which clients would take the certificate.
struct Report {
    findings: Vec<Finding>,
    accepted_by: Vec<(&'static str, bool)>,
}

fn examine(mut settings: Settings, names: &[String]) -> Result<Report, Failure> {
    let mut report = Report { findings: Vec::new(), accepted_by: Vec::new() };
    let tls = settings.tls.take();
    let asks = tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    match tls {
        None => report.findings.push(Finding {
            code: "TLS-OFF",
            severity: Severity::Info,
            origin: "the default".to_owned(),
            subject: String::new(),
            message: "nothing asks for TLS: all doors speak plain text".to_owned(),
            fix: "for development: spiced --tls-self-signed; else give a certificate and its key".to_owned(),
        }),
        Some(tls) => {
            let (mut sources, development_ca) = identity::sources(tls.material, tls.clients, Vec::new())?;
            match load(&mut sources.pair) {
                Ok(loaded) => {
                    let worth = |finding: &Finding| development_ca.is_none() || finding.severity > Severity::Info;
                    report.findings.extend(loaded.findings.into_iter().filter(worth));
                    report.findings.extend(missing_names(&loaded.identity, names));
                    report.accepted_by = accepted_by(&loaded.identity, names, SystemTime::now());
                }
                Err(error) => report.findings.push(error.finding()),
            }
            if let Some(clients) = &mut sources.clients {
                match load_clients(clients) {
                    Ok(loaded) => report.findings.extend(loaded.findings),
                    Err(error) => report.findings.push(error.finding()),
                }
            }
        }
    }
    report.findings.extend(of_auth(&settings, asks));
    if let Err(failure) = policy::establish(&settings.auth, asks, Vec::new()) {
        let (message, fix) = failure.in_words();
        let origin = "runtime.auth.api_key.keys".to_owned();
        let (code, severity) = ("AUTH-KEYS", Severity::Error);
        report.findings.push(Finding { code, severity, origin, subject: String::new(), message, fix });
    }
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(report)
}

/// What a start would warn of.
fn of_auth(settings: &Settings, asks: bool) -> Vec<Finding> {
    let finding = |code, origin: String, message: &str, fix: &str| Finding {
        code,
        severity: Severity::Warning,
        origin,
        subject: String::new(),
        message: message.to_owned(),
        fix: fix.to_owned(),
    };
    let short = settings.auth.keys.iter().flatten().filter(|key| is_weak(&key.key.value)).map(|key| {
        let message = "the API key is shorter than 16 characters and may be guessed";
        finding("AUTH-KEY-SHORT", key.key.origin.to_string(), message, "make one with: spiced key generate")
    });
    let mut found: Vec<Finding> = short.collect();
    if asks && settings.auth.identities.is_empty() {
        found.push(finding(
            "AUTH-NO-IDENTITIES",
            "runtime.auth.mtls.identities".to_owned(),
            "no identity is named: the bearer of any verified client certificate may read",
            "name those that may, with their roles",
        ));
    }
    found
}

impl Report {
    fn json(&self) -> Value {
        json!({ "findings": self.findings, "accepted_by": accepted(&self.accepted_by) })
    }

    fn text(&self, colours: bool) -> String {
        findings(&self.findings, colours) + &takers(&self.accepted_by)
    }
}

/// Who takes a certificate, as an object.
pub(super) fn accepted(by: &[(&'static str, bool)]) -> Value {
    let entries = by.iter().map(|(client, takes)| ((*client).to_owned(), Value::Bool(*takes)));
    Value::Object(entries.collect::<Map<String, Value>>())
}

/// The findings for a person, two lines each.
pub(super) fn findings(found: &[Finding], colours: bool) -> String {
    let mut out = String::new();
    for Finding { code, severity, origin, subject, message, fix } in found {
        let (word, colour) = match severity {
            Severity::Error => ("error", "31"),
            Severity::Warning => ("warning", "33"),
            Severity::Info => ("info", "36"),
        };
        let word = if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
        // A message that begins with where it is from needs not say it again.
        let place = if message.starts_with(origin.as_str()) { String::new() } else { format!("{origin}: ") };
        let about = if subject.is_empty() || message.contains(subject.as_str()) {
            String::new()
        } else {
            format!(" ({subject})")
        };
        let _ = writeln!(out, "{word} {code}: {place}{message}{about}\n  fix: {fix}");
    }
    if found.iter().all(|finding| finding.severity == Severity::Info) {
        out.push_str("nothing is wrong\n");
    }
    out
}

/// Who takes a certificate, for a person.
pub(super) fn takers(by: &[(&'static str, bool)]) -> String {
    let mut out = String::new();
    for (wanted, says) in [(true, "take"), (false, "refuse")] {
        let these: Vec<&str> = by.iter().filter(|(_, takes)| *takes == wanted).map(|(client, _)| *client).collect();
        if !these.is_empty() {
            let _ = writeln!(out, "once they trust its CA, these {says} the certificate: {}", these.join(", "));
        }
    }
    out
}

pub(super) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
