//! SHA-256 and its hex form.

use aws_lc_rs::digest;

/// The number of bytes of a SHA-256.
pub(crate) const SHA256: usize = digest::SHA256_OUTPUT_LEN;

/// Returns the SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; SHA256] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Returns `bytes` as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
