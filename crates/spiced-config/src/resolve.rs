//! From what was said to what was decided: defaults, and what cannot stand together.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use spiced_secrets::Template;
use tls_core::listener::ListenAddress;
use tls_core::{Origin, Secret, Sourced};

use crate::decode::{SecretText, Spanned, Templated, UNQUOTE, instead, quotes};
use crate::error::{ConfigError, Problem};
use crate::layers::{PairTemplate, SecretTemplate};
use crate::settings::{
    Clients, Column, ConcurrencySettings, Dataset, Limits, Listen, Material, MaterialInput, Pair, Settings, Tls,
    TlsVersion, View, Warning,
};
use crate::shown::{is_pem, may_be_secret};
use crate::spicepod::{Access, ClientAuthMode, EndpointKind, Profile, Spicepod, Version};
use crate::units::{Size, Span};
use crate::{spicepod, tls};

/// The versions of the pod file that are read.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v2"];

/// A shorter secret could be guessed from one recorded ticket.
const SHORTEST_TICKET_SECRET: usize = 16;

impl Spicepod {
    /// Decides. `tls_on` says whether TLS is on; the tree holds the effective values alone. `contradictions`: whether
    /// what cannot stand together, or lacks its other half, is told; not where a part of it is known to be wrong.
    pub(crate) fn decide(
        self,
        tls_on: bool,
        folder: &Path,
        written: SecretTemplate,
        mut warnings: Vec<Warning>,
        contradictions: bool,
    ) -> Result<Settings, ConfigError> {
        let (mut problems, mut contradicting) = (Vec::new(), Vec::new());
        self.header(&mut problems);
        let runtime = self.runtime;
        let listen = runtime.listen.decide(&mut problems);
        let place = Folder(folder);
        let mut tls_said = runtime.tls;
        let tls_off = tls_said.enabled.take().filter(|on| !on.0.value).map(|on| on.0.origin);
        let asks = tls_said.asks(tls_on, &mut contradicting, &mut warnings);
        let auth = runtime.auth.decide(asks, written.api_keys.clone(), &mut contradicting, &mut warnings);
        let session_ticket_secret = match tls_said.session_ticket_secret.take() {
            Some(Spanned(secret)) if secret.value.0.expose().len() < SHORTEST_TICKET_SECRET => {
                let problem = Problem::new(secret.origin, format!("takes at least {SHORTEST_TICKET_SECRET} bytes"));
                problems.push(problem.hint("make one with: openssl rand -base64 32"));
                None
            }
            secret => secret.map(|s| s.0.value.0),
        };
        if !tls_on {
            tls_said.without_tls(&mut contradicting, &mut warnings);
        }
        let tls = match tls_on {
            true => tls_said.decide(&place, written, asks).map_err(|wrong| contradicting.extend(wrong)).ok(),
            false => None,
        };
        if contradictions {
            problems.extend(contradicting);
        }
        let positive = |value: Option<Spanned<usize>>, default: usize, problems: &mut Vec<Problem>| match value {
            Some(Spanned(Sourced { value: 0, origin })) => {
                problems.push(
                    Problem::new(origin, "takes a number from 1 up, not 0").hint("take the key away for its default"),
                );
                default
            }
            Some(placed) => placed.0.value,
            None => default,
        };
        let limits = Limits {
            connections: positive(runtime.limits.connections, 10_000, &mut problems),
            handshakes: positive(runtime.limits.handshakes, 1_024, &mut problems),
            auth_failures: {
                let failures = positive(runtime.limits.auth_failures, 30, &mut problems);
                u32::try_from(failures).ok().and_then(NonZero::new).unwrap_or(NonZero::<u32>::MAX)
            },
        };
        let sql = runtime.sql;
        let memory = sql.memory_limit.map(|size| Spanned(size.0.map(|s| s.0)));
        let query_memory = positive(memory, 2 << 30, &mut problems);
        let mut size = |given: Option<Spanned<Size>>, default| {
            positive(given.map(|size| Spanned(size.0.map(|s| s.0))), default, &mut problems)
        };
        let process_memory =
            size(sql.process_memory_limit, query_memory.saturating_add(query_memory / 2).saturating_add(256 << 20));
        let max_statement_size = size(sql.max_statement_size, 1 << 20);
        let spill_limit = size(sql.spill_limit, 10 << 30);
        let mut lasting = |span: Option<Spanned<Span>>, default: Duration| match span {
            Some(Spanned(span)) if span.value.0.is_zero() => {
                problems.push(Problem::new(span.origin, "takes a duration above zero").hint("write 5m, say"));
                Duration::ZERO
            }
            span => span.map_or(default, |s| s.0.value.0),
        };
        let query_timeout = lasting(sql.timeout, Duration::from_secs(300));
        let telemetry_retention = lasting(runtime.otel.retention, Duration::from_secs(24 * 3600));
        let memory = runtime.otel.memory_limit.map(|size| Spanned(size.0.map(|s| s.0)));
        let telemetry_memory = positive(memory, 64 << 20, &mut problems);
        let mut turns = |running, waiting: Option<Spanned<usize>>| ConcurrencySettings {
            running: positive(running, 64, &mut problems),
            // None may wait: that is a choice.
            waiting: waiting.map_or(256, |placed| placed.0.value),
        };
        let readers = turns(sql.concurrency.ro, sql.queue.ro);
        let writers = turns(sql.concurrency.rw, sql.queue.rw);
        let rows = sql.max_result_rows;
        let max_result_rows = rows.map(|rows| positive(Some(rows), 0, &mut problems));
        let bytes = sql.max_result_bytes.map(|size| Spanned(size.0.map(|s| s.0)));
        let max_result_bytes = bytes.map(|bytes| positive(Some(bytes), 0, &mut problems));
        let trusted_proxies = proxies(runtime.http.trusted_proxies, &mut problems);
        let allowed_origins = match runtime.cors.enabled {
            Some(true) => Some(runtime.cors.allowed_origins.into_iter().map(|origin| origin.0).collect()),
            _ => None,
        };
        let host_paths = sql.host_paths.into_iter().filter_map(|path| place.readable(path.0, &mut problems)).collect();
        let datasets = self.datasets.into_iter().map(|d| dataset(d, &mut problems)).collect();
        let views = self.views.into_iter().map(|Spanned(view)| view.value);
        let views = views.map(|view| View { name: view.name.0.value, sql: view.sql.0.value }).collect();
        let name = pod_name(self.name, &mut problems);
        if !problems.is_empty() || (tls_on && tls.is_none()) {
            return Err(ConfigError(problems));
        }
        Ok(Settings {
            name,
            folder: folder.to_owned(),
            listen: listen.expect("a bad address is a problem, and there is none"),
            tls,
            tls_off,
            session_ticket_secret,
            auth,
            allowed_origins,
            hsts: runtime.http.hsts.map(|span| span.0),
            trusted_proxies,
            shutdown_delay: runtime.shutdown_delay.map_or(Duration::ZERO, |s| s.0),
            shutdown_timeout: runtime.shutdown_timeout.map_or(Duration::from_secs(25), |s| s.0),
            host_paths,
            query_timeout,
            readers,
            writers,
            queue_timeout: sql.queue_timeout.map_or(Duration::from_secs(10), |s| s.0),
            max_result_rows,
            max_result_bytes,
            query_history: sql.history.unwrap_or(1_000),
            query_memory,
            process_memory,
            max_statement_size,
            spill_directory: sql.spill_directory.map(|path| place.path(path.0)),
            spill_limit,
            telemetry_retention,
            telemetry_memory,
            http_body_limit: runtime.http.body_limit.map_or(16 << 20, |s| s.0),
            limits,
            datasets,
            views,
            warnings,
        })
    }

