//! How TLS is spoken: versions, suites, tickets, ALPN. The one place where the provider is chosen.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::server::ServerConfig;
use rustls::version::{TLS12, TLS13};

use crate::Derivation;
use crate::rotation::Identities;
use crate::tickets::Ticketer;

/// The crypto provider: aws-lc-rs, its suites (AEAD with forward secrecy, all of them) and its
/// groups, `X25519MLKEM768` first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// Makes [`provider`] the process' default, for libraries that ask for one. Only `main` calls it.
pub fn install_provider() {
    // An error says that one is installed already, which is what we want.
    let _ = CryptoProvider::install_default((*provider()).clone());
}

/// The lowest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinVersion {
    /// TLS 1.2 and 1.3 (RFC 5246, RFC 8446); Mozilla's "intermediate".
    #[default]
    Tls12,
    /// TLS 1.3 alone; Mozilla's "modern".
    Tls13,
}

/// How TLS is spoken on a door.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// The lowest version.
    pub min_version: MinVersion,
    /// Where the keys of session tickets come from. Replicas that share it resume each other's sessions.
    pub tickets: Derivation,
}

impl TlsOptions {
    /// TLS 1.2 and 1.3, and session tickets that only this process takes.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> Result<Self, rustls::Error> {
        Ok(Self { min_version: MinVersion::default(), tickets: Derivation::random()? })
    }

    /// rustls' configuration for a server that presents `identities`.
    ///
    /// # Errors
    /// The provider refuses the versions, which none of ours does.
    pub fn server_config(&self, identities: Identities) -> Result<ServerConfig, rustls::Error> {
        let versions: &[_] = match self.min_version {
            MinVersion::Tls12 => &[&TLS13, &TLS12],
            MinVersion::Tls13 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(identities));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets carry the session; nothing is kept here.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.ticketer = Arc::new(Ticketer::new(self.tickets.clone(), Vec::new()));
        // A client that wants one ticket per resumption asks for it (RFC 9149); two is the habit.
        config.max_tls13_tickets = 4;
        Ok(config)
    }
}
