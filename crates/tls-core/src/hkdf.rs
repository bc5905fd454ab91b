//! TLS 1.3's key schedule (RFC 8446 §7.1) with cached HMAC keys. A handshake expands some of its secrets nine times;
//! rustls' implementation on aws-lc-rs derives the HMAC key again each time, which takes twice as many hashes.

use aws_lc_rs::hmac;
use rustls::crypto::hmac::{Hmac, Key, Tag};
use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::{CipherSuite, SupportedCipherSuite, Tls13CipherSuite};

static SHA256: HkdfUsingHmac<'static> = HkdfUsingHmac(&Hash(hmac::HMAC_SHA256));
static SHA384: HkdfUsingHmac<'static> = HkdfUsingHmac(&Hash(hmac::HMAC_SHA384));

/// Returns the suite with this key schedule if it is a TLS 1.3 suite. Leaks memory, so call it only once per suite.
pub(crate) fn with_cached_hmac(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(theirs) = suite else { return suite };
    let hkdf_provider = match theirs.common.suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &SHA256,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &SHA384,
        _ => return suite,
    };
    let common = rustls::crypto::CipherSuiteCommon { ..theirs.common };
    let ours = Tls13CipherSuite { common, hkdf_provider, aead_alg: theirs.aead_alg, quic: theirs.quic };
    SupportedCipherSuite::Tls13(Box::leak(Box::new(ours)))
}

struct Hash(hmac::Algorithm);

impl Hmac for Hash {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        Box::new(Keyed(hmac::Key::new(self.0, key)))
    }

    fn hash_output_len(&self) -> usize {
        self.0.tag_len()
    }
}

struct Keyed(hmac::Key);

impl Key for Keyed {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(first);
        middle.iter().for_each(|part| context.update(part));
        context.update(last);
        Tag::new(context.sign().as_ref())
    }

    fn tag_len(&self) -> usize {
        self.0.algorithm().tag_len()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::tls13::Hkdf;

    use super::*;

    /// Test vectors of RFC 5869, A.1 and A.3.
    #[test]
    fn known_answers() {
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let salt: Vec<u8> = (0x00..=0x0c).collect();
        let mut keys = [0; 42];
        SHA256
            .extract_from_secret(Some(&salt), &[0x0b; 22])
            .expand_slice(&[&info[..3], &info[3..]], &mut keys)
            .unwrap();
        assert_eq!(hex(&keys), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
        SHA256.extract_from_secret(None, &[0x0b; 22]).expand_slice(&[], &mut keys).unwrap();
        assert_eq!(hex(&keys), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
    }

    /// The key schedule gives the same results as rustls' own.
    #[test]
    fn as_rustls_has_it() {
        for theirs in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
            let (SupportedCipherSuite::Tls13(theirs), SupportedCipherSuite::Tls13(ours)) =
                (*theirs, with_cached_hmac(*theirs))
            else {
                continue;
            };
            let [theirs, ours] = [theirs.hkdf_provider, ours.hkdf_provider].map(|hkdf| {
                let secret = hkdf.extract_from_secret(Some(b"salt"), b"secret");
                let block = secret.expand_block(&[b"a", b"label"]);
                let mut long = [0; 200];
                hkdf.expander_for_okm(&block).expand_slice(&[b"more"], &mut long).unwrap();
                let zero = hkdf.extract_from_zero_ikm(None).expand_block(&[]);
                let tag = hkdf.hmac_sign(&block, b"message");
                (block.as_ref().to_vec(), long, zero.as_ref().to_vec(), tag.as_ref().to_vec(), secret.hash_len())
            });
            assert_eq!(ours, theirs);
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
