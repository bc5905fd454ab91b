//! A minimal DER reader, enough to tell structures apart, and a writer for the few structures that are written.

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use zeroize::Zeroizing;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTETS: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// Returns the tag and the content of the first element of `der`, and the bytes that follow it.
pub(crate) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ ..=0x7f => (short, rest),
        long => {
            let (bytes, rest) =
                rest.split_at_checked(long & 0x7f).filter(|(bytes, _)| (1..=4).contains(&bytes.len()))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// Returns the elements of the SEQUENCE that `der` begins with.
pub(crate) fn sequence(der: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let (SEQUENCE, mut content, _) = element(der)? else { return None };
    let mut elements = Vec::new();
    while !content.is_empty() && elements.len() < 64 {
        let (tag, inner, rest) = element(content)?;
        elements.push((tag, inner));
        content = rest;
    }
    Some(elements)
}

/// The form of a private key, by its structure, because the label of a PEM block may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// PKCS#8 (RFC 5958).
    Pkcs8,
    /// Encrypted PKCS#8 (RFC 5958 §3).
    EncryptedPkcs8,
    /// PKCS#1 (RFC 8017 §A.1.2).
    Pkcs1,
    /// SEC1 (RFC 5915).
    Sec1,
    /// OpenSSL's form for DSA keys.
    Dsa,
}

impl KeyForm {
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let elements = sequence(der)?;
        let tags: Vec<u8> = elements.iter().map(|(tag, _)| *tag).collect();
        match tags.as_slice() {
            [INTEGER, SEQUENCE, OCTETS, ..] => Some(Self::Pkcs8),
            [SEQUENCE, OCTETS] => Some(Self::EncryptedPkcs8),
            [INTEGER, OCTETS, ..] => Some(Self::Sec1),
            [INTEGER, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER] => Some(Self::Dsa),
            [INTEGER, INTEGER, INTEGER, ..] if tags.len() >= 9 => Some(Self::Pkcs1),
            _ => None,
        }
    }

    /// Returns the key for rustls; `None` if rustls does not support this form.
    pub(crate) fn key(self, der: Vec<u8>) -> Option<PrivateKeyDer<'static>> {
        match self {
            Self::Pkcs8 => Some(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der))),
            Self::Pkcs1 => Some(PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der))),
            Self::Sec1 => Some(PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der))),
            Self::EncryptedPkcs8 | Self::Dsa => None,
        }
    }
}

/// Returns the kind and size of a private key, for a message.
pub(crate) fn kind_of_key(key: &PrivateKeyDer<'_>) -> String {
    let unknown = || "of an unknown kind".to_owned();
    let bits = |modulus: &[u8]| {
        let digits = modulus.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &modulus[at..]);
        digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize)
    };
    let rsa = |der: &[u8]| sequence(der).and_then(|elements| Some(bits(elements.get(1)?.1)));
    match key {
        PrivateKeyDer::Pkcs1(der) => key_name("1.2.840.113549.1.1.1", None, rsa(der.secret_pkcs1_der())),
        PrivateKeyDer::Sec1(der) => {
            let elements = sequence(der.secret_sec1_der()).unwrap_or_default();
            let curve = elements.iter().find(|(tag, _)| *tag == 0xa0).and_then(|(_, inner)| oid(inner));
            key_name("1.2.840.10045.2.1", curve.as_deref(), None)
        }
        PrivateKeyDer::Pkcs8(der) => {
            let elements = sequence(der.secret_pkcs8_der()).unwrap_or_default();
            let [_, (SEQUENCE, algorithm), (OCTETS, inner), ..] = elements.as_slice() else { return unknown() };
            let Some((_, _, parameters)) = element(algorithm) else { return unknown() };
            let Some(kind) = oid(algorithm) else { return unknown() };
            key_name(&kind, oid(parameters).as_deref(), rsa(inner))
        }
        _ => unknown(),
    }
}

/// Returns the object identifier that `der` begins with, in dotted form.
pub(crate) fn oid(der: &[u8]) -> Option<String> {
    let (OID, content, _) = element(der)? else { return None };
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0_u64;
    for byte in content {
        arc = arc.checked_mul(128)? + u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            match arcs.is_empty() {
                true => arcs.extend([(arc / 40).min(2), arc - 40 * (arc / 40).min(2)]),
                false => arcs.push(arc),
            }
            arc = 0;
        }
    }
    Some(arcs.iter().map(u64::to_string).collect::<Vec<_>>().join("."))
}

