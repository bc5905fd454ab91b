//! Tickets and prepared statement handles: a statement that the client carries, signed by the server.
//!
//! A handle is `version (1 byte) | HMAC-SHA256 (32 bytes) | claims (protobuf)`. The HMAC covers the version and the
//! claims as they were sent. A handle is signed but not encrypted, because only the client that sent the statement
//! receives it. It is not a credential either: the server accepts it only from the principal it was made for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hkdf, hmac};
use bytes::Bytes;
use prost::Message;
use spiced_engine::Principal;
use tls_core::Secret;
use tonic::Status;

use crate::options;

/// The maximum size of a handle or ticket, in bytes: SQL text and bound parameters together.
pub(crate) const MAX_HANDLE_BYTES: usize = 1024 * 1024;

/// How long session options are accepted: 30 days.
const SESSION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const VERSION: u8 = 1;
const TAG: usize = 32;
const PURPOSE: &[u8] = b"spiced flight handle v1";

/// Identifies one prepared statement or ticket, even among others with the same text.
pub(crate) type Id = [u8; 16];

/// The purpose of a handle. The server does not accept a handle of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    /// For `DoGet`.
    Ticket = 1,
    /// For a prepared statement.
    Prepared = 2,
    /// For the options of a session.
    Session = 3,
}

/// A statement and the parameters bound to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatementHandle {
    /// The unique id of the handle.
    pub(crate) id: Id,
    /// The SQL text.
    pub(crate) sql: String,
    /// An IPC stream of one batch; empty if no parameters are bound.
    pub(crate) parameters: Bytes,
}

impl StatementHandle {
    /// Creates a handle with a random id.
    pub(crate) fn new(sql: impl Into<String>, parameters: Bytes) -> Self {
        Self { id: options::random(), sql: sql.into(), parameters }
    }
}

/// Signs handles and verifies them.
pub(crate) struct HandleSigner {
    key: hmac::Key,
    lifetime: Duration,
}

impl HandleSigner {
    /// Derives the key from `secret` (HKDF, RFC 5869).
    pub(crate) fn new(secret: &Secret, lifetime: Duration) -> Self {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret.expose());
        let expanded = extracted.expand(&[PURPOSE], hmac::HMAC_SHA256);
        let key = hmac::Key::from(expanded.expect("one hash block is within HKDF's limit"));
        Self { key, lifetime }
    }

    /// Returns the signed handle of a statement, bound to one principal.
    pub(crate) fn sign(
        &self,
        kind: Kind,
        statement: &StatementHandle,
        principal: &Principal,
    ) -> Result<Bytes, HandleError> {
        let claims = Claims {
            kind: kind.into(),
            expires: now().saturating_add(u64::try_from(self.lifetime(kind).as_millis()).unwrap_or(u64::MAX)),
            id: Bytes::copy_from_slice(&statement.id),
            principal: principal.name().to_owned(),
            sql: statement.sql.clone(),
            parameters: statement.parameters.clone(),
        };
        let size = 1 + TAG + claims.encoded_len();
        if size > MAX_HANDLE_BYTES {
            return Err(HandleError::TooLarge(size));
        }
        let claims = claims.encode_to_vec();
        let mut handle = Vec::with_capacity(size);
        handle.push(VERSION);
        handle.extend_from_slice(self.tag(&claims).as_ref());
        handle.extend_from_slice(&claims);
        Ok(handle.into())
    }

    /// Returns the content of a handle.
    ///
    /// # Errors
    /// Fails if the handle was not signed with this key, has expired, is of another kind, or belongs to another
    /// principal.
    pub(crate) fn verify(
        &self,
        kind: Kind,
        handle: &[u8],
        principal: &Principal,
    ) -> Result<StatementHandle, HandleError> {
        let (version, rest) = handle.split_first().ok_or(HandleError::Malformed)?;
        let (tag, claims) = rest.split_at_checked(TAG).ok_or(HandleError::Malformed)?;
        if *version != VERSION {
            return Err(HandleError::Malformed);
        }
        let mut signed = Vec::with_capacity(1 + claims.len());
        signed.push(VERSION);
        signed.extend_from_slice(claims);
        hmac::verify(&self.key, &signed, tag).map_err(|_| HandleError::Foreign)?;

        let claims = Claims::decode(claims).map_err(|_| HandleError::Malformed)?;
        if claims.principal != principal.name() {
            return Err(HandleError::OtherPrincipal);
        }
        if claims.kind != i32::from(kind) {
            return Err(HandleError::OtherKind(kind));
        }
        if claims.expires <= now() {
            return Err(HandleError::Expired);
        }
        let id = claims.id.as_ref().try_into().map_err(|_| HandleError::Malformed)?;
        Ok(StatementHandle { id, sql: claims.sql, parameters: claims.parameters })
    }

    /// Returns the lifetime of a handle. Session options grant no rights, so a client may keep them for longer.
    fn lifetime(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Ticket | Kind::Prepared => self.lifetime,
            Kind::Session => SESSION_LIFETIME,
        }
    }

    fn tag(&self, claims: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[VERSION]);
        context.update(claims);
        context.sign()
    }
}