    fn header(&self, problems: &mut Vec<Problem>) {
        for (what, given, known) in
            [("version", &self.version, VERSIONS.as_slice()), ("kind", &self.kind, ["Spicepod"].as_slice())]
        {
            let Some(Templated { placed: Spanned(given), reference }) = given else { continue };
            if known.contains(&given.value.as_str()) {
                continue;
            }
            let shown = instead(&given.value, *reference, &given.origin)
                .map_or_else(|| format!("`{}`", given.value), str::to_owned);
            let problem = Problem::new(given.origin.clone(), format!("{shown} is no {what} that this program reads"));
            problems.push(problem.hint(format!("write {what}: {}", known.join(" or "))));
        }
    }
}

impl spicepod::Listen {
    fn decide(self, problems: &mut Vec<Problem>) -> Option<Listen> {
        let mut address = |given: Option<Templated>, default: Option<&str>| -> Option<Sourced<ListenAddress>> {
            let (text, reference) = match given {
                Some(given) => (given.placed.0, given.reference),
                None => (Sourced::new(default?.to_owned(), Origin::Default), false),
            };
            match text.value.trim().parse() {
                Ok(address) => Some(Sourced::new(address, text.origin)),
                Err(error) => {
                    let message = match instead(&text.value, reference, &text.origin) {
                        Some(instead) => format!("{instead} is no address: {error}"),
                        None => format!("`{}` is no address: {error}", text.value),
                    };
                    problems.push(
                        Problem::new(text.origin, message).hint("such as localhost:3000, or 0.0.0.0:3000 for all"),
                    );
                    None
                }
            }
        };
        let (http, flight, grpc) = (
            address(self.http, Some("localhost:3000")),
            address(self.flight, Some("localhost:50051")),
            address(self.grpc, Some("localhost:50052")),
        );
        let (metrics, probe) = (address(self.metrics, None), address(self.probe, None));
        let proxy_protocol = self.proxy_protocol.into_iter().map(|endpoint| match endpoint {
            EndpointKind::Http => "http",
            EndpointKind::Flight => "flight",
            EndpointKind::Grpc => "grpc",
            EndpointKind::Metrics => "metrics",
        });
        let proxy_protocol = proxy_protocol.collect();
        Some(Listen { http: http?, flight: flight?, grpc: grpc?, metrics, probe, proxy_protocol })
    }
}

