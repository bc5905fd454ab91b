//! `spiced tls check CERT [KEY]`: checks a certificate and its key without a pod.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};
use spiced_certs::{CertificateContents, Contents, Finding, Input, Material};
use tls_core::{CertificateSummary, Origin, Secret, Sourced, Validity};

use super::{BAD, Report, authority, colours};
use crate::args::TlsCheckArgs;
use crate::commands::print;
use crate::failure::Failure;
use crate::observe::status::date;

/// The variable for the passphrase of an encrypted key. There is no option, because others can see it in the process
/// list.
const PASSPHRASE: &str = "SPICED_RUNTIME__TLS__KEY_PASSPHRASE";

/// How much of a file is read to detect its format, in bytes.
const MAX_LOOK: u64 = 1024 * 1024;

/// File name extensions of certificates and keys, for files whose content is inconclusive.
const EXTENSIONS: [&str; 17] = [
    "pem", "crt", "cer", "cert", "der", "key", "p12", "pfx", "p7b", "p7c", "p7s", "jks", "ppk", "csr", "crl", "chain",
    "bundle",
];

/// Keys at the top level of a pod file.
const POD_KEYS: [&str; 8] =
    ["version:", "kind: Spicepod", "runtime:", "secrets:", "datasets:", "views:", "name:", "dependencies:"];

/// Returns the material that the arguments name, or `None` if they name a pod.
pub(super) fn of(args: &TlsCheckArgs) -> Result<Option<Material>, Failure> {
    let path = args.pod.path();
    if !is_material(path, args.key.is_some()) {
        return match &args.key {
            None => Ok(None),
            Some(_) => Err(Failure::Usage(
                "error: two arguments are a certificate and its key, and the first one is a pod\nhint: spiced tls check \
                 CERT KEY, or for a pod: spiced tls check PATH\n"
                    .to_owned(),
            )),
        };
    }
    if let Some(flag) = args.pod.flags().first() {
        return Err(Failure::Usage(format!(
            "error: `{}` is an option for a pod, and a certificate is checked here\nhint: spiced tls check CERT [KEY] [--ca \
             FILE] [--name HOST]\n",
            flag.name
        )));
    }
    let file = |path: &Path, name: &str| Sourced::new(Input::File(path.to_owned()), Origin::Flag(name.to_owned()));
    let passphrase = std::env::var(PASSPHRASE)
        .ok()
        .map(|text| Sourced::new(Input::Text(Secret::from(text)), Origin::Variable(PASSPHRASE.to_owned())));
    Ok(Some(Material {
        certificate: file(path, "CERT"),
        key: args.key.as_deref().map(|key| file(key, "KEY")),
        passphrase,
    }))
}

/// Returns true if `path` is a certificate file. A file that cannot be read is judged by its name.
fn is_material(path: &Path, has_key: bool) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let extension = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    let is_named_so = EXTENSIONS.contains(&extension.as_str());
    let Ok(metadata) = path.metadata() else { return is_named_so || has_key };
    if metadata.is_dir() {
        return false;
    }
    // A FIFO (`<(…)` in a shell) can be read only once.
    if metadata.file_type().is_fifo() {
        return true;
    }
    let Ok(spiced_files::Content { secret: content, .. }) = spiced_files::read(path, MAX_LOOK) else {
        return is_named_so || has_key;
    };
    let has_line = |is_it: &dyn Fn(&str) -> bool| content.expose_text().is_ok_and(|text| text.lines().any(is_it));
    let is_pod = has_line(&|line| {
        let line = line.trim_start_matches('\u{feff}');
        POD_KEYS.iter().any(|key| line.starts_with(key))
    });
    let is_foreign = has_line(&|line| {
        let line = line.trim_start_matches([' ', '{']);
        ["kind: Secret", "kind: SealedSecret", "\"kind\": \"Secret\""].iter().any(|kind| line.starts_with(kind))
    });
    match extension.as_str() {
        _ if is_pod && !is_foreign => false,
        "yaml" | "yml" => is_foreign || has_key || spiced_certs::is_material(&content),
        _ => is_named_so || has_key || spiced_certs::is_material(&content),
    }
}

