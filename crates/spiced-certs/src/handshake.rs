//! Runs an in-memory handshake with an identity before it is used, so that a key that cannot sign is found here and not
//! by the first client.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::kx_group::X25519;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SideData, SignatureScheme,
};
use tls_core::{Identity, provider};
use x509_parser::prelude::{FromDer, X509Certificate};

/// More flights than any handshake takes.
const MAX_FLIGHTS: usize = 10;

/// Runs a TLS 1.3 handshake between a client and a server of `identity`.
pub(crate) fn with_itself(identity: &Identity) -> Result<(), Error> {
    let certified = SingleCertAndKey::from(identity.certified_key().as_ref().clone());
    // The key exchange is not under test, and there may be thousands of pairs: one group is enough.
    let provider = Arc::new(CryptoProvider { kx_groups: vec![X25519], ..(*provider()).clone() });
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certified));
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // Clients verify the chain; this handshake only proves possession of the key.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyChain::new()))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("it is a name");
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    for _ in 0..MAX_FLIGHTS {
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    Err(Error::General("the handshake did not complete".to_owned()))
}

/// Transfers pending data from one side to the other.
fn carry<A, B: SideData>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::General(error.to_string());
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight).map_err(failed)?;
    }
    let mut sent = flight.as_slice();
    while !sent.is_empty() {
        to.read_tls(&mut sent).map_err(failed)?;
        to.process_new_packets()?;
    }
    Ok(())
}

/// Accepts every chain, but verifies that signatures were made with its key.
#[derive(Debug)]
pub(crate) struct AnyChain(WebPkiSupportedAlgorithms);

impl AnyChain {
    pub(crate) fn new() -> Self {
        Self(provider().signature_verification_algorithms)
    }
}

impl ServerCertVerifier for AnyChain {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Verify with the raw key: webpki does not parse X.509 v1, which can be served nonetheless.
        let key = X509Certificate::from_der(leaf).map(|(_, parsed)| parsed.public_key().raw.to_vec());
        match key {
            Ok(key) => verify_tls13_signature_with_raw_key(message, &key.into(), signed, &self.0),
            Err(_) => verify_tls13_signature(message, leaf, signed, &self.0),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use rustls::pki_types::PrivateKeyDer;
    use tls_core::Origin;

    use super::*;

    #[test]
    fn what_is_a_pair_shakes_hands() {
        let made = generate_simple_self_signed(["db.example.com".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let identity = Identity::new(vec![made.cert.der().clone()], key, Origin::Default, Origin::Default).unwrap();
        with_itself(&identity).unwrap();
    }
}
