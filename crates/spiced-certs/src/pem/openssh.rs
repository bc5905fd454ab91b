//! Reads private keys in OpenSSH's own format (`PROTOCOL.key` of OpenSSH), plain or encrypted (bcrypt, AES-256-CTR).
//! `ssh-keygen` writes Ed25519 keys only in this format, and no command converts them to PKCS#8.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use num_bigint::BigUint;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use tls_core::Secret;
use zeroize::Zeroizing;

use crate::pem::der::{INTEGER, OCTETS, OID, SEQUENCE, unsigned, wrap};
use crate::pem::encrypted;
use crate::pem::error::PemError;

const MAGIC: &[u8] = b"openssh-key-v1\0";
/// The most bcrypt rounds. OpenSSH's default is 24; each round takes about 10 ms.
const MAX_ROUNDS: u32 = 256;

/// Returns the key, and whether it was encrypted.
pub(crate) fn private_key(
    body: &[u8],
    passphrase: Option<&Secret>,
) -> Result<(PrivateKeyDer<'static>, bool), PemError> {
    let damaged = || PemError::NotBase64 { label: "OPENSSH PRIVATE KEY".to_owned(), around: None };
    let mut rest = body.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let cipher = string(&mut rest).ok_or_else(damaged)?;
    let kdf = string(&mut rest).ok_or_else(damaged)?;
    let mut options = string(&mut rest).ok_or_else(damaged)?;
    let count = number(&mut rest).ok_or_else(damaged)?;
    let _public = string(&mut rest).ok_or_else(damaged)?;
    let sealed = string(&mut rest).ok_or_else(damaged)?;
    if count != 1 {
        return Err(PemError::SeveralKeys { count: count as usize });
    }
    let is_encrypted = cipher != b"none";
    let opened = match (cipher, kdf) {
        (b"none", _) => Zeroizing::new(sealed.to_vec()),
        (b"aes256-ctr", b"bcrypt") => {
            let salt = string(&mut options).ok_or_else(damaged)?;
            let rounds = number(&mut options).ok_or_else(damaged)?;
            if rounds > MAX_ROUNDS {
                return Err(PemError::UnknownCipher { cipher: Some(format!("{rounds} rounds of bcrypt")) });
            }
            let passphrase = passphrase.ok_or(PemError::Encrypted)?;
            open(sealed, encrypted::line(passphrase), salt, rounds).ok_or(PemError::WrongPassphrase)?
        }
        _ if passphrase.is_none() => return Err(PemError::Encrypted),
        _ => {
            let name = std::str::from_utf8(cipher).ok().filter(|name| name.len() <= 40 && name.is_ascii());
            return Err(PemError::UnknownCipher { cipher: name.map(str::to_owned) });
        }
    };
    let mut rest = opened.as_slice();
    // The check number occurs twice, and matches if the passphrase is right.
    match (number(&mut rest), number(&mut rest)) {
        (Some(one), Some(other)) if one == other => {}
        _ if is_encrypted => return Err(PemError::WrongPassphrase),
        _ => return Err(damaged()),
    }
    let kind = string(&mut rest).ok_or_else(damaged)?;
    let key = match kind {
        b"ssh-ed25519" => ed25519(&mut rest),
        b"ssh-rsa" => rsa(&mut rest),
        b"ecdsa-sha2-nistp256" => ecdsa(&mut rest, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], 32),
        b"ecdsa-sha2-nistp384" => ecdsa(&mut rest, &[0x2b, 0x81, 4, 0, 0x22], 48),
        b"ecdsa-sha2-nistp521" => ecdsa(&mut rest, &[0x2b, 0x81, 4, 0, 0x23], 66),
        other => {
            let name = std::str::from_utf8(other).ok().filter(|name| name.len() <= 60 && name.is_ascii());
            return Err(PemError::UnknownKey { kind: name.unwrap_or("OpenSSH's").to_owned() });
        }
    };
    key.map(|key| (key, is_encrypted)).ok_or_else(damaged)
}

fn open(sealed: &[u8], passphrase: &[u8], salt: &[u8], rounds: u32) -> Option<Zeroizing<Vec<u8>>> {
    let mut derived = Zeroizing::new([0_u8; 48]);
    bcrypt_pbkdf::bcrypt_pbkdf(passphrase, salt, rounds, derived.as_mut_slice()).ok()?;
    let (key, iv) = derived.split_at(32);
    let key = DecryptingKey::ctr(UnboundCipherKey::new(&AES_256, key).ok()?).ok()?;
    let iv: [u8; 16] = iv.try_into().ok()?;
    let mut opened = Zeroizing::new(sealed.to_vec());
    key.decrypt(&mut opened, DecryptionContext::Iv128(FixedLength::from(iv))).ok()?;
    Some(opened)
}

