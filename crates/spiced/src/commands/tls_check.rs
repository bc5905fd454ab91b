//! `spiced tls check`, the doctor: finds everything that startup would find about TLS and auth, and more, without
//! serving.

mod material;

use std::fmt::Write;
use std::io::IsTerminal;

use serde_json::{Map, Value, json};
use spiced_certs::{Clients, Examined, Finding, Input, Severity};
use spiced_config::{Settings, Tls};
use tls_core::{Origin, Sourced};

use crate::args::TlsCheckArgs;
use crate::commands::{print, runtime};
use crate::failure::Failure;
use crate::{auth_policy, config, tls};

/// Exit code: a finding makes the check fail.
const BAD: u8 = 1;

pub(crate) fn run(args: &TlsCheckArgs) -> Result<(), Failure> {
    if let Some(material) = material::of(args)? {
        return unchecked(material::run(material, args), args);
    }
    let runtime = runtime()?;
    let report = runtime.block_on(async {
        let (settings, _) = config::settle(&args.pod).await?;
        check(settings, args)
    });
    runtime.shutdown_background();
    let report = unchecked(report, args)?;
    let text = if args.json { format!("{:#}\n", report.json()) } else { report.text(colours()) };
    if report.fails(args.strict) {
        return Err(Failure::Output { text, code: BAD });
    }
    print(&text)
}

/// Prints why nothing could be checked as the JSON document, if one was requested.
fn unchecked<T>(outcome: Result<T, Failure>, args: &TlsCheckArgs) -> Result<T, Failure> {
    match &outcome {
        Err(failure @ (Failure::Configuration { .. } | Failure::Unavailable { .. } | Failure::Other(_)))
            if args.json =>
        {
            let problem = |(message, fix): (String, String)| finding("CONFIG", Severity::Error, "", &message, &fix);
            let findings = failure.problems().into_iter().map(problem).collect();
            let unchecked = vec!["everything else: the configuration cannot be used".to_owned()];
            let report = Report { findings, accepted_by: Vec::new(), unchecked, accepted: Vec::new() };
            print(&format!("{:#}\n", report.json()))?;
        }
        _ => {}
    }
    outcome
}

