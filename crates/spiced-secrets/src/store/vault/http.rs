//! HTTP requests to a Vault, with limits on time and size, and with retries where they may help.

use std::path::Path;
use std::time::Duration;

use backon::Retryable;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, Url, redirect};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::Value;
use tls_core::Secret;
use tracing::warn;

use super::super::remote::{
    ATTEMPT_WITHIN, CONNECT_WITHIN, MAX_ANSWER, innermost, is_loopback, retries, said, trust_or,
};
use super::super::{OpenArgs, StoreError};
use super::{PARAMS, param_or_variable};

/// The largest CA bundle that is read. A bundle is a few hundred KB; a larger file is the wrong one.
const MAX_CA_FILE: u64 = 1024 * 1024;

/// An HTTP client for one Vault.
pub(super) struct Http {
    client: Client,
    base: Url,
    endpoint: String,
}

/// A response.
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) body: Secret,
    pub(super) endpoint: String,
}

/// An attempt that failed and may be retried.
enum Attempt {
    Busy(Said),
    Failed(StoreError),
}

impl Http {
    /// Reads the address, the CA file and the namespace.
    pub(super) fn open(opening: &OpenArgs<'_>) -> Result<Self, StoreError> {
        let given = |name, variable| -> Result<Option<String>, StoreError> {
            let Some(value) = param_or_variable(opening, name, Some(variable)) else { return Ok(None) };
            let text =
                value.expose_text().map_err(|_| StoreError::declaration(format!("{PARAMS}{name} is not UTF-8")))?;
            Ok(Some(text.trim().to_owned()))
        };
        let address = given("address", "ADDR")?.ok_or_else(|| StoreError::Declaration {
            message: "the server's address is not set".to_owned(),
            hint: format!("set the param {PARAMS}address, or VAULT_ADDR, to https://HOST:8200"),
        })?;
        let mut base: Url = match address.parse() {
            Ok(url) => url,
            Err(_) => {
                return Err(StoreError::declaration(format!("{PARAMS}address is not a URL; write https://HOST:8200")));
            }
        };
        let host = base.host_str().unwrap_or_default().to_owned();
        if !matches!(base.scheme(), "https" | "http") || host.is_empty() {
            return Err(StoreError::declaration(format!(
                "{PARAMS}address is not an https URL; write https://HOST:8200"
            )));
        }
        if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
            return Err(StoreError::declaration(format!(
                "{PARAMS}address holds more than a scheme, a host and a port"
            )));
        }
        if base.scheme() == "http" && !is_loopback(&host) {
            warn!(address = %base, "tokens and secrets would be sent to and from this Vault in plain text; use https");
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }

        let mut headers = HeaderMap::new();
        // Vault's agents require this header, as a guard against requests forged by a web page.
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = given("namespace", "NAMESPACE")? {
            let value = HeaderValue::from_str(&namespace)
                .map_err(|_| StoreError::declaration(format!("{PARAMS}namespace is not the name of a namespace")))?;
            headers.insert("x-vault-namespace", value);
        }
        let mut builder = Client::builder()
            .user_agent(concat!("spiced/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ATTEMPT_WITHIN)
            .pool_idle_timeout(Duration::from_secs(30))
            .redirect(redirect::Policy::custom(follow));
        if base.scheme() == "https" {
            let ca_file = given("ca_file", "CACERT")?.map(|file| opening.surroundings.pod_folder.join(file));
            builder = builder.tls_backend_preconfigured(tls(ca_file.as_deref())?);
        }
        let client = builder.build().map_err(|e| StoreError::declaration(innermost(&e)))?;
        let endpoint = base.origin().ascii_serialization();
        Ok(Self { client, base, endpoint })
    }

    /// Returns scheme, host and port.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends a request. Every response of the server itself is returned; those of a busy server are retried.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&Secret>,
        body: Option<&Value>,
    ) -> Result<Said, StoreError> {
        let url = self.base.join(path).map_err(|_| StoreError::declaration("PATH does not form a URL"))?;
        let attempt = || async {
            let answer = self.once(method.clone(), url.clone(), token, body).await.map_err(Attempt::Failed)?;
            match answer.status {
                // 412, 472 and 473: a standby that cannot answer (yet).
                412 | 429 | 472 | 473 | 500 | 502 | 503 | 504 => Err(Attempt::Busy(answer)),
                _ => Ok(answer),
            }
        };
        let again = |failed: &Attempt| match failed {
            Attempt::Busy(_) => true,
            Attempt::Failed(error) => error.is_passing(),
        };
        match attempt.retry(retries()).when(again).await {
            // If a server stays busy, return its last response.
            Ok(answer) | Err(Attempt::Busy(answer)) => Ok(answer),
            Err(Attempt::Failed(error)) => Err(error),
        }
    }

