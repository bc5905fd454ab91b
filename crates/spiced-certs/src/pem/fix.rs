//! What the fixes in messages are worded with: what a text was expected to contain, and shell words.

use std::path::Path;

/// What a PEM text is expected to contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Certificate,
    Key,
    ClientCa,
    RevocationList,
    /// The roots that clients trust.
    Authority,
}

impl Expected {
    /// Returns the beginning of a shell command that writes such material: only its owner may read a key.
    pub(crate) fn umask(self) -> &'static str {
        if self == Self::Key { "umask 077 && " } else { "" }
    }

    /// Describes what the setting accepts.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Certificate => "it expects a PEM file: the server's certificate, then its intermediates",
            Self::Key => "it expects one RSA, ECDSA or Ed25519 key in PEM (PKCS#8, PKCS#1 or SEC1)",
            Self::ClientCa => {
                "it expects a PEM file with the certificate of the CA that signs client certificates, not a client's \
                 own"
            }
            Self::Authority => "it expects a PEM file with the certificates of the roots that clients trust",
            Self::RevocationList => "it expects the CA's revocation list (CRL), PEM or DER",
        }
    }
}

/// Quotes `text` as one shell word.
pub(crate) fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| "FILE".to_owned(), |word| word.into_owned())
}

/// Returns `file` as a shell word, and the same with `extension` appended.
pub(super) fn files(file: Option<&Path>, extension: &str) -> (String, String) {
    match file.map(|file| file.display().to_string()) {
        Some(file) => (quoted(&file), quoted(&format!("{file}.{extension}"))),
        None => ("FILE".to_owned(), format!("FILE.{extension}")),
    }
}