/// The findings, most severe first, and the clients that would accept the certificate.
struct Report {
    findings: Vec<Finding>,
    accepted_by: Vec<(&'static str, bool)>,
    /// What could not be checked, one sentence each.
    unchecked: Vec<String>,
    /// The codes of findings that the pod accepts.
    accepted: Vec<String>,
}

fn check(mut settings: Settings, args: &TlsCheckArgs) -> Result<Report, Failure> {
    let tls = settings.runtime.tls.take();
    let asks = tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    let mut report = match tls {
        None => Report {
            findings: vec![match &settings.runtime.tls_off {
                None => finding(
                    "TLS-OFF",
                    Severity::Info,
                    "the default",
                    "TLS is not set up: all endpoints use plain text",
                    "for development: spiced --tls-self-signed; otherwise set a certificate and its key",
                ),
                Some(switch) => finding(
                    "TLS-OFF",
                    Severity::Info,
                    &switch.to_string(),
                    "TLS is disabled: all endpoints use plain text",
                    "remove the setting, or set it to true, and set a certificate and its key",
                ),
            }],
            accepted_by: Vec::new(),
            unchecked: Vec::new(),
            accepted: Vec::new(),
        },
        Some(tls) => of_tls(tls, args)?,
    };
    report.findings.extend(settings.warnings.iter().map(|warning| {
        let origin = warning.origin.as_ref().map_or_else(|| "the configuration".to_owned(), ToString::to_string);
        let fix = "correct the setting, so that it has the intended effect";
        finding("CONFIG-WARNING", Severity::Warning, &origin, &warning.message, fix)
    }));
    report.findings.extend(auth_policy::findings(&settings.runtime.auth, asks));
    if let Err(failure) = auth_policy::establish(&settings.runtime.auth, asks, &mut |_| None) {
        let (message, fix) = failure.in_words();
        report.findings.push(finding("AUTH-KEYS", Severity::Error, "runtime.auth.api_key.keys", &message, &fix));
    }
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(report)
}

fn of_tls(tls: Tls, args: &TlsCheckArgs) -> Result<Report, Failure> {
    let accepted = tls.accept_findings.clone();
    let (mut sources, development) = tls::sources(tls, &mut |_| None);
    if development.as_ref().is_some_and(|made| !made.is_made()) {
        let origin = sources.pair.certificate.origin.to_string();
        let message = "the development CA and certificate do not exist yet: the first start creates them";
        let fix = "start spiced, or create them now: spiced tls init --dir .spice/tls";
        let findings = vec![finding("TLS-DEVELOPMENT", Severity::Info, &origin, message, fix)];
        return Ok(Report { findings, accepted_by: Vec::new(), unchecked: Vec::new(), accepted });
    }
    let mut ca = authority(args);
    let examined = spiced_certs::check_config(&mut sources, &args.name, ca.as_mut());
    let Examined { mut findings, accepted_by, mut unchecked } =
        examined.map_err(|error| Failure::configuration(&error, error.hint()))?;
    if development.is_some() {
        // The user of a development certificate trusts its CA.
        unchecked.clear();
    }
    // A development CA has no intermediates, and its user knows that.
    findings.retain(|finding| development.is_none() || finding.severity > Severity::Info);
    Ok(Report { findings, accepted_by, unchecked, accepted })
}

/// The roots that `--ca` names.
fn authority(args: &TlsCheckArgs) -> Option<Sourced<Input>> {
    args.ca.as_ref().map(|path| Sourced::new(Input::File(path.clone()), Origin::Flag("--ca".to_owned())))
}

fn finding(code: &'static str, severity: Severity, origin: &str, message: &str, fix: &str) -> Finding {
    let [origin, message, fix] = [origin, message, fix].map(str::to_owned);
    Finding { code, severity, origin, subject: String::new(), message, fix, refused_by: Clients::default() }
}

impl Report {
    fn json(&self) -> Value {
        json!({
            "findings": self.findings,
            "accepted_by": accepted(&self.accepted_by),
            "unchecked": self.unchecked,
        })
    }

    fn text(&self, colours: bool) -> String {
        let unchecked = self.unchecked.iter().map(|what| format!("not checked: {what}\n"));
        findings(&self.findings, colours) + &takers(&self.accepted_by) + &unchecked.collect::<String>()
    }

    /// Returns true if the command fails: for an error, and for a warning that makes a client refuse. With `strict`,
    /// for every warning, and for every finding that makes a client refuse.
    fn fails(&self, strict: bool) -> bool {
        let counts = |finding: &&Finding| !self.accepted.iter().any(|code| code == finding.code);
        self.findings.iter().filter(counts).any(|finding| finding.fails(strict))
    }
}

/// Returns which clients accept a certificate, as a JSON object.
pub(super) fn accepted(by: &[(&'static str, bool)]) -> Value {
    let entries = by.iter().map(|(client, takes)| ((*client).to_owned(), Value::Bool(*takes)));
    Value::Object(entries.collect::<Map<String, Value>>())
}

/// Formats the findings as text, two lines each.
pub(super) fn findings(found: &[Finding], colours: bool) -> String {
    let mut out = String::new();
    for Finding { code, severity, origin, subject, message, fix, .. } in found {
        let (word, colour) = match severity {
            Severity::Error => ("error", "31"),
            Severity::Warning => ("warning", "33"),
            Severity::Info => ("info", "36"),
        };
        let word = if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
        // A message that begins with its origin does not repeat it.
        let place = if message.starts_with(origin.as_str()) { String::new() } else { format!("{origin}: ") };
        let about = if subject.is_empty() || message.contains(subject.as_str()) {
            String::new()
        } else {
            format!(" ({subject})")
        };
        let _ = writeln!(out, "{word} {code}: {place}{message}{about}\n  fix: {fix}");
    }
    if found.is_empty() {
        out.push_str("nothing is wrong\n");
    }
    out
}

/// Formats which clients accept a certificate as text.
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
