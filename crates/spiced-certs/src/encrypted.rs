//! Encrypted private keys: PKCS#8 with PBES2 (RFC 5958 §3, RFC 8018 §6.2), and the form that OpenSSL wrote before
//! (RFC 1421 §4.6 headers; the key by `EVP_BytesToKey` with MD5).

use aes::{Aes128, Aes192, Aes256};
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use des::TdesEde3;
use md5::{Digest, Md5};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::Error as Pkcs5;
use tls_core::Secret;
use zeroize::Zeroizing;

use crate::pem::PemError;

/// How a block is encrypted of which RFC 1421's headers say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dek {
    algorithm: String,
    iv: Vec<u8>,
}

impl Dek {
    /// Reads the value of `DEK-Info`, `AES-256-CBC,00FF…`.
    pub(crate) fn read(value: &str) -> Self {
        let (algorithm, iv) = value.split_once(',').unwrap_or((value, ""));
        let digits = |at: usize| iv.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        let iv = (0..iv.len()).step_by(2).map_while(digits).collect();
        Self { algorithm: algorithm.trim().to_ascii_uppercase(), iv }
    }

    /// Opens what is encrypted this way.
    pub(crate) fn open(&self, sealed: &[u8], passphrase: &Secret) -> Result<Zeroizing<Vec<u8>>, PemError> {
        let open = match self.algorithm.as_str() {
            "AES-128-CBC" => cbc::<Aes128>,
            "AES-192-CBC" => cbc::<Aes192>,
            "AES-256-CBC" => cbc::<Aes256>,
            "DES-EDE3-CBC" => cbc::<TdesEde3>,
            _ => {
                // What is shown was written in clear text, by whoever made the file.
                let known = self.algorithm.len() <= 20 && self.algorithm.bytes().all(|b| b.is_ascii_graphic());
                return Err(PemError::UnknownCipher { cipher: known.then(|| self.algorithm.clone()) });
            }
        };
        open(sealed, line(passphrase), &self.iv).ok_or(PemError::WrongPassphrase)
    }
}

/// Opens a PKCS#8 key.
pub(crate) fn pkcs8(sealed: &[u8], passphrase: &Secret) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let unknown = PemError::UnknownCipher { cipher: None };
    let parsed = EncryptedPrivateKeyInfoRef::try_from(sealed).map_err(|_| unknown.clone())?;
    match parsed.decrypt(line(passphrase)) {
        Ok(key) => Ok(Zeroizing::new(key.as_bytes().to_vec())),
        Err(pkcs8::Error::EncryptedPrivateKey(
            Pkcs5::NoPbes1CryptSupport | Pkcs5::UnsupportedAlgorithm { .. } | Pkcs5::AlgorithmParametersInvalid { .. },
        )) => Err(unknown),
        Err(_) => Err(PemError::WrongPassphrase),
    }
}

/// A file that holds a passphrase ends with a newline, and the passphrase does not.
fn line(passphrase: &Secret) -> &[u8] {
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

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round, as its PEM has it.
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
