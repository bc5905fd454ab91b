//! `spiced tls init`: creates a development CA and a leaf certificate, and explains how each client trusts them.

use std::fmt::Write;
use std::path::Path;

use spiced_certs::{SelfSigned, load};
use spiced_client_snippets::quoted;
use tls_core::{CertificateSummary, Origin};

use crate::args::TlsInitArgs;
use crate::commands::print;
use crate::failure::Failure;

pub(crate) fn run(args: &TlsInitArgs) -> Result<(), Failure> {
    tls_core::install_provider();
    let made = SelfSigned::new(&args.dir);
    let existed = made.ca_file().is_file();
    let failed = |e: &dyn ToString| Failure::configuration(e.to_string(), "name a writable directory: --dir DIR");
    made.ensure().map_err(|e| failed(&e))?;
    let mut pair = made.pair(&Origin::Flag("--dir".to_owned()));
    let loaded = load(&mut pair).map_err(|e| failed(&e))?;
    print(&text(&args.dir, existed, loaded.identity.leaf()))
}

fn text(folder: &Path, existed: bool, leaf: &CertificateSummary) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    let path = |name: &str| quoted(&file(name));
    let (ca, certificate, key) = (path("ca.pem"), path("server.pem"), path("server-key.pem"));
    let ca_state = if existed { "existed already, and is kept" } else { "new" };
    let ca_python = file("ca.pem");
    let mut out = String::new();
    let _ = write!(
        out,
        "\
{ca_file:w$}  the CA ({ca_state}): what clients trust
{ca_key_file:w$}  its key, mode 0600: anyone who has it can impersonate any server to those clients
{certificate_file:w$}  the certificate, for {names}
{key_file:w$}  its key, mode 0600

Serve with it:
  spiced --tls-certificate-file {certificate} --tls-key-file {key}

Trust it, client by client:
  curl       curl --cacert {ca} https://localhost:3000/health
  openssl    openssl s_client -connect localhost:3000 -CAfile {ca}
  spiced     spiced sql --tls-root-certificate-file {ca} 'SELECT 1'
  pyarrow    flight.connect(\"grpc+tls://localhost:50051\", tls_root_certs=open({ca_python:?}).read())
  Python     export SSL_CERT_FILE={ca} REQUESTS_CA_BUNDLE={ca}
  gRPC       export GRPC_DEFAULT_SSL_ROOTS_FILE_PATH={ca}
  Go         export SSL_CERT_FILE={ca}
  Node       export NODE_EXTRA_CA_CERTS={ca}
  Java       keytool -importcert -noprompt -alias spiced -file {ca} -keystore spiced.p12 -storetype PKCS12 -storepass changeit
             java -Djavax.net.ssl.trustStore=spiced.p12 -Djavax.net.ssl.trustStorePassword=changeit …

Or for this whole machine, including browsers that use its store:
  Debian     sudo cp {ca} /usr/local/share/ca-certificates/spiced.crt && sudo update-ca-certificates
  Fedora     sudo cp {ca} /etc/pki/ca-trust/source/anchors/spiced.pem && sudo update-ca-trust
  macOS      sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {ca}
  Chrome     certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n spiced -i {ca}   # Linux; from libnss3-tools
  Firefox    Settings, Privacy & Security, Certificates: import {ca} as an authority
",
        w = file("server-key.pem").chars().count(),
        ca_file = file("ca.pem"),
        ca_key_file = file("ca-key.pem"),
        certificate_file = file("server.pem"),
        key_file = file("server-key.pem"),
        names = leaf.names.join(", "),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed() {
        let leaf = CertificateSummary {
            subject: "CN=localhost".into(),
            names: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            issuer: "CN=a development CA".into(),
            fingerprint: String::new(),
            not_before: 0,
            not_after: 0,
            self_signed: false,
        };
        insta::assert_snapshot!(text(Path::new("a folder"), false, &leaf));
    }
}
