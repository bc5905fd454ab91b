//! Why a PEM text cannot be used: the reason, its stable code and the fix.

use std::path::Path;

use super::damage::Around;
use super::fix::{Expected, quoted};
use super::format::{Format, no_key_in_pkcs7};

/// Why a PEM text cannot be used. No variant contains any of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PemError {
    /// The text is only white space.
    #[error("it is empty")]
    Empty,
    /// There is no PEM block.
    #[error("it holds no PEM block{}", .format.as_ref().map_or("", Format::instead))]
    NoPem {
        /// The detected format, if it is known.
        format: Option<Format>,
    },
    /// A block has no END line.
    #[error("the block `{label}` has no end; the text is cut off")]
    Unfinished {
        /// The block's label.
        label: String,
    },
    /// A block's content is not base64.
    #[error("the block `{label}` is not base64; {}", .around.map_or("the text is damaged", Around::text))]
    NotBase64 {
        /// The block's label.
        label: String,
        /// The text around its lines, if that is recognized.
        around: Option<Around>,
    },
    /// A block has another length than its content states.
    #[error("the block `{label}` is damaged: {}", .around.map_or("lines or letters of it are lost or doubled", Around::text))]
    Damaged {
        /// The block's label.
        label: String,
        /// The text around its lines, if that is recognized.
        around: Option<Around>,
    },
    /// The text has git's conflict markers.
    #[error("it has git's conflict markers: a merge left two versions in it")]
    Conflict,
    /// There are blocks, but no certificate.
    #[error("it holds no certificate{}", .instead.text())]
    NoCertificate {
        /// What was found instead.
        instead: FoundInstead,
    },
    /// There are blocks, but no private key.
    #[error("it holds no private key{}", .instead.text())]
    NoKey {
        /// What was found instead.
        instead: FoundInstead,
    },
    /// There are blocks, but no revocation list.
    #[error("it holds no revocation list{}", .instead.text())]
    NoRevocationList {
        /// What was found instead.
        instead: FoundInstead,
    },
    /// There are several private keys.
    #[error("it holds {count} private keys; exactly one is required")]
    SeveralKeys {
        /// The number of keys.
        count: usize,
    },
    /// The private key is encrypted, and no passphrase is given.
    #[error("the private key is encrypted, and no passphrase is set")]
    Encrypted,
    /// The private key is encrypted with another passphrase, or damaged.
    #[error("the passphrase that is set does not decrypt the private key")]
    WrongPassphrase,
    /// The private key is encrypted in a way that is not supported.
    #[error("the private key is encrypted in a way that is not supported{}", .cipher.as_ref().map(|name| format!(" ({name})")).unwrap_or_default())]
    UnknownCipher {
        /// The cipher, if the file names it.
        cipher: Option<String>,
    },
    /// The private key is of a kind that is not supported.
    #[error("the private key is {kind}, which is not supported here (rustls)")]
    UnknownKey {
        /// The kind.
        kind: String,
    },
}

