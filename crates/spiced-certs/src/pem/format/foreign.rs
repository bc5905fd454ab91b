//! Files of other programs: how they are recognized, and how to get PEM out of them.

use std::path::Path;

use serde_json::{Map, Value};

use crate::pem::fix::{Expected, files, quoted};

/// Files of other programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// A Kubernetes Secret, and its name.
    Secret {
        json: bool,
        name: Option<String>,
        namespace: Option<String>,
    },
    SealedSecret,
    /// What the External Secrets Operator makes a Secret from.
    ExternalSecret,
    /// Traefik's acme.json.
    Acme,
    Putty,
    SshPublicKey,
    Zip,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    SevenZip,
    Tar,
    Sops,
    Age,
    AnsibleVault,
    GitLfs,
    GitCrypt,
    Pgp,
    PgpKey,
    /// cert-manager's `kind: Certificate`.
    CertManager,
    /// `openssl … -text -noout`.
    CertificateText,
    KeyText,
    RequestText,
    JsonWebKey,
    XmlKey,
}

impl Foreign {
    pub(super) fn instead(&self) -> &'static str {
        match self {
            Self::Secret { .. } => ", but a Kubernetes Secret",
            Self::Acme => ", but Traefik's store of certificates (acme.json)",
            Self::ExternalSecret => ", but what a Kubernetes operator makes a Secret from (kind: ExternalSecret)",
            Self::SealedSecret => ", but a Kubernetes SealedSecret, which only its cluster opens",
            Self::Putty => ", but a key in PuTTY's format (.ppk)",
            Self::SshPublicKey => ", but an SSH public key",
            Self::Zip => ", but a zip archive",
            Self::Gzip => ", but a gzip archive",
            Self::Bzip2 => ", but a bzip2 archive",
            Self::Xz => ", but an xz archive",
            Self::Zstd => ", but a zstd archive",
            Self::SevenZip => ", but a 7z archive",
            Self::Tar => ", but a tar archive",
            Self::Sops => ", but a file that SOPS has encrypted",
            Self::Age => ", but a file that age has encrypted",
            Self::AnsibleVault => ", but a file that Ansible Vault has encrypted",
            Self::GitLfs => ", but a pointer of Git LFS: the file itself was not fetched",
            Self::GitCrypt => ", but a file that git-crypt has encrypted",
            Self::Pgp => ", but an OpenPGP message",
            Self::PgpKey => ", but an OpenPGP key",
            Self::CertManager => ", but the resource from which cert-manager makes a certificate (kind: Certificate)",
            Self::CertificateText => ", but openssl's description of a certificate (-text -noout)",
            Self::KeyText => ", but openssl's description of a key (-text -noout)",
            Self::RequestText => ", but openssl's description of a certificate request",
            Self::JsonWebKey => ", but a JSON Web Key",
            Self::XmlKey => ", but a key in .NET's XML",
        }
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Secret { .. } | Self::SealedSecret | Self::ExternalSecret => "TLS-KUBERNETES-SECRET",
            Self::Acme => "TLS-NOT-PEM",
            Self::Putty => "TLS-PUTTY",
            Self::SshPublicKey => "TLS-SSH-PUBLIC-KEY",
            Self::Zip | Self::Gzip | Self::Bzip2 | Self::Xz | Self::Zstd | Self::SevenZip | Self::Tar => "TLS-ARCHIVE",
            Self::Sops | Self::Age | Self::AnsibleVault | Self::GitCrypt | Self::Pgp => "TLS-FILE-ENCRYPTED",
            Self::GitLfs => "TLS-GIT-LFS",
            Self::CertificateText | Self::KeyText | Self::RequestText => "TLS-TEXT-OUTPUT",
            Self::CertManager => "TLS-KUBERNETES-SECRET",
            Self::JsonWebKey | Self::XmlKey | Self::PgpKey => "TLS-NOT-PEM",
        }
    }

    pub(super) fn fix(&self, wanted: Expected, file: Option<&Path>) -> Option<String> {
        let (from, to) = files(file, if wanted == Expected::Key { "key.pem" } else { "pem" });
        let (_, directory) = files(file, "d");
        let parent = file.and_then(Path::parent).filter(|parent| !parent.as_os_str().is_empty());
        let repository = parent.map_or_else(|| ".".to_owned(), |parent| quoted(&parent.display().to_string()));
        let private = wanted.umask();
        let field = match wanted {
            Expected::Key => "tls\\.key",
            Expected::ClientCa => "ca\\.crt",
            _ => "tls\\.crt",
        };
        let command = match self {
            Self::Secret { json, name, namespace } => {
                let pick = match json {
                    true => first_in_json(field, &from),
                    false => format!("sed -n 's/^ *{field}: *//p' {from} | head -n 1"),
                };
                let name = name.as_deref().unwrap_or("NAME");
                let namespace = namespace.as_deref().map(|name| format!(" -n {name}")).unwrap_or_default();
                return Some(format!(
                    "extract the value and use the new file: `{private}{pick} | base64 -d > {to}`; or write \
                     it so in the first place: kubectl get secret {name}{namespace} -o jsonpath='{{.data.{field}}}' | base64 -d"
                ));
            }
            Self::Acme => {
                let field = if wanted == Expected::Key { "key" } else { "certificate" };
                return Some(format!(
                    "extract the first one and use the new file: `{private}{} | base64 -d > {to}`",
                    first_in_json(field, &from)
                ));
            }
            Self::SealedSecret | Self::ExternalSecret => {
                return Some(format!(
                    "use the Secret that the cluster makes from it: kubectl get secret NAME -o \
                     jsonpath='{{.data.{field}}}' | base64 -d"
                ));
            }
            Self::Putty => format!("puttygen {from} -O private-openssh -o {to}"),
            Self::SshPublicKey => {
                return Some(match wanted {
                    Expected::Key => "give the private key that belongs to it: the file without .pub".to_owned(),
                    _ => {
                        "SSH keys are not certificates: have a CA issue one, or create one: spiced tls init".to_owned()
                    }
                });
            }
            Self::Zip => format!("unzip {from} -d {directory}"),
            Self::SevenZip => format!("7z x {from} -o{directory}"),
            Self::Tar => format!("mkdir {directory} && tar -xf {from} -C {directory}"),
            Self::Gzip => format!(
                "{private}mkdir {directory} && {{ tar -xzf {from} -C {directory} || gunzip -c < {from} > {directory}/pem; }}"
            ),
            Self::Bzip2 => format!("{private}bunzip2 -c < {from} > {to}"),
            Self::Xz => format!("{private}xz -dc < {from} > {to}"),
            Self::Zstd => format!("{private}zstd -dc < {from} > {to}"),
            Self::Sops => format!("{private}sops --decrypt --output {to} {from}"),
            Self::Age => format!("{private}age --decrypt -i IDENTITY -o {to} {from}"),
            Self::AnsibleVault => format!("{private}ansible-vault decrypt --output {to} {from}"),
            Self::Pgp => format!("{private}gpg --output {to} --decrypt {from}"),
            Self::GitLfs => {
                // Without the filters that `install` sets up, a pull leaves the pointers in place.
                return Some(format!(
                    "fetch the file itself: `git -C {repository} lfs install --local && git -C {repository} lfs pull`"
                ));
            }
            Self::GitCrypt => return Some(format!("unlock the repository: `cd {repository} && git-crypt unlock`")),
            Self::CertificateText | Self::KeyText | Self::RequestText => {
                let tool = if wanted == Expected::Key { "pkey" } else { "x509" };
                return Some(format!(
                    "it was written by openssl {tool} -text -noout; write PEM from the original file: `openssl {tool} \
                     -in ORIGINAL -out {to}`"
                ));
            }
            Self::PgpKey => {
                return Some(
                    "OpenPGP keys cannot be used for TLS: have a CA issue a certificate, or create one: spiced tls init"
                        .to_owned(),
                );
            }
            Self::CertManager => {
                return Some(format!(
                    "use the Secret that cert-manager writes (its spec.secretName): kubectl get secret NAME -o \
                     jsonpath='{{.data.{field}}}' | base64 -d"
                ));
            }
            Self::JsonWebKey | Self::XmlKey => return None,
        };
        let what = match self {
            Self::Zip | Self::SevenZip | Self::Tar | Self::Gzip => "unpack it, and use the files in it",
            Self::Putty => "convert it and use the new file",
            Self::Bzip2 | Self::Xz | Self::Zstd => "unpack it and use the new file",
            _ => "decrypt it and use the new file",
        };
        Some(format!("{what}: `{command}`"))
    }
}

