//! Recognizes the format of a file that is not PEM, by its content and never by its name.

mod foreign;

use std::path::Path;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use self::foreign::{Foreign, json, kubernetes};
use super::der::KeyForm;
use super::fix::{Expected, files};

/// The format of a file without PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// DER.
    Der,
    /// PKCS#12, with a certificate and its key. `old`: encrypted with an algorithm that OpenSSL 3 supports only through
    /// its legacy provider.
    Pkcs12 { old: bool },
    /// PKCS#7 in DER: certificates without a key.
    Pkcs7Der,
    /// Java's own keystore format.
    JavaKeystore,
    /// A certificate request in DER.
    RequestDer,
    /// DER in base64, without PEM lines around it. `key`: whether it is a private key; `wide`: whether
    /// the text is UTF-16.
    Coded { key: bool, wide: bool },
    /// PKCS#12, PKCS#7 or a Java keystore in base64.
    CodedStore,
    /// DER in hexadecimal digits; `array`: in the braces of a C program.
    Hex { key: bool, array: bool },
    /// The output of `xxd` or `hexdump -C`.
    Dump { tool: DumpTool, inner: DumpContent },
    /// A template with placeholders that were not replaced.
    Template,
    /// Other binary data.
    Binary,
    /// A path. `quoted`: whether it includes the quotes.
    Path { quoted: bool },
    /// A web page.
    Html,
    /// A file of another program.
    Other(Foreign),
}

/// The program that wrote a hexadecimal dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DumpTool {
    Xxd,
    Hexdump,
}

/// What a hexadecimal dump shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DumpContent {
    Text,
    Certificate,
    Key,
}

