//! TLS settings: versions, cipher suites, tickets, ALPN and client authentication. The only place that chooses the
//! crypto provider.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, ServerConfig};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, KeyLogFile};
use tokio::sync::watch;

use crate::KeyDeriver;
use crate::client_auth::{ClientAuthPolicy, tracking_expiry};
use crate::hkdf::with_cached_hmac;
use crate::rotation::Identities;
use crate::tickets::{TicketKeys, Ticketer};

/// Returns the crypto provider: aws-lc-rs with all its suites (all AEAD with forward secrecy) and its groups,
/// `X25519MLKEM768` first. The suites are ordered by their cost on this machine: AES-128, AES-256, ChaCha20, with
/// ChaCha20 first if there are no AES instructions.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| cost(suite.suite()));
        provider.cipher_suites.iter_mut().for_each(|suite| *suite = with_cached_hmac(*suite));
        Arc::new(provider)
    };
    PROVIDER.get_or_init(make).clone()
}

/// Returns the rank of a suite among those of its version.
fn cost(suite: CipherSuite) -> u8 {
    use CipherSuite as Suite;
    match suite {
        Suite::TLS13_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 1,
        suite if is_chacha(suite) => {
            if has_aes() {
                3
            } else {
                0
            }
        }
        _ => 2,
    }
}

fn is_chacha(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

/// Returns whether this machine has AES instructions.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return true;
}

/// Whose order of cipher suites is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CipherPreference {
    /// The order of this machine.
    Server,
    /// The order of a client that lists ChaCha20 first because it has no AES instructions.
    Client,
}

impl CipherPreference {
    /// Chooses the preference for a client that offers these suites.
    pub(crate) fn of(offered: &[CipherSuite]) -> Self {
        if offered.first().is_some_and(|first| is_chacha(*first)) { Self::Client } else { Self::Server }
    }
}

/// Installs [`provider`] as the process' default, for libraries that use the default. Only `main` calls it.
pub fn install_provider() {
    // The only error is that a provider is already installed, which is fine.
    let _ = CryptoProvider::install_default((*provider()).clone());
}

/// The lowest TLS version that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinVersion {
    /// TLS 1.2 and 1.3 (RFC 5246, RFC 8446); Mozilla's "intermediate".
    #[default]
    Tls12,
    /// TLS 1.3 only; Mozilla's "modern".
    Tls13,
}

/// The TLS settings of an endpoint.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// The lowest version.
    pub min_version: MinVersion,
    /// Derives the keys of session tickets. Replicas that share it resume each other's sessions.
    pub tickets: KeyDeriver,
    /// Whether session keys are written to the file named by the variable `SSLKEYLOGFILE` (RFC 9850), for Wireshark:
    /// anyone with that file can decrypt every connection.
    pub insecure_key_log: bool,
}

impl TlsOptions {
    /// Creates settings for TLS 1.2 and 1.3, with session tickets that only this process accepts.
    ///
    /// # Errors
    /// Fails if the system provides no random bytes.
    pub fn random() -> Result<Self, rustls::Error> {
        Ok(Self { min_version: MinVersion::default(), tickets: KeyDeriver::random()?, insecure_key_log: false })
    }

    /// Creates the TLS configuration of a server that presents `identities` and requests no client certificates.
    ///
    /// # Errors
    /// Fails if the provider rejects the versions, which aws-lc-rs does not.
    pub fn server(self, identities: Identities) -> Result<ServerTls, rustls::Error> {
        // The policy never changes: the receiver keeps the last value.
        let (_, nobody) = watch::channel(Arc::new(ClientAuthPolicy::nobody()));
        self.server_asking(identities, nobody)
    }

