//! Reads and watches one secret through the Kubernetes API. Responses are limited in size. They are parsed here rather
//! than by kube's client, which logs responses that it cannot parse.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use backon::Retryable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, KubeconfigError};
use kube::{Client, Config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use spiced_files::Unreadable;
use tls_core::Secret;
use tokio::sync::Mutex;

use super::super::StoreError;
use super::super::env::Environment;
use super::super::remote::{ATTEMPT_WITHIN, CONNECT_WITHIN, MAX_ANSWER, innermost, retries, said, trust_or};

/// The secret, and the access to it.
pub(super) struct Api {
    secret: String,
    /// `None` for the namespace that the configuration names.
    namespace: Option<String>,
    service_account: PathBuf,
    environment: Environment,
    /// The connection, created on first use, and again if its credentials are refused.
    connected: Mutex<Option<Connected>>,
    /// The endpoint (scheme, host and port) and the namespace, once they are known.
    known: std::sync::OnceLock<(String, String)>,
}

#[derive(Clone)]
struct Connected {
    client: Client,
    endpoint: String,
    namespace: String,
}

/// The fields of a secret that are used.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    data: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
}

#[derive(Deserialize, Default)]
pub(super) struct Metadata<'a> {
    #[serde(borrow, rename = "resourceVersion", default)]
    pub(super) version: Cow<'a, str>,
}

/// The API's response if it refuses a request.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
    message: String,
}

impl Api {
    pub(super) fn new(
        secret: String,
        namespace: Option<String>,
        service_account: PathBuf,
        environment: Environment,
    ) -> Self {
        let (connected, known) = Default::default();
        Self { secret, namespace, service_account, environment, connected, known }
    }

    /// Returns `namespace/secret`, as far as it is known.
    pub(super) fn shown(&self) -> String {
        match (&self.namespace, self.known.get()) {
            (Some(namespace), _) | (None, Some((_, namespace))) => format!("{namespace}/{}", self.secret),
            (None, None) => self.secret.clone(),
        }
    }

    pub(super) fn endpoint(&self) -> String {
        self.known.get().map_or_else(|| "the Kubernetes API".to_owned(), |(endpoint, _)| endpoint.clone())
    }

    /// Returns the version of the secret, and its keys.
    pub(super) async fn read(&self) -> Result<(String, BTreeMap<String, Secret>), StoreError> {
        let attempt = || async {
            let read = async {
                let (connected, response) = self.ask("").await?;
                let body = bounded(response).await.map_err(|why| connected.unusable(&why.to_string()))?;
                Ok((connected, body))
            };
            match tokio::time::timeout(ATTEMPT_WITHIN, read).await {
                Ok(read) => read,
                Err(_) => Err(StoreError::Timeout { within: ATTEMPT_WITHIN, endpoint: Some(self.endpoint()) }),
            }
        };
        let (connected, body) = attempt.retry(retries()).when(StoreError::is_passing).await?;
        let object: Object<'_> =
            serde_json::from_slice(body.expose()).map_err(|_| connected.unusable("it is not a Kubernetes secret"))?;
        let mut fields = BTreeMap::new();
        for (key, coded) in object.data.unwrap_or_default() {
            let bytes = STANDARD
                .decode(coded.as_bytes())
                .map_err(|_| connected.unusable(&format!("the value of `{key}` is not base64")))?;
            fields.insert(key.into_owned(), Secret::new(bytes));
        }
        Ok((object.metadata.version.into_owned(), fields))
    }

    /// Opens a watch of the secret. It starts with the current secret, and ends after `seconds`.
    pub(super) async fn watch(&self, seconds: u64) -> Result<Response<Body>, StoreError> {
        let query = format!("?watch=1&timeoutSeconds={seconds}&fieldSelector=metadata.name%3D{}", self.secret);
        match tokio::time::timeout(ATTEMPT_WITHIN, self.ask(&query)).await {
            Ok(answer) => answer.map(|(_, response)| response),
            Err(_) => Err(StoreError::Timeout { within: ATTEMPT_WITHIN, endpoint: Some(self.endpoint()) }),
        }
    }