/// Returns the command that prints the first value of `field`, a basic regular expression, in a JSON file.
fn first_in_json(field: &str, file: &str) -> String {
    format!("grep -io '\"{field}\": *\"[^\"]*\"' {file} | head -n 1 | cut -d '\"' -f 4")
}

/// Recognizes JSON files that hold certificates.
pub(super) fn json(text: &str) -> Option<Foreign> {
    let value: Value = serde_json::from_str(text).ok()?;
    let is_secret = |value: &&Value| value["kind"] == "Secret";
    let is_of = |group: &str| value["apiVersion"].as_str().is_some_and(|version| version.starts_with(group));
    match value["kind"].as_str() {
        Some("Certificate" | "CertificateRequest") if is_of("cert-manager.io/") => return Some(Foreign::CertManager),
        Some("SealedSecret") => return Some(Foreign::SealedSecret),
        Some("ExternalSecret") => return Some(Foreign::ExternalSecret),
        _ => {}
    }
    let secret = match value["kind"].as_str() {
        Some("Secret") => Some(&value),
        Some("List" | "SecretList") => value["items"].as_array().and_then(|items| items.iter().find(is_secret)),
        _ => None,
    };
    if let Some(secret) = secret {
        let name = |key: &str| secret["metadata"][key].as_str().map(str::to_owned).filter(|name| is_name(name));
        return Some(Foreign::Secret { json: true, name: name("name"), namespace: name("namespace") });
    }
    is_acme(&value, 0).then_some(Foreign::Acme)
}