impl Format {
    /// Detects the format of data that is not text, by its first bytes.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        const SEQUENCE: u8 = 0x30;
        // PFX (RFC 7292 §4): version 3, then a sequence. No key or certificate begins this way.
        const PFX: [u8; 4] = [0x02, 0x01, 0x03, SEQUENCE];
        // signedData, 1.2.840.113549.1.7.2.
        const SIGNED_DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
        let other = Self::Other;
        match bytes {
            // The magic numbers of JKS and JCEKS.
            [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => Self::JavaKeystore,
            [b'P', b'K', 3 | 5, 4 | 6, ..] => other(Foreign::Zip),
            [0x1f, 0x8b, ..] => other(Foreign::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => other(Foreign::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => other(Foreign::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => other(Foreign::Zstd),
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => other(Foreign::SevenZip),
            [0, b'G', b'I', b'T', b'C', b'R', b'Y', b'P', b'T', ..] => other(Foreign::GitCrypt),
            _ if bytes.starts_with(b"age-encryption.org/") => other(Foreign::Age),
            _ if bytes.get(257..262) == Some(b"ustar") => other(Foreign::Tar),
            // OpenPGP (RFC 9580 §4.2): a packet with an encrypted session key, for a public key or a passphrase, in the
            // old or new packet format.
            [0x84 | 0x85 | 0x8c, _, 2..=4, ..] | [0xc1 | 0xc3, _, 3..=6, ..] => other(Foreign::Pgp),
            [SEQUENCE, length, content @ ..] => {
                let more = usize::from(if *length > 0x80 { length & 0x7f } else { 0 });
                // Newer Java keystores and some Windows files are BER with indefinite length.
                match content.get(more..) {
                    Some(content) if content.starts_with(&PFX) => Self::Pkcs12 { old: is_old(bytes) },
                    Some(content) if content.starts_with(&SIGNED_DATA) => Self::Pkcs7Der,
                    _ if X509CertificationRequest::from_der(bytes).is_ok() => Self::RequestDer,
                    _ => Self::Der,
                }
            }
            _ => Self::Binary,
        }
    }

    /// Detects the format of a text without a readable PEM block.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let start: String = text.chars().take(400).collect();
        let lower = start.to_ascii_lowercase();
        let line = |wanted: &str| text.lines().take(2000).any(|line| line.trim_start().starts_with(wanted));
        let foreign = |what| Some(Self::Other(what));
        if lower.contains("<html") || lower.contains("<!doctype") {
            return Some(Self::Html);
        }
        if start.starts_with("PuTTY-User-Key-File-") {
            return foreign(Foreign::Putty);
        }
        if start.starts_with("$ANSIBLE_VAULT;") {
            return foreign(Foreign::AnsibleVault);
        }
        if start.starts_with("version https://git-lfs.github.com/") {
            return foreign(Foreign::GitLfs);
        }
        if start.starts_with("age-encryption.org/") || line("-----BEGIN AGE ENCRYPTED FILE") {
            return foreign(Foreign::Age);
        }
        if line("-----BEGIN PGP PUBLIC KEY") || line("-----BEGIN PGP PRIVATE KEY") {
            return foreign(Foreign::PgpKey);
        }
        if line("-----BEGIN PGP") {
            return foreign(Foreign::Pgp);
        }
        if text.contains("ENC[AES256_GCM,") || line("sops:") || line("\"sops\":") || line("sops_version=") {
            return foreign(Foreign::Sops);
        }
        if ["ssh-rsa ", "ssh-ed25519 ", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-", "---- BEGIN SSH2 PUBLIC KEY"]
            .iter()
            .any(|begin| start.starts_with(begin))
            || start.contains("-cert-v01@openssh.com ")
        {
            return foreign(Foreign::SshPublicKey);
        }
        if let Some(json) = json(text) {
            return foreign(json);
        }
        if let Some(secret) = kubernetes(text) {
            return foreign(secret);
        }
        if lower.starts_with("certificate request:") {
            return foreign(Foreign::RequestText);
        }
        if lower.starts_with("certificate:") {
            return foreign(Foreign::CertificateText);
        }
        if lower.starts_with("private-key:") || lower.starts_with("rsa private-key:") {
            return foreign(Foreign::KeyText);
        }
        if lower.contains("<rsakeyvalue") {
            return foreign(Foreign::XmlKey);
        }
        if lower.trim_start().starts_with('{') && text.contains("\"kty\"") {
            return foreign(Foreign::JsonWebKey);
        }
        let is_reference = |text: &str| {
            let name = text.strip_prefix('$').map(|rest| rest.trim_matches(['{', '}']));
            name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        };
        let has = |begin: &str, end: &str| text.contains(begin) && text.contains(end);
        let is_framed = |begin: &str, end: &str| {
            let name = text.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end)).unwrap_or_default();
            !name.is_empty() && name.len() < 80 && name.chars().all(|c| c.is_alphanumeric() || " _-.".contains(c))
        };
        let framed = [("@", "@"), ("%", "%"), ("__", "__"), ("<", ">"), ("[", "]"), ("#{", "}#")];
        if has("{{", "}}")
            || has("<%", "%>")
            || has("{%", "%}")
            || is_reference(text)
            || framed.iter().any(|(begin, end)| is_framed(begin, end))
        {
            return Some(Self::Template);
        }
        let array = text.split_once('{').and_then(|(_, rest)| Some(rest.split_once('}')?.0));
        if let Some(inner) = digits(array.unwrap_or(text)) {
            let key = KeyForm::of(&inner).is_some();
            if key || X509Certificate::from_der(&inner).is_ok() {
                return Some(Self::Hex { key, array: array.is_some() });
            }
        }
        let one_line = !text.contains('\n') && text.len() < 4096;
        let is_quoted = |text: &str| {
            let quote = text.chars().next().filter(|c| ['"', '\''].contains(c));
            text.len() > 2 && quote.is_some_and(|quote| text.ends_with(quote))
        };
        let bare = text.trim_matches(['"', '\'']);
        (one_line
            && (bare.starts_with(['/', '.', '~'])
                || bare.starts_with("file:")
                || [".pem", ".crt", ".key", ".cer"].iter().any(|end| bare.ends_with(end))))
        .then(|| Self::Path { quoted: is_quoted(text) })
    }

    /// Detects a hexadecimal dump, which may show PEM.
    pub(crate) fn of_dump(text: &str) -> Option<Self> {
        let first = text.trim_start().lines().next()?;
        let offset = first.bytes().take_while(u8::is_ascii_hexdigit).count();
        let tool = match &first[offset..] {
            rest if rest.starts_with(": ") => DumpTool::Xxd,
            rest if rest.starts_with("  ") && rest.ends_with('|') => DumpTool::Hexdump,
            _ => return None,
        };
        if offset != 8 {
            return None;
        }
        let mut bytes = Zeroizing::new(Vec::new());
        for line in text.lines() {
            let line = line.get(8..).unwrap_or_default().trim_start_matches([':', ' ']);
            let end = if tool == DumpTool::Xxd { line.find("  ") } else { line.find('|') };
            bytes.extend(digits(&line[..end.unwrap_or(line.len())]).iter().flat_map(|part| part.iter()));
        }
        let inner = match bytes.as_slice() {
            bytes if bytes.starts_with(b"-----BEGIN") => DumpContent::Text,
            bytes if KeyForm::of(bytes).is_some() => DumpContent::Key,
            bytes if X509Certificate::from_der(bytes).is_ok() => DumpContent::Certificate,
            _ => return None,
        };
        Some(Self::Dump { tool, inner })
    }

    /// Returns the text that follows `it holds no PEM block` in a message.
    pub(crate) fn instead(&self) -> &'static str {
        match self {
            Self::Der => ", but DER, the binary form",
            Self::Pkcs12 { .. } => ", but a PKCS#12 store (.p12, .pfx)",
            Self::Pkcs7Der => ", but PKCS#7 in its binary form (.p7b), certificates without a key",
            Self::JavaKeystore => ", but a Java keystore",
            Self::RequestDer => {
                ", but a certificate request in DER: the certificate that the CA issued for it is required"
            }
            Self::Coded { key: false, .. } => ", but a certificate in base64, without the lines that begin and end it",
            Self::Coded { key: true, .. } => ", but a private key in base64, without the lines that begin and end it",
            Self::CodedStore => ", but a keystore (PKCS#12, PKCS#7 or Java's) in base64",
            Self::Hex { key: false, .. } => ", but a certificate in hexadecimal digits",
            Self::Hex { key: true, .. } => ", but a private key in hexadecimal digits",
            Self::Dump { tool: DumpTool::Xxd, .. } => ", but the output of xxd",
            Self::Dump { tool: DumpTool::Hexdump, .. } => ", but the output of hexdump",
            Self::Template => ", but a template that has not been filled in",
            Self::Binary => ", but binary data",
            Self::Path { quoted: false } => ", but what looks like a path",
            Self::Path { quoted: true } => ", but what looks like a path, with the quotes around it",
            Self::Html => ", but a web page",
            Self::Other(foreign) => foreign.instead(),
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Der => "TLS-DER",
            Self::Pkcs12 { .. } => "TLS-PKCS12",
            Self::Pkcs7Der => "TLS-PKCS7",
            Self::JavaKeystore => "TLS-JKS",
            Self::RequestDer => "TLS-NO-CERTIFICATE",
            Self::Coded { .. } => "TLS-PEM-CUT",
            Self::CodedStore => "TLS-PKCS12",
            Self::Hex { .. } | Self::Dump { .. } => "TLS-DER",
            Self::Binary | Self::Template => "TLS-NOT-PEM",
            Self::Path { .. } => "TLS-PATH-AS-PEM",
            Self::Html => "TLS-HTML",
            Self::Other(foreign) => foreign.code(),
        }
    }