    /// Requests the secret or, with a query, the secrets of the namespace. If the credentials are refused, they are
    /// read again and the request is repeated once: a service account's token is replaced about every hour.
    async fn ask(&self, query: &str) -> Result<(Connected, Response<Body>), StoreError> {
        let connected = self.connect().await?;
        match connected.get(&self.secret, query).await {
            Err(Asked::Unauthorized(_)) => {
                *self.connected.lock().await = None;
                let connected = self.connect().await?;
                let response = connected.get(&self.secret, query).await.map_err(Asked::into_error)?;
                Ok((connected, response))
            }
            other => other.map(|response| (connected, response)).map_err(Asked::into_error),
        }
    }

    async fn connect(&self) -> Result<Connected, StoreError> {
        let mut connected = self.connected.lock().await;
        if let Some(connected) = &*connected {
            return Ok(connected.clone());
        }
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT_WITHIN);
        // Retries are done here, with a limit.
        config.default_retry = false;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let uri = &config.cluster_url;
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
        let endpoint = format!("{}://{host}{port}", uri.scheme_str().unwrap_or("https"));
        let client = ClientBuilder::try_from(config)
            .map_err(|error| StoreError::Declaration { message: innermost(&error), hint: CONFIGURE.to_owned() })?
            .build();
        let _ = self.known.set((endpoint.clone(), namespace.clone()));
        Ok(connected.insert(Connected { client, endpoint, namespace }).clone())
    }

    /// Returns the configuration that KUBECONFIG names, or else that of the pod's service account, or else
    /// `~/.kube/config`.
    async fn config(&self) -> Result<Config, StoreError> {
        let variable = |name| {
            let value = self.environment.get(name).filter(|value| !value.is_blank())?;
            value.expose_text().ok().map(str::to_owned)
        };
        let named = variable("KUBECONFIG");
        if named.is_none()
            && let (Some(host), Some(port)) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"))
        {
            return self.in_cluster(&host, &port);
        }
        Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(|error| StoreError::Declaration {
            message: match error {
                KubeconfigError::FindPath | KubeconfigError::ReadConfig(..) => match &named {
                    Some(path) => format!("KUBECONFIG: cannot read {path}: {}", innermost(&error)),
                    None => "there is neither a pod's service account nor a kubeconfig".to_owned(),
                },
                // A kubeconfig may contain secrets, and YAML errors quote its text.
                KubeconfigError::Parse(_) => "the kubeconfig is not YAML, or has the wrong form".to_owned(),
                error => format!("the kubeconfig cannot be used: {}", innermost(&error)),
            },
            hint: CONFIGURE.to_owned(),
        })
    }

    fn in_cluster(&self, host: &str, port: &str) -> Result<Config, StoreError> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let url = format!("https://{host}:{port}/").parse().map_err(|_| StoreError::Declaration {
            message: "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not a valid address".to_owned(),
            hint: CONFIGURE.to_owned(),
        })?;
        let file = |name: &str| {
            let path = self.service_account.join(name);
            match std::fs::metadata(&path) {
                Ok(_) => Ok(path),
                Err(cause) => Err(StoreError::Unreadable(Unreadable::of(&path, &cause))),
            }
        };
        let (token, ca, namespace) = (file("token")?, file("ca.crt")?, file("namespace")?);
        let unreadable = |cause: std::io::Error| StoreError::Unreadable(Unreadable::of(&namespace, &cause));
        let mut config = Config::new(url);
        config.default_namespace = std::fs::read_to_string(&namespace).map_err(unreadable)?.trim().to_owned();
        // Set the CA's text as well as its path: without the text, kube loads the system's store first, which an image
        // may lack.
        let authorities = CertificateDer::pem_file_iter(&ca).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let authorities = authorities.map_err(|e| StoreError::Declaration {
            message: format!("{} is not a CA certificate: {e}", ca.display()),
            hint: CONFIGURE.to_owned(),
        })?;
        config.root_cert = Some(authorities.into_iter().map(|authority| authority.to_vec()).collect());
        // kube reads the CA and the token again when the files are replaced.
        config.root_cert_file = Some(ca);
        config.auth_info.token_file = Some(token.display().to_string());
        Ok(config)
    }
}

