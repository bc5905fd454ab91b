//! Decrypts private keys: PKCS#8 with PBES2 (RFC 5958 §3, RFC 8018 §6.2), and OpenSSL's legacy format (RFC 1421 §4.6
//! headers; the key is derived by `EVP_BytesToKey` with MD5).

use aes::{Aes128, Aes192, Aes256};
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use des::TdesEde3;
use md5::{Digest, Md5};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::Error as Pkcs5;
use pkcs8::pkcs5::pbes2::Kdf;
use tls_core::Secret;
use zeroize::Zeroizing;

use crate::pem::error::PemError;

/// The PBKDF2 limit: ten times what OpenSSL and others use today (NIST SP 800-132 §5.2 mentions ten million).
const MAX_ROUNDS: u32 = 10_000_000;
/// The scrypt limit; OpenSSL's own is 32 MiB.
const MAX_MEMORY: u64 = 256 * 1024 * 1024;
const MAX_LANES: u16 = 16;

/// The encryption that the RFC 1421 headers of a block declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dek {
    algorithm: String,
    iv: Vec<u8>,
}

impl Dek {
    /// Parses the value of `DEK-Info`, such as `AES-256-CBC,00FF…`.
    pub(crate) fn read(value: &str) -> Self {
        let (algorithm, iv) = value.split_once(',').unwrap_or((value, ""));
        let digits = |at: usize| iv.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        let iv = (0..iv.len()).step_by(2).map_while(digits).collect();
        Self { algorithm: algorithm.trim().to_ascii_uppercase(), iv }
    }

    /// Decrypts a block.
    pub(crate) fn open(&self, sealed: &[u8], passphrase: &Secret) -> Result<Zeroizing<Vec<u8>>, PemError> {
        let open = match self.algorithm.as_str() {
            "AES-128-CBC" => cbc::<Aes128>,
            "AES-192-CBC" => cbc::<Aes192>,
            "AES-256-CBC" => cbc::<Aes256>,
            "DES-EDE3-CBC" => cbc::<TdesEde3>,
            _ => {
                // The name may be shown in a message: it was in clear text in the file.
                let known = self.algorithm.len() <= 20 && self.algorithm.bytes().all(|b| b.is_ascii_graphic());
                return Err(PemError::UnknownCipher { cipher: known.then(|| self.algorithm.clone()) });
            }
        };
        // Check the structure too: one wrong passphrase in 256 produces valid padding.
        open(sealed, line(passphrase), &self.iv).filter(|key| is_sequence(key)).ok_or(PemError::WrongPassphrase)
    }
}

/// Returns true if `der` is exactly one DER SEQUENCE, as every key is.
fn is_sequence(der: &[u8]) -> bool {
    match der {
        [0x30, length @ ..=0x7f, rest @ ..] => rest.len() == usize::from(*length),
        [0x30, 0x81, length, rest @ ..] => rest.len() == usize::from(*length),
        [0x30, 0x82, high, low, rest @ ..] => rest.len() == usize::from(u16::from_be_bytes([*high, *low])),
        _ => false,
    }
}

/// Decrypts a PKCS#8 key.
pub(crate) fn pkcs8(sealed: &[u8], passphrase: &Secret) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let unknown = PemError::UnknownCipher { cipher: None };
    let parsed = EncryptedPrivateKeyInfoRef::try_from(sealed).map_err(|_| unknown.clone())?;
    if let Some(cost) = parsed.encryption_algorithm.pbes2().and_then(|parameters| too_costly(&parameters.kdf)) {
        return Err(PemError::UnknownCipher { cipher: Some(cost) });
    }
    match parsed.decrypt(line(passphrase)) {
        Ok(key) => Ok(Zeroizing::new(key.as_bytes().to_vec())),
        Err(pkcs8::Error::EncryptedPrivateKey(
            Pkcs5::NoPbes1CryptSupport | Pkcs5::UnsupportedAlgorithm { .. } | Pkcs5::AlgorithmParametersInvalid { .. },
        )) => Err(unknown),
        Err(_) => Err(PemError::WrongPassphrase),
    }
}

/// Returns a description of a key derivation cost that only a damaged file would request.
fn too_costly(kdf: &Kdf) -> Option<String> {
    match kdf {
        Kdf::Pbkdf2(p) if p.iteration_count > MAX_ROUNDS => {
            Some(format!("{} rounds of PBKDF2, and the maximum is {MAX_ROUNDS}", p.iteration_count))
        }
        Kdf::Scrypt(p) => {
            let memory = p.cost_parameter.saturating_mul(128 * u64::from(p.block_size));
            let costly = memory > MAX_MEMORY || p.parallelization > MAX_LANES;
            costly.then(|| format!("scrypt with {memory} bytes, and the maximum is {MAX_MEMORY}"))
        }
        _ => None,
    }
}