impl spicepod::Tls {
    /// Whether clients are asked for certificates.
    fn asks(&self, tls_on: bool, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) -> bool {
        let mode = self.client_auth_mode.as_ref().map(|mode| &mode.0);
        match mode {
            Some(mode) if mode.value != ClientAuthMode::None => {
                if !tls_on {
                    problems.push(
                        Problem::new(
                            mode.origin.clone(),
                            "wants client certificates, and TLS is off: none could be shown",
                        )
                        .hint(tls::WAYS),
                    );
                }
                true
            }
            _ => {
                for (given, name) in [
                    (self.client_auth_ca_file.is_some() || self.client_auth_ca.is_some(), "client_auth_ca"),
                    (!self.client_crl_files.is_empty(), "client_crl_files"),
                ] {
                    if given {
                        let message = format!("runtime.tls.{name} has no effect while client_auth_mode is none");
                        warnings.push(Warning { origin: None, message });
                    }
                }
                false
            }
        }
    }

    /// What of it says something where there is no TLS: who writes it believes that there is.
    fn without_tls(&self, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) {
        if let Some(Spanned(passphrase)) = &self.key_passphrase {
            let problem = Problem::new(passphrase.origin.clone(), "gives the passphrase of a key, and there is no key");
            problems.push(problem.hint(tls::WAYS));
        }
        for (given, name) in [
            (self.strict_sni == Some(true), "strict_sni"),
            (self.min_version.is_some(), "min_version"),
            (self.profile.is_some(), "profile"),
        ] {
            if given {
                let message = format!("runtime.tls.{name} has no effect: all endpoints speak plain text");
                warnings.push(Warning { origin: None, message });
            }
        }
    }