impl PemError {
    /// Returns the stable code of the finding.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Empty => "TLS-EMPTY",
            Self::NoPem { format: Some(format) } => format.code(),
            Self::NoPem { format: None } => "TLS-NOT-PEM",
            Self::Unfinished { .. } => "TLS-PEM-CUT",
            Self::NotBase64 { .. } | Self::Damaged { .. } | Self::Conflict => "TLS-PEM-DAMAGED",
            Self::NoCertificate { instead: FoundInstead::Key } | Self::NoKey { instead: FoundInstead::Certificate } => {
                "TLS-SWAPPED"
            }
            Self::NoCertificate { instead: FoundInstead::Pkcs7 } | Self::NoKey { instead: FoundInstead::Pkcs7 } => {
                "TLS-PKCS7"
            }
            Self::NoCertificate { .. } => "TLS-NO-CERTIFICATE",
            Self::NoKey { .. } => "TLS-NO-KEY",
            Self::NoRevocationList { .. } => "TLS-NO-CRL",
            Self::SeveralKeys { .. } => "TLS-SEVERAL-KEYS",
            Self::Encrypted => "TLS-KEY-ENCRYPTED",
            Self::WrongPassphrase => "TLS-KEY-PASSPHRASE",
            Self::UnknownCipher { .. } => "TLS-KEY-CIPHER",
            Self::UnknownKey { .. } => "TLS-KEY-UNUSABLE",
        }
    }

    /// Returns the fix, given that `wanted` was expected in `file`, or in a setting. Commands are in backticks and can
    /// be run as they are.
    pub(crate) fn fix(&self, wanted: Expected, file: Option<&Path>) -> String {
        let (from, to) = match file.map(|file| file.display().to_string()) {
            Some(file) => (quoted(&file), quoted(&format!("{file}.pem"))),
            None => ("FILE".to_owned(), "FILE.pem".to_owned()),
        };
        match self {
            Self::Encrypted => "also set key_passphrase, to a reference such as ${env:TLS_KEY_PASSPHRASE}".to_owned(),
            Self::WrongPassphrase => {
                format!("compare key_passphrase with the passphrase that decrypts it: `openssl pkey -noout -in {from}`")
            }
            Self::NoPem { format: Some(format) } => {
                format.fix(wanted, file).unwrap_or_else(|| wanted.description().to_owned())
            }
            Self::NoKey { instead: FoundInstead::Pkcs7 } => no_key_in_pkcs7(),
            Self::NoCertificate { instead: FoundInstead::Pkcs7 } => {
                format!("convert it and use the new file: `openssl pkcs7 -print_certs -in {from} -out {to}`")
            }
            Self::UnknownCipher { .. } => format!(
                "convert it and use the new file: `openssl pkcs8 -topk8 -v2 aes-256-cbc -provider legacy -provider \
                 default -in {from} -out {to}`"
            ),
            Self::Unfinished { .. } if file.is_none() => format!(
                "a value of several lines must be quoted where it is set: in .env NAME=\"-----BEGIN …\", in YAML with \
                 a block scalar (|); {}",
                wanted.description()
            ),
            Self::NotBase64 { around: Some(around), .. } | Self::Damaged { around: Some(around), .. }
                if around.can_be_taken_away() =>
            {
                let private = wanted.umask();
                format!("remove that and use the new file: `{private}{} {from} > {to}`", around.sed())
            }
            Self::Conflict => {
                let private = wanted.umask();
                format!(
                    "keep one of the two versions and use the new file; for the first: `{private}sed -e '/^<<<<<<< /d' -e \
                     '/^=======$/,/^>>>>>>> /d' {from} > {to}`"
                )
            }
            Self::NotBase64 { .. } | Self::Damaged { .. } | Self::Unfinished { .. } => {
                format!("copy it again, completely, from its source; {}", wanted.description())
            }
            Self::SeveralKeys { .. } => "keep only the certificate's key in it".to_owned(),
            _ => wanted.description().to_owned(),
        }
    }

    /// Returns true if the file has one other format as a whole, whatever was expected in it.
    pub(crate) fn is_container(&self) -> bool {
        matches!(self, Self::NoPem { format: Some(_) })
    }

    /// Returns true if the text may have been read in the middle of a write.
    pub(crate) fn maybe_partial_write(&self) -> bool {
        matches!(
            self,
            Self::Empty
                | Self::Unfinished { .. }
                | Self::NotBase64 { .. }
                | Self::Damaged { .. }
                | Self::WrongPassphrase
                | Self::NoPem { format: None }
                | Self::NoCertificate { instead: FoundInstead::Other }
                | Self::NoKey { instead: FoundInstead::Other }
        )
    }
}

/// What a text contains instead of what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoundInstead {
    /// Blocks of other kinds.
    Other,
    /// A certificate, but a key was expected.
    Certificate,
    /// A private key, but a certificate was expected.
    Key,
    /// A certificate request.
    Request,
    /// A public key.
    PublicKey,
    /// PKCS#7: certificates without a key.
    Pkcs7,
    /// A revocation list.
    RevocationList,
    /// An attribute certificate (RFC 5755).
    AttributeCertificate,
    /// Diffie-Hellman or curve parameters.
    Parameters,
}

impl FoundInstead {
    fn text(self) -> &'static str {
        match self {
            Self::Other => "",
            Self::Certificate => ", but a certificate: are certificate and key swapped?",
            Self::Key => ", but a private key: are certificate and key swapped?",
            Self::Request => ", but a certificate request: the certificate that the CA issued for it is required",
            Self::PublicKey => ", but a public key",
            Self::Pkcs7 => ", but PKCS#7 (.p7b), certificates without a key",
            Self::RevocationList => ", but a revocation list (CRL)",
            Self::AttributeCertificate => ", but an attribute certificate, which cannot be used for TLS",
            Self::Parameters => ", but only parameters (DH or EC)",
        }
    }
}
