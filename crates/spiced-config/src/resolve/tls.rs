//! From raw to resolved `runtime.tls`.

use std::time::Duration;

use tls_core::{Origin, Sourced};

use crate::problem::Problem;
use crate::problem::shown::{is_pem, may_be_secret};
use crate::raw::spanned::{SecretInput, Spanned, Templated};
use crate::raw::spicepod::{self, ClientAuthMode, Profile};
use crate::resolve::decode::{UNQUOTE, quotes};
use crate::resolve::folder::Folder;
use crate::settings::{Clients, Material, MaterialInput, Pair, Tls, TlsVersion, Warning};
use crate::tls_source::WAYS;

impl spicepod::Tls {
    /// Returns whether client certificates are requested.
    pub(super) fn asks(&self, tls_on: bool, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) -> bool {
        let mode = self.client_auth_mode.as_ref().map(|mode| &mode.0);
        match mode {
            Some(mode) if mode.value != ClientAuthMode::None => {
                if !tls_on {
                    problems.push(
                        Problem::new(
                            mode.origin.clone(),
                            "wants client certificates, and TLS is off: none could be shown",
                        )
                        .hint(WAYS),
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

    /// Reports settings that have no effect without TLS: their author expects TLS to be on.
    pub(super) fn without_tls(&self, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) {
        if let Some(passphrase) = &self.key_passphrase {
            let problem =
                Problem::new(passphrase.secret.origin.clone(), "gives the passphrase of a key, and there is no key");
            problems.push(problem.hint(WAYS));
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

    pub(super) fn decide(self, folder: &Folder<'_>, asks: bool) -> Result<Tls, Vec<Problem>> {
        let mut problems = Vec::new();
        let min_version = match (self.profile, self.min_version) {
            (Some(Spanned(p)), Some(Spanned(v))) if p.value == Profile::Modern && v.value == TlsVersion::Tls12 => {
                let message = format!("TLS 1.2 contradicts the profile `modern` at {}", p.origin);
                let problem = Problem::new(v.origin, message);
                problems.push(problem.hint("the profile `modern` is TLS 1.3 alone; take one of the two away"));
                TlsVersion::Tls13
            }
            (Some(Spanned(p)), None) if p.value == Profile::Modern => TlsVersion::Tls13,
            (_, Some(Spanned(v))) if v.value == TlsVersion::Tls13 => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        };
        let main = spicepod::TlsPair {
            certificate_file: self.certificate_file,
            certificate: self.certificate,
            key_file: self.key_file,
            key: self.key,
            key_passphrase: self.key_passphrase,
        };
        let main = main.decide(folder).unwrap_or_else(|wrong| {
            problems.extend(wrong);
            None
        });
        let mut more = Vec::new();
        for Spanned(Sourced { value: pair, origin }) in self.certificates {
            match pair.decide(folder) {
                Ok(Some(pair)) => more.push(pair),
                Ok(None) => {
                    let problem = Problem::new(origin, "a pair has a certificate and a key, and this one has neither");
                    problems.push(problem.hint("write certificate_file and key_file"));
                }
                Err(wrong) => problems.extend(wrong),
            }
        }
        let authority = one_of(self.client_auth_ca_file, self.client_auth_ca, folder);
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
            // The first pair becomes the default for names without a pair.
            None => Material::Pair(Box::new(more.remove(0))),
        };
        let handshake_timeout = self.handshake_timeout.map_or(Duration::from_secs(10), |s| s.0);
        let strict_sni = self.strict_sni.unwrap_or(false);
        let accept_findings = self.accept_findings;
        Ok(Tls { material, more, strict_sni, min_version, clients, handshake_timeout, accept_findings })
    }
}

impl spicepod::TlsPair {
    /// Returns a pair, or nothing if none of its settings are given.
    fn decide(self, folder: &Folder<'_>) -> Result<Option<Pair>, Vec<Problem>> {
        let certificate = one_of(self.certificate_file, self.certificate, folder);
        let key = one_of(self.key_file, self.key, folder);
        let passphrase = self.key_passphrase.map(|input| {
            if input.secret.value.is_empty() {
                let problem = Problem::new(input.secret.origin, "the passphrase is empty");
                return Err(problem.hint("take it away, or give the key's own"));
            }
            Ok(input.value().map(MaterialInput::Text))
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

fn one_of(
    file: Option<Templated>,
    text: Option<SecretInput>,
    folder: &Folder<'_>,
) -> Result<Option<Sourced<MaterialInput>>, Problem> {
    let input = match (file, text) {
        (Some(Templated { placed: Spanned(file), reference }), _) => {
            if file.value.trim().is_empty() {
                return Err(Problem::new(file.origin, "the path is empty").hint(WAYS));
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
            // The value of a reference may be a password by mistake: it is shown only if it is the path of a file.
            if reference && !is_there {
                return Err(Problem::new(file.origin, "there is no file by the path that the reference gives")
                    .hint("is it the PEM text itself? for text use certificate and key, without _file"));
            }
            // The same applies to a key that was given without its PEM frame.
            if may_be_secret(&file.value) && !is_there {
                let message = "takes the path of a file; this is none, and it is not shown: it may be a key";
                return Err(Problem::new(file.origin, message)
                    .hint("write the path of a PEM file; for PEM text use certificate and key, without _file"));
            }
            let origin = file.origin.clone();
            Sourced::new(MaterialInput::File(folder.path(file)), origin)
        }
        (None, Some(input)) => {
            if input.secret.value.is_blank() {
                return Err(Problem::new(input.secret.origin, "the PEM text is empty").hint(WAYS));
            }
            input.value().map(MaterialInput::Text)
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(input))
}

fn half(origin: Origin, given: &str, missing: &str) -> Problem {
    Problem::new(origin, format!("gives {given}, and nothing gives {missing}")).hint(WAYS)
}