    fn decide(self, folder: &Folder<'_>, written: SecretTemplate, asks: bool) -> Result<Tls, Vec<Problem>> {
        let mut problems = Vec::new();
        let min_version = match (self.profile, self.min_version) {
            (Some(Spanned(p)), Some(Spanned(v))) if p.value == Profile::Modern && v.value == Version::Tls12 => {
                let message = format!("TLS 1.2 contradicts the profile `modern` at {}", p.origin);
                let problem = Problem::new(v.origin, message);
                problems.push(problem.hint("the profile `modern` is TLS 1.3 alone; take one of the two away"));
                TlsVersion::Tls13
            }
            (Some(Spanned(p)), None) if p.value == Profile::Modern => TlsVersion::Tls13,
            (_, Some(Spanned(v))) if v.value == Version::Tls13 => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        };
        let main = spicepod::TlsPair {
            certificate_file: self.certificate_file,
            certificate: self.certificate,
            key_file: self.key_file,
            key: self.key,
            key_passphrase: self.key_passphrase,
        };
        let main = main.decide(written.pair, folder).unwrap_or_else(|wrong| {
            problems.extend(wrong);
            None
        });
        let mut more = Vec::new();
        for (Spanned(Sourced { value: pair, origin }), written) in self.certificates.into_iter().zip(written.more) {
            match pair.decide(written, folder) {
                Ok(Some(pair)) => more.push(pair),
                Ok(None) => {
                    let problem = Problem::new(origin, "a pair has a certificate and a key, and this one has neither");
                    problems.push(problem.hint("write certificate_file and key_file"));
                }
                Err(wrong) => problems.extend(wrong),
            }
        }
        let authority = one_of(self.client_auth_ca_file, self.client_auth_ca, written.client_ca, folder);
        let authority = authority.map_err(|problem| problems.push(problem));
        let clients = match (self.client_auth_mode, authority) {
            (Some(Spanned(mode)), Ok(Some(authority))) if asks => Some(Clients {
                required: mode.value == ClientAuthMode::Required,
                authority,
                lists: self
                    .client_crl_files
                    .into_iter()
                    .filter_map(|Spanned(path)| {
                        let origin = path.origin.clone();
                        folder.readable(path, &mut problems).map(|path| Sourced::new(path, origin))
                    })
                    .collect(),
            }),
            (Some(Spanned(mode)), Ok(None)) if asks => {
                let problem = Problem::new(mode.origin, "wants client certificates, and nothing says whose are taken");
                problems.push(problem.hint(
                    "set client_auth_ca_file (or client_auth_ca, PEM text) beside it, or --tls-client-auth-ca-file",
                ));
                None
            }
            _ => None,
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let material = match main {
            Some(pair) => Material::Pair(Box::new(pair)),
            None if more.is_empty() => Material::SelfSigned {
                folder: folder.0.join(".spice").join("tls"),
                origin: self.self_signed.map_or(Origin::Default, |asked| asked.0.origin),
            },
            // Somebody has to answer for names that nobody has.
            None => Material::Pair(Box::new(more.remove(0))),
        };
        let handshake_timeout = self.handshake_timeout.map_or(Duration::from_secs(10), |s| s.0);
        let strict_sni = self.strict_sni.unwrap_or(false);
        let accept_findings = self.accept_findings;
        Ok(Tls { material, more, strict_sni, min_version, clients, handshake_timeout, accept_findings })
    }
}

impl spicepod::TlsPair {
    /// A pair, or nothing where nothing of it is given.
    fn decide(self, written: PairTemplate, folder: &Folder<'_>) -> Result<Option<Pair>, Vec<Problem>> {
        let certificate = one_of(self.certificate_file, self.certificate, written.certificate, folder);
        let key = one_of(self.key_file, self.key, written.key, folder);
        let passphrase = self.key_passphrase.map(|Spanned(text)| {
            let origin = text.origin.clone();
            if text.value.0.is_empty() {
                return Err(Problem::new(origin, "the passphrase is empty").hint("take it away, or give the key's own"));
            }
            Ok(text.map(|SecretText(secret)| followed(secret, written.passphrase)))
        });
        let (certificate, key, passphrase) = match (certificate, key, passphrase.transpose()) {
            (Ok(certificate), Ok(key), Ok(passphrase)) => (certificate, key, passphrase),
            (certificate, key, passphrase) => {
                return Err([certificate.err(), key.err(), passphrase.err()].into_iter().flatten().collect());
            }
        };
        match (certificate, key, passphrase) {
            (Some(certificate), Some(key), passphrase) => Ok(Some(Pair { certificate, key, passphrase })),
            (Some(certificate), None, _) => Err(vec![half(certificate.origin, "a certificate", "its key")]),
            (None, Some(key), _) => Err(vec![half(key.origin, "a key", "its certificate")]),
            (None, None, Some(passphrase)) => {
                let message = "gives the passphrase of a key, and there is no key beside it";
                Err(vec![
                    Problem::new(passphrase.origin, message).hint("write it beside the key_file or key that it opens"),
                ])
            }
            (None, None, None) => Ok(None),
        }
    }
}

/// A secret, which is followed where it was written as a reference.
fn followed(value: Secret, written: Option<Template>) -> MaterialInput {
    match written {
        Some(written) => MaterialInput::Secrets { written, value },
        None => MaterialInput::Text(value),
    }
}

fn one_of(
    file: Option<Templated>,
    text: Option<Spanned<SecretText>>,
    written: Option<Template>,
    folder: &Folder<'_>,
) -> Result<Option<Sourced<MaterialInput>>, Problem> {
    let input = match (file, text) {
        (Some(Templated { placed: Spanned(file), reference }), _) => {
            if file.value.trim().is_empty() {
                return Err(Problem::new(file.origin, "the path is empty").hint(tls::WAYS));
            }
            if is_pem(file.value.as_bytes()) {
                return Err(Problem::new(file.origin, "takes the path of a file, and this is PEM text")
                    .hint("for PEM text use certificate and key (--tls-certificate, --tls-key), without _file"));
            }
            let is_there = folder.path(file.clone()).exists();
            if let (false, Some(quote)) = (is_there, quotes(&file.value)) {
                let message = format!("the path begins and ends with {quote}, and no file is called that");
                return Err(Problem::new(file.origin, message).hint(UNQUOTE));
            }
            // What a reference gives may be a password by mistake: it is shown only if it is a file's path.
            if reference && !is_there {
                return Err(Problem::new(file.origin, "there is no file by the path that the reference gives")
                    .hint("is it the PEM text itself? for text use certificate and key, without _file"));
            }
            // So is a key that somebody gave as it is, without its frame.
            if may_be_secret(&file.value) && !is_there {
                let message = "takes the path of a file; this is none, and it is not shown: it may be a key";
                return Err(Problem::new(file.origin, message)
                    .hint("write the path of a PEM file; for PEM text use certificate and key, without _file"));
            }
            let origin = file.origin.clone();
            Sourced::new(MaterialInput::File(folder.path(file)), origin)
        }
        (None, Some(Spanned(text))) => {
            let Sourced { value: SecretText(secret), origin } = text;
            if secret.is_blank() {
                return Err(Problem::new(origin, "the PEM text is empty").hint(tls::WAYS));
            }
            Sourced::new(followed(secret, written), origin)
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(input))
}

/// Networks, or single addresses.
fn proxies(given: Vec<Spanned<String>>, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    let network = |Spanned(text): Spanned<String>| {
        let trimmed = text.value.trim();
        let network = trimmed.parse().or_else(|_| trimmed.parse().map(|address: std::net::IpAddr| address.into()));
        network
            .map_err(|_| {
                let problem = Problem::new(text.origin, "takes addresses and networks of proxies, and this is neither");
                problems.push(problem.hint("write 10.0.0.0/8, 192.0.2.7 or fd00::/8; no names"));
            })
            .ok()
    };
    given.into_iter().filter_map(network).collect()
}

fn half(origin: Origin, given: &str, missing: &str) -> Problem {
    Problem::new(origin, format!("gives {given}, and nothing gives {missing}")).hint(tls::WAYS)
}

fn dataset(Spanned(given): Spanned<spicepod::Dataset>, problems: &mut Vec<Problem>) -> Dataset {
    let Sourced { value: dataset, origin } = given;
    for (what, Spanned(text)) in [("name", &dataset.name), ("from", &dataset.from)] {
        if may_be_secret(&text.value) {
            let message = format!("the data set's `{what}` is none; it is not shown: it may be a secret");
            problems.push(Problem::new(text.origin.clone(), message).hint("every data set has a name and a from"));
        }
        if text.value.trim().is_empty() {
            let message = format!("the data set's `{what}` is empty");
            problems.push(Problem::new(text.origin.clone(), message).hint("every data set has a name and a from"));
        }
    }
    Dataset {
        name: dataset.name.0.value,
        from: dataset.from.0.value,
        writable: dataset.access == Access::ReadWrite,
        params: dataset.params.into_iter().map(|(name, SecretText(value))| (name, value)).collect::<_>(),
        columns: dataset
            .columns
            .into_iter()
            .map(|c| Column { name: c.name, data_type: c.data_type, nullable: c.nullable })
            .collect(),
        origin,
    }
}

/// The pod's name, which logs, metrics and `/v1/status` show: one line.
fn pod_name(name: Option<Spanned<String>>, problems: &mut Vec<Problem>) -> String {
    let Some(Spanned(name)) = name else { return "spicepod".to_owned() };
    if may_be_secret(&name.value) {
        let message = "takes a short name on one line; this is none, and it is not shown: it may be a secret";
        problems.push(Problem::new(name.origin, message).hint("write a name, such as my-app"));
        return "spicepod".to_owned();
    }
    name.value
}

/// The pod's directory: where the paths that the pod writes start. Those of the command line and the
/// environment start from the current one.
struct Folder<'a>(&'a Path);

impl Folder<'_> {
    /// A path that errors may repeat.
    fn readable(&self, text: Sourced<String>, problems: &mut Vec<Problem>) -> Option<PathBuf> {
        let origin = text.origin.clone();
        let is_secret = may_be_secret(&text.value);
        let path = self.path(text);
        if is_secret && !path.exists() {
            let problem = Problem::new(origin, "takes paths; this is none, and it is not shown: it may be a key");
            problems.push(problem.hint("write the path of a file"));
            return None;
        }
        Some(path)
    }

    fn path(&self, text: Sourced<String>) -> PathBuf {
        let path = PathBuf::from(text.value.trim_end_matches(['\n', '\r']));
        match text.origin {
            Origin::File { .. } => self.0.join(path),
            _ => path,
        }
    }
}