/// Returns true for Traefik's acme.json: objects with `domain`, `certificate` and `key`, in one list for each resolver.
fn is_acme(value: &Value, depth: usize) -> bool {
    // Traefik 1 writes the names with capitals.
    let has = |fields: &Map<String, Value>, name: &str| fields.keys().any(|key| key.eq_ignore_ascii_case(name));
    match value {
        Value::Object(fields) if ["domain", "certificate", "key"].iter().all(|name| has(fields, name)) => true,
        Value::Object(fields) => depth < 4 && fields.values().any(|value| is_acme(value, depth + 1)),
        Value::Array(items) => depth < 4 && items.first().is_some_and(|value| is_acme(value, depth + 1)),
        _ => false,
    }
}

/// Returns true if a message may repeat `name` as that of a Kubernetes object.
fn is_name(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty() && name.len() < 254 && name.bytes().all(is_letter)
}

/// Recognizes a Kubernetes Secret as written by `kubectl get -o yaml` or `-o json`.
pub(super) fn kubernetes(text: &str) -> Option<Foreign> {
    let plain = |value: &str| value.trim().trim_matches(['"', '\'', ',']).trim_matches('"').to_owned();
    let value = |key: &str| {
        text.lines().take(2000).find_map(|line| {
            let line = line.trim_start().trim_start_matches('"');
            let rest = line.strip_prefix(key)?.trim_start_matches('"').strip_prefix(':')?;
            Some(plain(rest)).filter(|value| !value.is_empty())
        })
    };
    match value("kind")?.as_str() {
        "Certificate" | "CertificateRequest" if text.contains("cert-manager.io") => Some(Foreign::CertManager),
        "ExternalSecret" => Some(Foreign::ExternalSecret),
        "SealedSecret" => Some(Foreign::SealedSecret),
        "Secret" | "List" => Some(Foreign::Secret {
            json: text.trim_start().starts_with('{'),
            name: value("name").filter(|name| is_name(name)),
            namespace: value("namespace").filter(|name| is_name(name)),
        }),
        _ => None,
    }
}