/// Why a handle could not be signed or verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandleError {
    #[error("statement and parameters take {0} bytes; at most {MAX_HANDLE_BYTES} fit in a ticket or handle")]
    TooLarge(usize),
    #[error("the ticket or handle is not one that this server issues")]
    Malformed,
    #[error(
        "the ticket or handle is not signed with this server's key: it was changed, or the server has restarted since; \
         prepare the statement again"
    )]
    Foreign,
    #[error("the ticket or handle has expired; prepare the statement again")]
    Expired,
    #[error("the ticket or handle was made for another caller")]
    OtherPrincipal,
    #[error("this is not a {}", match .0 {
        Kind::Ticket => "ticket",
        Kind::Prepared => "handle of a prepared statement",
        Kind::Session => "session",
    })]
    OtherKind(Kind),
}

impl From<HandleError> for Status {
    fn from(error: HandleError) -> Self {
        let message = error.to_string();
        match error {
            HandleError::TooLarge(_) => Self::resource_exhausted(message),
            HandleError::Malformed | HandleError::OtherKind(_) => Self::invalid_argument(message),
            HandleError::Foreign | HandleError::Expired => Self::not_found(message),
            HandleError::OtherPrincipal => Self::permission_denied(message),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Claims {
    #[prost(enumeration = "Kind", tag = "1")]
    kind: i32,
    /// Milliseconds since the epoch.
    #[prost(uint64, tag = "2")]
    expires: u64,
    #[prost(bytes = "bytes", tag = "3")]
    id: Bytes,
    #[prost(string, tag = "4")]
    principal: String,
    #[prost(string, tag = "5")]
    sql: String,
    #[prost(bytes = "bytes", tag = "6")]
    parameters: Bytes,
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use spiced_engine::Role;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn signer(secret: &str, lifetime: Duration) -> HandleSigner {
        HandleSigner::new(&Secret::from(secret), lifetime)
    }

    fn principal(name: &str) -> Principal {
        Principal::new(name, Role::ReadOnly)
    }

    fn statement() -> StatementHandle {
        StatementHandle::new("SELECT $1", Bytes::from_static(b"parameters"))
    }

    #[test]
    fn a_replica_opens_what_another_signed() {
        let handle = signer("one", HOUR).sign(Kind::Ticket, &statement(), &principal("a")).unwrap();
        let opened = signer("one", HOUR).verify(Kind::Ticket, &handle, &principal("a")).unwrap();
        assert_eq!((opened.sql.as_str(), opened.parameters.as_ref()), ("SELECT $1", b"parameters".as_slice()));
    }

    #[test]
    fn no_single_bit_can_be_changed() {
        let signer = signer("one", HOUR);
        let handle = signer.sign(Kind::Ticket, &statement(), &principal("a")).unwrap();
        for bit in 0..handle.len() * 8 {
            let mut forged = handle.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            let refusal = signer.verify(Kind::Ticket, &forged, &principal("a")).unwrap_err();
            let expected = if bit < 8 { HandleError::Malformed } else { HandleError::Foreign };
            assert_eq!(refusal, expected, "bit {bit}");
        }
        for length in 0..handle.len() {
            assert!(signer.verify(Kind::Ticket, &handle[..length], &principal("a")).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn refusals_say_why() {
        let maker = signer("one", HOUR);
        let handle = maker.sign(Kind::Ticket, &statement(), &principal("a")).unwrap();
        let stale = signer("one", Duration::ZERO).sign(Kind::Ticket, &statement(), &principal("a")).unwrap();
        let cases = [
            (signer("two", HOUR).verify(Kind::Ticket, &handle, &principal("a")), HandleError::Foreign),
            (maker.verify(Kind::Ticket, &handle, &principal("b")), HandleError::OtherPrincipal),
            (maker.verify(Kind::Prepared, &handle, &principal("a")), HandleError::OtherKind(Kind::Prepared)),
            (maker.verify(Kind::Ticket, &stale, &principal("a")), HandleError::Expired),
            (maker.verify(Kind::Ticket, b"", &principal("a")), HandleError::Malformed),
        ];
        for (answer, expected) in cases {
            assert_eq!(answer.unwrap_err(), expected);
        }
    }

    #[test]
    fn a_handle_is_bounded() {
        let large = StatementHandle::new("x".repeat(MAX_HANDLE_BYTES), Bytes::new());
        let refusal = signer("one", HOUR).sign(Kind::Ticket, &large, &principal("a")).unwrap_err();
        assert!(matches!(refusal, HandleError::TooLarge(size) if size > MAX_HANDLE_BYTES));
    }
}
