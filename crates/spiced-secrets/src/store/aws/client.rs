//! Configures access to Secrets Manager: region, endpoint, credentials and trust, each from the pod or else from where
//! the SDK looks for it.

use std::path::Path;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{Credentials, SharedHttpClient};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use tls_core::Secret;
use tracing::warn;

use super::super::read::MAX_FILE;
use super::super::remote::{ATTEMPT_WITHIN, CONNECT_WITHIN, is_loopback};
use super::super::{OpenArgs, StoreError};
use super::bound::Bound;

/// The timeout of all attempts together. It is a little shorter than the time that the cache waits for a store, so that
/// the error names the endpoint.
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(14);

const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The settings from the pod.
pub(super) struct Access {
    region: Option<String>,
    endpoint_url: Option<String>,
    key: Option<Key>,
    http: SharedHttpClient,
}

struct Key {
    id: Secret,
    secret: Secret,
    session_token: Option<Secret>,
}

impl Access {
    pub(super) fn read(opening: &OpenArgs<'_>) -> Result<Self, StoreError> {
        let param = |name| opening.secret(name).cloned();
        let key = match (param("aws_access_key_id"), param("aws_secret_access_key"), param("aws_session_token")) {
            (Some(id), Some(secret), session_token) => Some(Key { id, secret, session_token }),
            (None, None, None) => None,
            _ => return Err(StoreError::declaration("aws_access_key_id and aws_secret_access_key go together")),
        };
        let endpoint_url = opening.text("aws_endpoint_url")?.map(str::to_owned);
        if let Some(url) = &endpoint_url {
            let uri: Option<http::Uri> = url.parse().ok();
            let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)));
            let Some((scheme @ ("https" | "http"), authority)) = parts.filter(|(_, a)| !a.as_str().contains('@'))
            else {
                return Err(StoreError::declaration("aws_endpoint_url is not a URL; write https://HOST[:PORT]"));
            };
            if scheme == "http" && !is_loopback(authority.host()) {
                warn!(aws_endpoint_url = url, "secrets would be sent from this endpoint in plain text; use https");
            }
        }
        Ok(Self { region: opening.text("aws_region")?.map(str::to_owned), endpoint_url, key, http: http(opening)? })
    }

    /// Returns the client, and the name of its endpoint for messages.
    pub(super) async fn client(&self) -> Result<(Client, String), StoreError> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_WITHIN)
                    .operation_attempt_timeout(ATTEMPT_WITHIN)
                    .operation_timeout(ATTEMPTS_WITHIN)
                    .build(),
            );
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(url) = &self.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if let Some(Key { id, secret, session_token }) = &self.key {
            let text = |secret: &Secret, name| match secret.expose_text() {
                Ok(text) => Ok(text.trim().to_owned()),
                Err(_) => Err(StoreError::declaration(format!("param `{name}` is not UTF-8"))),
            };
            let session_token = session_token.as_ref().map(|token| text(token, "aws_session_token")).transpose()?;
            let (id, secret) = (text(id, "aws_access_key_id")?, text(secret, "aws_secret_access_key")?);
            loader = loader.credentials_provider(Credentials::new(id, secret, session_token, None, "the pod's params"));
        }
        let config = loader.load().await;
        let place = match (&self.endpoint_url, config.endpoint_url(), config.region()) {
            (Some(url), ..) => url.clone(),
            (None, Some(url), _) => without_user(url).to_owned(),
            (None, None, Some(region)) => format!("AWS Secrets Manager in {region}"),
            (None, None, None) => String::new(),
        };
        if config.region().is_none_or(|region| region.as_ref().is_empty()) {
            return Err(StoreError::Declaration {
                message: "the AWS region of the secrets is not set".to_owned(),
                hint: "set the param aws_region, or AWS_REGION, or a region in the AWS profile".to_owned(),
            });
        }
        let config = aws_sdk_secretsmanager::config::Builder::from(&config).interceptor(Bound).build();
        Ok((Client::from_conf(config), place))
    }

    /// Returns the secrets that no message may repeat.
    pub(super) fn credentials(&self) -> Vec<&Secret> {
        let key = self.key.iter();
        key.flat_map(|key| std::iter::once(&key.secret).chain(&key.session_token)).collect()
    }
}

/// Returns an HTTP client with the same trust as AWS's other SDKs: the system's store (or the file that SSL_CERT_FILE
/// names), or else the CAs in the file that AWS_CA_BUNDLE names. This SDK does not read AWS_CA_BUNDLE itself.
fn http(opening: &OpenArgs<'_>) -> Result<SharedHttpClient, StoreError> {
    let mut trust = TrustStore::default();
    if let Some(bundle) = opening.surroundings.environment.get("AWS_CA_BUNDLE").filter(|path| !path.is_blank()) {
        let path = bundle.expose_text().map_err(|_| StoreError::declaration("AWS_CA_BUNDLE is not UTF-8"))?;
        let pem = spiced_files::read(Path::new(path), MAX_FILE).map_err(StoreError::Unreadable)?;
        let pem = pem.secret.expose().to_vec();
        if !pem.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE) {
            return Err(StoreError::Declaration {
                message: format!("AWS_CA_BUNDLE: {path} holds no certificate in PEM"),
                hint: "put the CA certificates there, or unset the variable".to_owned(),
            });
        }
        trust = TrustStore::empty().with_pem_certificate(pem);
    }
    let context = TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|e| StoreError::declaration(e.to_string()))?;
    let provider = Provider::Rustls(CryptoMode::AwsLc);
    Ok(aws_smithy_http_client::Builder::new().tls_provider(provider).tls_context(context).build_https())
}

/// Returns a URL from the environment, unless it may contain a password.
fn without_user(url: &str) -> &str {
    if url.contains('@') { "the endpoint of AWS_ENDPOINT_URL" } else { url }
}