    /// Returns the fix, given that `wanted` was expected in `file`, or in a setting; `None` if only a description of
    /// what is expected helps.
    pub(crate) fn fix(&self, wanted: Expected, file: Option<&Path>) -> Option<String> {
        // A container may be given for both the certificate and the key.
        let is_container = matches!(self, Self::Pkcs12 { .. } | Self::JavaKeystore) && wanted == Expected::Key;
        let (from, to) = files(file, if is_container { "key.pem" } else { "pem" });
        let (_, between) = files(file, "p12");
        let unpack = match wanted {
            Expected::Key => "-nocerts -nodes",
            _ => "-nokeys",
        };
        let convert = match (self, wanted) {
            (Self::Der, Expected::Key) => format!("`openssl pkey -inform der -in {from} -out {to}`"),
            (Self::Der, Expected::RevocationList) => format!("`openssl crl -inform der -in {from} -out {to}`"),
            (Self::Der, _) => format!("`openssl x509 -inform der -in {from} -out {to}`"),
            (Self::Pkcs12 { old }, _) => {
                let legacy = if *old { " -legacy" } else { "" };
                format!("`openssl pkcs12{legacy} -in {from} {unpack} -out {to}`")
            }
            (Self::RequestDer, _) => {
                return Some("give the certificate that the CA issued for it; a request cannot be served".to_owned());
            }
            (Self::Coded { key, wide }, _) => {
                let tool = if *key { "pkey" } else { "x509" };
                let narrow = match wide {
                    true => format!("iconv -f UTF-16 -t UTF-8 {from} | grep -v -- -----"),
                    false => format!("grep -v -- ----- {from}"),
                };
                format!("`{narrow} | base64 -d | openssl {tool} -inform der -out {to}`")
            }
            (Self::Hex { key, array }, _) => {
                let tool = if *key { "pkey" } else { "x509" };
                let bare = match array {
                    true => "sed -n -e '/{/,/}/{' -e 's/.*{//' -e 's/}.*//' -e 's/0x//g' -e p -e '}'",
                    false => "sed 's/0x//g'",
                };
                format!("`{bare} {from} | tr -dc 0-9A-Fa-f | {UNHEX} | openssl {tool} -inform der -out {to}`")
            }
            (Self::Dump { tool, inner }, _) => {
                let bare = match tool {
                    DumpTool::Xxd => "sed -e 's/^[0-9a-f]*: *//' -e 's/  .*//'",
                    DumpTool::Hexdump => "sed -e 's/^[0-9a-f]* *//' -e 's/|.*//'",
                };
                let write = match inner {
                    DumpContent::Text => format!("> {to}"),
                    DumpContent::Certificate => format!("| openssl x509 -inform der -out {to}"),
                    DumpContent::Key => format!("| openssl pkey -inform der -out {to}"),
                };
                let private = if *inner == DumpContent::Certificate { "" } else { "umask 077 && " };
                format!("`{private}{bare} {from} | tr -dc 0-9A-Fa-f | {UNHEX} {write}`")
            }
            (Self::CodedStore, _) => {
                let (from, to) = files(file, "bin");
                return Some(format!(
                    "decode it, and give the new file for what comes next: `base64 -d < {from} > {to}`"
                ));
            }
            (Self::Template, _) => {
                return Some("use the file that the template is rendered to, with the values in it".to_owned());
            }
            (Self::Pkcs7Der, Expected::Key) => return Some(no_key_in_pkcs7()),
            (Self::Pkcs7Der, _) => format!("`openssl pkcs7 -inform der -print_certs -in {from} -out {to}`"),
            (Self::JavaKeystore, _) => format!(
                "`keytool -importkeystore -srckeystore {from} -destkeystore {between} -deststoretype PKCS12 && openssl pkcs12 -in \
                 {between} {unpack} -out {to}`"
            ),
            (Self::Path { .. }, _) if file.is_some() => {
                return Some(
                    "use the file that it names; git and zip archives write a link as such a file if links are off"
                        .to_owned(),
                );
            }
            (Self::Path { quoted: false }, _) => {
                return Some(
                    "for a path use certificate_file or key_file: the settings that end with _file".to_owned(),
                );
            }
            (Self::Path { quoted: true }, _) => {
                return Some(
                    "remove the quotes, and for a path use certificate_file or key_file: docker --env-file treats \
                     quotes as part of the value"
                        .to_owned(),
                );
            }
            (Self::Other(foreign), _) => return foreign.fix(wanted, file),
            (Self::Binary | Self::Html, _) => return None,
        };
        Some(format!("convert it and use the new file: {convert}"))
    }
}