/// Returns an element with `tag` and `content`.
pub(crate) fn wrap(tag: u8, content: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut der = Zeroizing::new(Vec::with_capacity(content.len() + 6));
    der.push(tag);
    let length = content.len().to_be_bytes();
    match content.len() {
        short @ ..=0x7f => der.push(short as u8),
        _ => {
            let bytes = &length[length.iter().position(|byte| *byte != 0).unwrap_or(0)..];
            der.push(0x80 | bytes.len() as u8);
            der.extend_from_slice(bytes);
        }
    }
    der.extend_from_slice(content);
    der
}

/// Returns a non-negative INTEGER.
pub(crate) fn unsigned(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let digits = bytes.iter().position(|byte| *byte != 0).map_or(&[0][..], |at| &bytes[at..]);
    let mut content = Zeroizing::new(Vec::with_capacity(digits.len() + 1));
    if digits[0] & 0x80 != 0 {
        content.push(0);
    }
    content.extend_from_slice(digits);
    wrap(INTEGER, &content)
}

/// Returns the length of a SEQUENCE with its header, as its header states it; `None` if it is no SEQUENCE of definite
/// length.
pub(crate) fn stated_length(der: &[u8]) -> Option<usize> {
    const SEQUENCE: u8 = 0x30;
    let [SEQUENCE, first, rest @ ..] = der else { return None };
    match *first {
        short @ ..0x80 => Some(2 + usize::from(short)),
        0x80 => None,
        long => {
            let octets = rest.get(..usize::from(long & 0x7f)).filter(|octets| octets.len() <= 4)?;
            let length = octets.iter().fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
            Some(2 + octets.len() + length)
        }
    }
}

/// Returns the common name of a kind of key, given its OIDs.
pub(crate) fn key_name(algorithm: &str, curve: Option<&str>, bits: Option<usize>) -> String {
    let sized = |name: &str| bits.map_or_else(|| name.to_owned(), |bits| format!("{name} of {bits} bits"));
    match (algorithm, curve) {
        ("1.2.840.113549.1.1.1", _) => sized("RSA"),
        ("1.2.840.113549.1.1.10", _) => sized("RSA-PSS"),
        ("1.2.840.10040.4.1", _) => sized("DSA"),
        ("1.2.840.113549.1.3.1", _) => "Diffie-Hellman".to_owned(),
        ("1.3.101.110", _) => "X25519".to_owned(),
        ("1.3.101.111", _) => "X448".to_owned(),
        ("1.3.101.112", _) => "Ed25519".to_owned(),
        ("1.3.101.113", _) => "Ed448".to_owned(),
        ("2.16.840.1.101.3.4.3.17" | "2.16.840.1.101.3.4.3.18" | "2.16.840.1.101.3.4.3.19", _) => "ML-DSA".to_owned(),
        ("1.2.840.10045.2.1", Some(curve)) => match curve {
            "1.2.840.10045.3.1.7" => "ECDSA on P-256".to_owned(),
            "1.3.132.0.34" => "ECDSA on P-384".to_owned(),
            "1.3.132.0.35" => "ECDSA on P-521".to_owned(),
            "1.3.132.0.33" => "ECDSA on P-224".to_owned(),
            "1.2.840.10045.3.1.1" => "ECDSA on P-192".to_owned(),
            "1.3.132.0.10" => "ECDSA on secp256k1".to_owned(),
            "1.3.36.3.3.2.8.1.1.7" => "ECDSA on brainpoolP256r1".to_owned(),
            "1.3.36.3.3.2.8.1.1.11" => "ECDSA on brainpoolP384r1".to_owned(),
            "1.3.36.3.3.2.8.1.1.13" => "ECDSA on brainpoolP512r1".to_owned(),
            "1.2.156.10197.1.301" => "SM2".to_owned(),
            other => format!("ECDSA on the curve {other}"),
        },
        ("1.2.840.10045.2.1", None) => "ECDSA with a curve written out in numbers".to_owned(),
        (other, _) => format!("of the kind {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_identifiers() {
        assert_eq!(element(&[0x30, 0x81, 1, 5, 9]), Some((0x30, &[5][..], &[9][..])));
        assert_eq!(element(&[0x30, 2, 5]), None);
        assert_eq!(oid(&[6, 3, 0x2b, 0x65, 0x70]).as_deref(), Some("1.3.101.112"));
        assert_eq!(wrap(4, &[7; 200])[..3], [4, 0x81, 200]);
        assert_eq!(unsigned(&[0, 0, 0x80])[..], [2, 2, 0, 0x80]);
    }
}