/// Removes the newline at the end of a passphrase: a file ends with one, but the passphrase does not include it.
pub(crate) fn line(passphrase: &Secret) -> &[u8] {
    let text = passphrase.expose();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

fn cbc<C>(sealed: &[u8], passphrase: &[u8], iv: &[u8]) -> Option<Zeroizing<Vec<u8>>>
where
    Decryptor<C>: KeyIvInit + BlockModeDecrypt,
    C: cbc::cipher::BlockCipherDecrypt,
{
    let key = bytes_to_key(passphrase, iv.get(..8)?, <Decryptor<C> as cbc::cipher::KeySizeUser>::key_size());
    let opened = Decryptor::<C>::new_from_slices(&key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok()?;
    Some(Zeroizing::new(opened))
}

/// Derives a key with OpenSSL's `EVP_BytesToKey`, using MD5 and one round, as its PEM format requires.
fn bytes_to_key(passphrase: &[u8], salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut last: Option<Zeroizing<[u8; 16]>> = None;
    while key.len() < length {
        let mut digest = Md5::new();
        if let Some(last) = &last {
            digest.update(last.as_slice());
        }
        digest.update(passphrase);
        digest.update(salt);
        let next: [u8; 16] = digest.finalize().into();
        key.extend_from_slice(&next);
        last = Some(Zeroizing::new(next));
    }
    key.truncate(length);
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pem::private_key;

    /// One key, written by OpenSSL 3.0 with each kind of encryption; the passphrase is always `00 12ü`.
    const KEYS: [(&str, &str); 5] = [
        ("aes256", include_str!("encrypted/aes256.pem")),
        ("des3-sha1", include_str!("encrypted/des3-sha1.pem")),
        ("scrypt", include_str!("encrypted/scrypt.pem")),
        ("legacy-aes128", include_str!("encrypted/legacy-aes128.pem")),
        ("legacy-des3", include_str!("encrypted/legacy-des3.pem")),
    ];

    fn opened(pem: &str, passphrase: &str) -> Result<Vec<u8>, PemError> {
        private_key(&pem.into(), Some(&passphrase.into())).map(|key| {
            assert!(key.encrypted);
            let signer = tls_core::provider().key_provider.load_private_key(key.der).unwrap();
            signer.public_key().unwrap().to_vec()
        })
    }

    #[test]
    fn each_way_opens_with_its_passphrase_alone() {
        let plain = private_key(&include_str!("encrypted/plain.pem").into(), None).unwrap();
        let plain =
            tls_core::provider().key_provider.load_private_key(plain.der).unwrap().public_key().unwrap().to_vec();
        for (name, pem) in KEYS {
            for passphrase in ["00 12ü", "00 12ü\n", "00 12ü\r\n"] {
                assert_eq!(opened(pem, passphrase).as_ref(), Ok(&plain), "{name}");
            }
            for wrong in ["00 12u", "", "00 12ü\n\n"] {
                assert_eq!(opened(pem, wrong), Err(PemError::WrongPassphrase), "{name}");
            }
            assert_eq!(private_key(&pem.into(), None).unwrap_err(), PemError::Encrypted, "{name}");
            // The text after a shell has replaced the newlines.
            assert_eq!(opened(&pem.replace('\n', " "), "00 12ü").as_ref(), Ok(&plain), "{name}");
        }
    }

    #[test]
    fn what_is_not_supported_says_so() {
        let old = opened(include_str!("encrypted/pkcs12-kdf.pem"), "00 12ü");
        assert_eq!(old, Err(PemError::UnknownCipher { cipher: None }));
        let des = KEYS[4].1.replace("DES-EDE3-CBC", "DES-CBC");
        assert_eq!(opened(&des, "00 12ü"), Err(PemError::UnknownCipher { cipher: Some("DES-CBC".to_owned()) }));
    }

    proptest! {
        /// A changed byte causes an error or decrypts nothing. It never causes a panic or a computation of minutes.
        #[test]
        fn damage_does_no_harm(which in 0..5_usize, at in 0..600_usize, byte in 32..127_u8) {
            let mut pem = KEYS[which].1.as_bytes().to_vec();
            let at = at % pem.len();
            pem[at] = byte;
            let _ = private_key(&Secret::new(pem), Some(&"00 12ü".into()));
        }
    }
}