/// Reads an Ed25519 key into PKCS#8 (RFC 8410 §7).
fn ed25519(rest: &mut &[u8]) -> Option<PrivateKeyDer<'static>> {
    let _public = string(rest)?;
    let seed = string(rest)?.get(..32)?;
    let algorithm = wrap(SEQUENCE, &wrap(OID, &[0x2b, 0x65, 0x70]));
    let key = wrap(OCTETS, &wrap(OCTETS, seed));
    let der = wrap(SEQUENCE, &Zeroizing::new([&wrap(INTEGER, &[0])[..], &algorithm, &key].concat()));
    Some(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec())))
}

/// Reads an ECDSA key into SEC1 (RFC 5915 §3).
fn ecdsa(rest: &mut &[u8], curve: &[u8], size: usize) -> Option<PrivateKeyDer<'static>> {
    let _curve = string(rest)?;
    let point = string(rest)?;
    let scalar = string(rest)?;
    let scalar = &scalar[scalar.iter().position(|byte| *byte != 0)?..];
    let mut padded = Zeroizing::new(vec![0; size.checked_sub(scalar.len())?]);
    padded.extend_from_slice(scalar);
    let public = wrap(0xa1, &wrap(0x03, &[&[0], point].concat()));
    let parts = [&wrap(INTEGER, &[1])[..], &wrap(OCTETS, &padded), &wrap(0xa0, &wrap(OID, curve)), &public].concat();
    let der = wrap(SEQUENCE, &Zeroizing::new(parts));
    Some(PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der.to_vec())))
}

/// Reads an RSA key into PKCS#1 (RFC 8017 §A.1.2). OpenSSH omits two exponents, which are computed.
fn rsa(rest: &mut &[u8]) -> Option<PrivateKeyDer<'static>> {
    let [n, e, d, coefficient, p, q] =
        [string(rest)?, string(rest)?, string(rest)?, string(rest)?, string(rest)?, string(rest)?];
    let exponent = |prime: &[u8]| {
        let below = BigUint::from_bytes_be(prime).checked_sub_one()?;
        Some(Zeroizing::new((BigUint::from_bytes_be(d) % below).to_bytes_be()))
    };
    let (dp, dq) = (exponent(p)?, exponent(q)?);
    let mut parts = Zeroizing::new(Vec::new());
    for part in [&[0][..], n, e, d, p, q, &dp, &dq, coefficient] {
        parts.extend_from_slice(&unsigned(part));
    }
    Some(PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(wrap(SEQUENCE, &parts).to_vec())))
}

trait Below: Sized {
    /// Returns the number minus one; `None` if the result is not positive.
    fn checked_sub_one(self) -> Option<Self>;
}

impl Below for BigUint {
    fn checked_sub_one(self) -> Option<Self> {
        let one = Self::from(1_u8);
        (self > one).then(|| self - one)
    }
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_at_checked(4)?;
    *rest = after;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)? as usize;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pem::der::kind_of_key;
    use crate::pem::private_key as from_pem;

    /// One key of each kind, written by OpenSSH 9.2; the passphrase is always `00 12ü`.
    const KEYS: [(&str, &str); 5] = [
        ("Ed25519", include_str!("encrypted/openssh-ed25519.pem")),
        ("RSA of 2048 bits", include_str!("encrypted/openssh-rsa.pem")),
        ("ECDSA on P-256", include_str!("encrypted/openssh-p256.pem")),
        ("ECDSA on P-384", include_str!("encrypted/openssh-p384.pem")),
        ("ECDSA on P-521", include_str!("encrypted/openssh-p521.pem")),
    ];

    #[test]
    fn each_kind_opens_with_its_passphrase_alone() {
        for (kind, pem) in KEYS {
            for passphrase in ["00 12ü", "00 12ü\n"] {
                let key = from_pem(&pem.into(), Some(&passphrase.into())).unwrap();
                assert!(key.encrypted);
                assert_eq!(kind_of_key(&key.der), kind);
                // rustls checks the private key against the public key stored with it.
                tls_core::provider().key_provider.load_private_key(key.der).unwrap();
            }
            assert_eq!(from_pem(&pem.into(), Some(&"00 12u".into())).unwrap_err(), PemError::WrongPassphrase);
            assert_eq!(from_pem(&pem.into(), None).unwrap_err(), PemError::Encrypted);
        }
        let plain = from_pem(&include_str!("encrypted/openssh-plain.pem").into(), None).unwrap();
        assert!(!plain.encrypted);
        tls_core::provider().key_provider.load_private_key(plain.der).unwrap();
    }

    proptest! {
        // Few cases: each one runs the key derivation of OpenSSH.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn damage_does_no_harm(which in 0..5_usize, at in 0..2_000_usize, byte in 32..127_u8) {
            let mut pem = KEYS[which].1.as_bytes().to_vec();
            let at = at % pem.len();
            pem[at] = byte;
            let _ = from_pem(&Secret::new(pem), Some(&"00 12ü".into()));
        }

        #[test]
        fn bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = private_key(&[MAGIC, &bytes].concat(), None);
            let _ = crate::pem::der::KeyForm::of(&bytes);
            let _ = crate::pem::der::oid(&bytes);
        }
    }
}