/// Checks the material; prints its contents and the findings.
pub(super) fn run(material: Material, args: &TlsCheckArgs) -> Result<(), Failure> {
    tls_core::install_provider();
    let mut authority = authority(args);
    let (examined, contents) = spiced_certs::examine_material(material, &args.name, authority.as_mut())
        .map_err(|error| Failure::configuration(&error, error.hint()))?;
    let spiced_certs::Examined { mut findings, accepted_by, unchecked } = examined;
    for finding in &mut findings {
        reword(finding, &contents, args);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let report = Report { findings, accepted_by, unchecked, accepted: Vec::new() };
    let now = SystemTime::now();
    let text = if args.json {
        let mut answer = report.json();
        answer["certificate"] = certificate_json(&contents, now);
        answer["chain"] = contents.chain.iter().map(|one| json!(one.summary)).collect();
        answer["key"] = json!({ "file": contents.key_file, "kind": contents.key, "matches": contents.is_pair });
        format!("{answer:#}\n")
    } else {
        in_words(&contents, now) + &report.text(colours())
    };
    if report.fails(args.strict) {
        return Err(Failure::Output { text, code: BAD });
    }
    print(&text)
}

/// Rewords the fixes for arguments instead of settings.
fn reword(finding: &mut Finding, contents: &Contents, args: &TlsCheckArgs) {
    let word = |path: &Option<PathBuf>, otherwise: &str| {
        let path = path.as_ref().map(|path| path.display().to_string());
        path.and_then(|path| shlex::try_quote(&path).ok().map(|word| word.into_owned()))
            .unwrap_or_else(|| otherwise.to_owned())
    };
    match finding.code {
        "TLS-SWAPPED" if args.key.is_some() && !contents.chain.is_empty() && contents.key.is_some() => {
            finding.message =
                "the arguments are swapped: the first one is the private key, and the second the certificate; they are \
                 checked in the right order here"
                    .to_owned();
            finding.fix = format!(
                "give the certificate first: `spiced tls check {} {}`",
                word(&contents.certificate_file, "CERT"),
                word(&contents.key_file, "KEY")
            );
        }
        "TLS-SWAPPED" if args.key.is_none() => {
            finding.message = "the file holds a private key, but no certificate".to_owned();
            finding.fix = format!(
                "give the certificate first, then this key: `spiced tls check CERT {}`",
                word(&contents.certificate_file, "KEY")
            );
        }
        "TLS-KEY-ENCRYPTED" => {
            finding.fix = format!("set its passphrase in the variable {PASSPHRASE}");
        }
        "TLS-KEY-PASSPHRASE" => {
            finding.fix = format!(
                "compare {PASSPHRASE} with the passphrase that decrypts it: `openssl pkey -noout -in {}`",
                word(&contents.key_file, "KEY")
            );
        }
        _ => {}
    }
}

fn certificate_json(contents: &Contents, now: SystemTime) -> Value {
    let Some(CertificateContents { summary, key }) = contents.chain.first() else { return Value::Null };
    let mut value = json!(summary);
    value["file"] = json!(contents.certificate_file);
    value["key"] = json!(key);
    value["expires"] = json!(date(summary.not_after));
    value["days_left"] = json!(days_left(summary, now));
    value
}

/// Returns the whole days until the certificate expires; negative after that.
fn days_left(summary: &CertificateSummary, now: SystemTime) -> i64 {
    summary.seconds_left(now).div_euclid(86_400)
}

fn in_words(contents: &Contents, now: SystemTime) -> String {
    let mut out = String::new();
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| format!(" {path:?}")).unwrap_or_default();
    if let Some(CertificateContents { summary, key }) = contents.chain.first() {
        let CertificateSummary { subject, names, issuer, self_signed, .. } = summary;
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let itself = if *self_signed { " (itself)" } else { "" };
        let _ = writeln!(out, "certificate{}", file(&contents.certificate_file));
        let _ = writeln!(out, "  subject: {subject}\n  names:   {names}\n  issuer:  {issuer}{itself}");
        let _ = writeln!(out, "  expires: {}\n  key:     {key}", expiry(summary, now));
        let _ = writeln!(out, "  chain:");
        for (at, CertificateContents { summary, key }) in contents.chain.iter().enumerate() {
            let CertificateSummary { subject, issuer, .. } = summary;
            let _ = writeln!(out, "    {at} {subject}, issued by {issuer}; {key}; expires {}", expiry(summary, now));
        }
    }
    if let Some(key) = &contents.key {
        let matches = match contents.is_pair {
            Some(true) => ", the certificate's key",
            Some(false) => ", not the certificate's key",
            None => "",
        };
        let _ = writeln!(out, "key{}\n  {key}{matches}", file(&contents.key_file));
    }
    out
}

fn expiry(summary: &CertificateSummary, now: SystemTime) -> String {
    let end = date(summary.not_after);
    let days = |days: i64| format!("{days} day{}", if days == 1 { "" } else { "s" });
    let left = days_left(summary, now);
    match summary.validity(now) {
        Validity::Expired => format!("{end} ({} ago)", days(-left - 1)),
        Validity::NotYet { .. } => format!("{end} (in {}; valid from {})", days(left), date(summary.not_before)),
        _ => format!("{end} (in {})", days(left)),
    }
}