/// Decodes hexadecimal digits.
const UNHEX: &str = "tr a-f A-F | basenc --base16 -d";

/// Returns the bytes that `text` shows in hexadecimal digits, with blanks, colons or `0x` between them.
fn digits(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = Zeroizing::new(text.replace("0x", " ").replace("\\x", " "));
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    let mut high = None;
    for byte in text.bytes() {
        match (digit(byte), high) {
            (Some(digit), None) => high = Some(digit),
            (Some(digit), Some(first)) => {
                bytes.push(first << 4 | digit);
                high = None;
            }
            (None, _) if byte.is_ascii_whitespace() || [b':', b',', b'-'].contains(&byte) => {}
            (None, _) => return None,
        }
    }
    high.is_none().then_some(bytes)
}

pub(crate) fn no_key_in_pkcs7() -> String {
    "PKCS#7 holds no key: give the key file that was made with the certificate's request".to_owned()
}

/// Returns true for PKCS#12 encrypted with RC2 or RC4 (RFC 7292 §B: 1.2.840.113549.1.12.1.1, .2, .5 and .6).
fn is_old(bytes: &[u8]) -> bool {
    const PBE: [u8; 11] = [0x06, 0x0a, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];
    bytes.windows(12).any(|window| window[..11] == PBE && [1, 2, 5, 6].contains(&window[11]))
}