    async fn once(
        &self,
        method: Method,
        url: Url,
        token: Option<&Secret>,
        body: Option<&Value>,
    ) -> Result<Said, StoreError> {
        let mut request = self.client.request(method, url);
        if let Some(token) = token {
            let mut value = HeaderValue::from_bytes(token.expose().trim_ascii())
                .map_err(|_| StoreError::declaration("the token contains invalid characters"))?;
            value.set_sensitive(true);
            request = request.header(HeaderName::from_static("x-vault-token"), value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status().as_u16();
        let body = self.bounded(response).await?;
        Ok(Said { status, body, endpoint: self.endpoint.clone() })
    }

    /// Returns the body, or an error if it is larger than any expected response.
    async fn bounded(&self, mut response: Response) -> Result<Secret, StoreError> {
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(self.unusable(&format!("it is larger than {MAX_ANSWER} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Secret::new(std::mem::take(&mut *bytes)))
    }

    fn unreachable(&self, error: &reqwest::Error) -> StoreError {
        let endpoint = self.endpoint.clone();
        if error.is_timeout() {
            let within = if error.is_connect() { CONNECT_WITHIN } else { ATTEMPT_WITHIN };
            return StoreError::Timeout { within, endpoint: Some(endpoint) };
        }
        let cause = innermost(error);
        let trust = format!("name the CA that signed the server's certificate with the param {PARAMS}ca_file");
        let otherwise = format!("check that the server runs and that {PARAMS}address is its address");
        let hint = trust_or(&cause, &trust, &otherwise);
        StoreError::Unreachable { endpoint, cause, hint }
    }

    /// Returns the error for a refused request. `asked_with` are secrets that the message must not repeat.
    pub(super) fn refused(&self, answer: &Said, asked_with: &[&Secret], hint: String) -> StoreError {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<String>,
        }
        let words = match serde_json::from_slice::<Errors>(answer.body.expose()) {
            Ok(said_so) => said(&said_so.errors.join("; "), asked_with),
            Err(_) => "(not a message of Vault)".to_owned(),
        };
        StoreError::Refused { endpoint: self.endpoint.clone(), why: format!("HTTP {}: {words}", answer.status), hint }
    }

    /// Returns the error for an invalid response.
    pub(super) fn unusable(&self, why: &str) -> StoreError {
        StoreError::Answer { endpoint: self.endpoint.clone(), why: why.to_owned() }
    }
}

/// Follows redirects, because a standby redirects clients to the active server. The token is sent along, so a redirect
/// must not leave TLS.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let leaves_tls =
        attempt.previous().last().is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() != "https";
    if leaves_tls {
        attempt.error("the server redirects from https to http")
    } else if attempt.previous().len() > 2 {
        attempt.error("the server redirects in circles")
    } else {
        attempt.follow()
    }
}

/// Returns a TLS configuration with the shared provider. It trusts the CAs in the file, or else the system's store (or
/// the file that SSL_CERT_FILE names).
fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, StoreError> {
    let certificates = match ca_file {
        Some(path) => read_certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(certificates);
    if good == 0 {
        return Err(match ca_file {
            Some(path) => StoreError::declaration(format!("{} holds no certificate in PEM", path.display())),
            None => StoreError::Declaration {
                message: "this system trusts no CA".to_owned(),
                hint: format!("install ca-certificates, or name the server's CA with the param {PARAMS}ca_file"),
            },
        });
    }
    let config = ClientConfig::builder_with_provider(tls_core::provider()).with_safe_default_protocol_versions();
    let config = config.map_err(|e| StoreError::declaration(e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let pem = spiced_files::read(path, MAX_CA_FILE).map_err(StoreError::Unreadable)?;
    Ok(CertificateDer::pem_slice_iter(pem.secret.expose()).filter_map(Result::ok).collect())
}
