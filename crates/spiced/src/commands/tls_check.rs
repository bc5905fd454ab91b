//! `spiced tls check`: the doctor. All that the start would find about TLS and auth, and more, without serving.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use spiced_certs::{Examined, Finding, Severity};
use spiced_config::{Settings, Tls};

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
        Ok::<_, Failure>(examine(settings, &args.name))
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

fn examine(mut settings: Settings, names: &[String]) -> Report {
    let tls = settings.tls.take();
    let asks = tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    let mut report = match tls {
        None => Report {
            findings: vec![finding(
                "TLS-OFF",
                Severity::Info,
                "the default",
                "nothing asks for TLS: all doors speak plain text",
                "for development: spiced --tls-self-signed; else give a certificate and its key",
            )],
            accepted_by: Vec::new(),
        },
        Some(tls) => of_tls(tls, names),
    };
    report.findings.extend(policy::findings(&settings.auth, asks));
    if let Err(failure) = policy::establish(&settings.auth, asks, Vec::new()) {
        let (message, fix) = failure.in_words();
        report.findings.push(finding("AUTH-KEYS", Severity::Error, "runtime.auth.api_key.keys", &message, &fix));
    }
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    report
}

fn of_tls(tls: Tls, names: &[String]) -> Report {
    let (mut sources, development) = identity::sources(tls, Vec::new());
    if development.as_ref().is_some_and(|made| !made.is_made()) {
        let origin = sources.pair.certificate.origin.to_string();
        let message = "the development CA and certificate are not there yet: the first start makes them";
        let fix = "start spiced, or make them now: spiced tls init --dir .spice/tls";
        let findings = vec![finding("TLS-DEVELOPMENT", Severity::Info, &origin, message, fix)];
        return Report { findings, accepted_by: Vec::new() };
    }
    let Examined { mut findings, accepted_by } = spiced_certs::examine(&mut sources, names, SystemTime::now());
    // A development CA of ours has no intermediates, and its user knows.
    findings.retain(|finding| development.is_none() || finding.severity > Severity::Info);
    Report { findings, accepted_by }
}

fn finding(code: &'static str, severity: Severity, origin: &str, message: &str, fix: &str) -> Finding {
    let [origin, message, fix] = [origin, message, fix].map(str::to_owned);
    Finding { code, severity, origin, subject: String::new(), message, fix }
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