const CONFIGURE: &str = "run it in a pod with a service account, or name a kubeconfig with KUBECONFIG";

/// Why there is no response to read.
enum Asked {
    /// The response status was 401.
    Unauthorized(StoreError),
    Other(StoreError),
}

impl Asked {
    fn into_error(self) -> StoreError {
        match self {
            Self::Unauthorized(error) | Self::Other(error) => error,
        }
    }
}

impl Connected {
    async fn get(&self, secret: &str, query: &str) -> Result<Response<Body>, Asked> {
        let path = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        let uri = if query.is_empty() { format!("{path}/{secret}") } else { format!("{path}{query}") };
        let request = Request::get(uri).header("accept", "application/json").body(Body::empty());
        let request = request.map_err(|e| Asked::Other(StoreError::declaration(e.to_string())))?;
        let response = self.client.send(request).await.map_err(|e| Asked::Other(self.unreachable(&e)))?;
        let code = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let body = bounded(response).await.unwrap_or_default();
        let status: Status = serde_json::from_slice(body.expose()).unwrap_or_default();
        let error = self.refused(secret, Status { code, ..status });
        Err(if code == 401 { Asked::Unauthorized(error) } else { Asked::Other(error) })
    }

    /// Returns the error for a refused request.
    fn refused(&self, secret: &str, status: Status) -> StoreError {
        let endpoint = self.endpoint.clone();
        let namespace = &self.namespace;
        let hint = match status.code {
            404 => {
                return StoreError::Absent {
                    what: format!("secret `{secret}` in the namespace `{namespace}`"),
                    endpoint,
                    hint: format!("kubectl -n {namespace} create secret generic {secret} --from-literal=KEY=VALUE"),
                };
            }
            401 => "check that the token (or certificate) belongs to this cluster and has not expired".to_owned(),
            403 => format!(
                "let the service account get and watch the secret: a Role with resources: [secrets], resourceNames: \
                 [{secret}], verbs: [get, watch] in the namespace {namespace}, and a RoleBinding"
            ),
            // The server is busy, starting or shutting down.
            429 | 500..=599 => {
                let cause = format!("HTTP {}: {}", status.code, said(&status.message, &[]));
                return StoreError::Unreachable { endpoint, cause, hint: "check the API server".to_owned() };
            }
            _ => "check that this is a Kubernetes API".to_owned(),
        };
        StoreError::Refused { endpoint, why: format!("HTTP {}: {}", status.code, said(&status.message, &[])), hint }
    }

    fn unreachable(&self, error: &kube::Error) -> StoreError {
        let cause = innermost(error);
        let trust = "check that the kubeconfig (or the service account's ca.crt) has the CA of this server";
        let hint = trust_or(&cause, trust, "check that this machine reaches the API server");
        StoreError::Unreachable { endpoint: self.endpoint.clone(), cause, hint }
    }

    fn unusable(&self, why: &str) -> StoreError {
        StoreError::Answer { endpoint: self.endpoint.clone(), why: why.to_owned() }
    }
}

/// Why an answer cannot be read.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("it is larger than {MAX_ANSWER} bytes")]
    TooLarge,
    #[error("it breaks off: {}", innermost(&**.0))]
    BreaksOff(#[source] Box<dyn std::error::Error + Send + Sync>),
}

async fn bounded(response: Response<Body>) -> Result<Secret, NoAnswer> {
    let mut body = Limited::new(response.into_body(), MAX_ANSWER);
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(NoAnswer::TooLarge);
            }
            Err(error) => return Err(NoAnswer::BreaksOff(error)),
        }
    }
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}