    /// Creates the TLS configuration of a server that presents `identities` and accepts the clients that `clients`
    /// trusts: the next handshake uses a change, and open connections are checked against it.
    ///
    /// # Errors
    /// Fails if the provider rejects the versions, which aws-lc-rs does not.
    pub fn server_asking(
        self,
        identities: Identities,
        clients: watch::Receiver<Arc<ClientAuthPolicy>>,
    ) -> Result<ServerTls, rustls::Error> {
        let keys = TicketKeys::new(self.tickets.clone());
        let tickets: Arc<dyn ProducesTickets> = Arc::new(Ticketer::new(keys.clone(), Vec::new()));
        let config = |order| self.config(identities.clone(), None, tickets.clone(), order).map(Arc::new);
        let (open, open_theirs) = (config(CipherPreference::Server)?, config(CipherPreference::Client)?);
        Ok(ServerTls(Arc::new(Inner { options: self, identities, clients, keys, open, open_theirs })))
    }

    fn config(
        &self,
        identities: Identities,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        tickets: Arc<dyn ProducesTickets>,
        order: CipherPreference,
    ) -> Result<ServerConfig, rustls::Error> {
        let versions: &[_] = match self.min_version {
            MinVersion::Tls12 => &[&TLS13, &TLS12],
            MinVersion::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(identities));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets carry the session, so the server stores nothing.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.ticketer = tickets;
        config.ignore_client_order = order == CipherPreference::Server;
        // Each ticket costs both sides; a client that wants more can request them (RFC 9149).
        config.send_tls13_tickets = 1;
        config.max_tls13_tickets = 4;
        if self.insecure_key_log {
            static LOG: OnceLock<Arc<KeyLogFile>> = OnceLock::new();
            config.key_log = LOG.get_or_init(|| Arc::new(KeyLogFile::new())).clone();
        }
        Ok(config)
    }
}

/// The TLS configuration of a server: its identities and trusted clients, both as they are at each handshake. Cheap to
/// clone; one for all endpoints.
#[derive(Clone)]
pub struct ServerTls(Arc<Inner>);

struct Inner {
    options: TlsOptions,
    identities: Identities,
    clients: watch::Receiver<Arc<ClientAuthPolicy>>,
    keys: Arc<TicketKeys>,
    /// Without client authentication, every connection shares one of these.
    open: Arc<ServerConfig>,
    open_theirs: Arc<ServerConfig>,
}

impl ServerTls {
    /// Returns rustls' configuration for one connection.
    pub(crate) fn config(&self, order: CipherPreference) -> Result<Arc<ServerConfig>, rustls::Error> {
        let Inner { options, identities, clients, keys, open, open_theirs } = &*self.0;
        let trust = clients.borrow().clone();
        let Some(verifier) = trust.verifier() else {
            return Ok(if order == CipherPreference::Server { open.clone() } else { open_theirs.clone() });
        };
        let tickets = Arc::new(Ticketer::new(keys.clone(), trust.digest().to_vec()));
        let (verifier, tickets) = tracking_expiry(verifier.clone(), tickets);
        options.config(identities.clone(), Some(verifier), tickets, order).map(Arc::new)
    }

    /// Returns whether there is a certificate for a client that requests `name`, or no name.
    pub(crate) fn answers(&self, name: Option<&str>) -> bool {
        self.0.identities.answers(name)
    }

    /// Watches which client certificates are trusted.
    pub(crate) fn clients(&self) -> watch::Receiver<Arc<ClientAuthPolicy>> {
        self.0.clients.clone()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("options", &self.0.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_suite_of_this_machine_comes_first() {
        let suites: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(suites.len(), rustls::crypto::aws_lc_rs::default_provider().cipher_suites.len());
        let first = match has_aes() {
            true => CipherSuite::TLS13_AES_128_GCM_SHA256,
            false => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        };
        assert_eq!(suites[0], first);
    }

    #[test]
    fn a_client_without_aes_has_its_way() {
        let [aes, chacha] = [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256];
        assert_eq!(CipherPreference::of(&[chacha, aes]), CipherPreference::Client);
        assert_eq!(CipherPreference::of(&[aes, chacha]), CipherPreference::Server);
        assert_eq!(CipherPreference::of(&[]), CipherPreference::Server);
    }
}
