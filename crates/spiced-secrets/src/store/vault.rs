//! `hashicorp_vault:PATH`: one secret of a key-value engine (version 1 or 2) of HashiCorp Vault or OpenBao; its fields
//! are the keys.
//!
//! This is a separate HTTP client rather than a Vault crate: responses are limited in size, redirects cannot leave TLS,
//! the namespace is sent with every request, and the token is renewed or fetched again as needed.

mod http;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use tls_core::Secret;
use tokio::sync::OnceCell;

use super::document::fields_from;
use super::{OpenArgs, SecretStore, Snapshot, StoreError};
use http::{Http, Said};
use session::{Login, Sessions};

/// The refresh interval, the same as that of Vault's own agents.
const INTERVAL: Duration = Duration::from_secs(60);

const PARAMS: &str = "hashicorp_vault_";

struct Vault {
    http: Arc<Http>,
    sessions: Sessions,
    /// The mount and the secret, as written in the pod file.
    path: String,
    /// Where the API has the secret; known after the first lookup.
    layout: OnceCell<Layout>,
}

/// The location of a secret in the API, which depends on the version of the engine.
struct Layout {
    url: String,
    /// Whether the engine has version 2, which keeps several versions of a secret and wraps the fields once more.
    versioned: bool,
}

/// Opens the store; see [`super::KINDS`].
pub(super) fn open(opening: &OpenArgs<'_>) -> Result<Arc<dyn SecretStore>, StoreError> {
    let path = opening.argument.unwrap_or_default().trim_matches('/').to_owned();
    let plain = |c: char| c.is_ascii_graphic() && !"?#%\\".contains(c);
    let good = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
    if !path.contains('/') || !path.split('/').all(good) {
        return Err(StoreError::declaration("PATH must be mount and secret, such as `secret/spice`"));
    }
    let http = Arc::new(Http::open(opening)?);
    let login = Login::read(opening)?;
    let sessions = Sessions::new(http.clone(), login);
    Ok(Arc::new(Vault { http, sessions, path, layout: OnceCell::new() }))
}

/// Returns a parameter, or else the variable that the official Vault and OpenBao clients read.
fn param_or_variable(opening: &OpenArgs<'_>, name: &str, variable: Option<&str>) -> Option<Secret> {
    if let Some(value) = opening.secret(&format!("{PARAMS}{name}")) {
        return Some(value.clone());
    }
    let environment = &opening.surroundings.environment;
    let variable = variable?;
    ["VAULT_", "BAO_"]
        .into_iter()
        .find_map(|prefix| environment.get(&format!("{prefix}{variable}")))
        .filter(|value| !value.is_blank())
}

impl Vault {
    async fn fields(&self) -> Result<BTreeMap<String, Secret>, StoreError> {
        let token = self.sessions.token().await?;
        match self.fields_with(&token).await {
            // Vault responds with 403 to a token that has become invalid.
            Err(Failed::Denied(_)) if self.sessions.can_log_in() => {
                self.sessions.forget(&token);
                let token = self.sessions.token().await?;
                self.fields_with(&token).await.map_err(Failed::into_error)
            }
            other => other.map_err(Failed::into_error),
        }
    }

    async fn fields_with(&self, token: &Secret) -> Result<BTreeMap<String, Secret>, Failed> {
        let layout = self.layout.get_or_try_init(|| self.find(token)).await?;
        let answer = self.http.ask(Method::GET, &layout.url, Some(token), None).await?;
        match answer.status {
            200 => {
                let data = answer.data()?;
                let fields = match data {
                    // A deleted version has no data.
                    Value::Object(mut data) if layout.versioned => data.remove("data").unwrap_or(Value::Null),
                    data => data,
                };
                match fields {
                    Value::Object(fields) => Ok(fields_from(fields)),
                    Value::Null => Err(self.absent(layout).into()),
                    _ => Err(self.http.unusable("the secret is not a set of fields").into()),
                }
            }
            404 => Err(self.absent(layout).into()),
            403 => Err(Failed::Denied(self.http.refused(
                &answer,
                &[token],
                format!(
                    "check that the token is valid, and that its policy has: path \"{}\" {{ capabilities = [\"read\"] \
                     }}",
                    layout.url.trim_start_matches("v1/")
                ),
            ))),
            _ => Err(self.http.refused(&answer, &[token], "see the server's log".to_owned()).into()),
        }
    }

    /// Determines the version of the engine, as Vault's own command does.
    async fn find(&self, token: &Secret) -> Result<Layout, Failed> {
        #[derive(Deserialize)]
        struct Mount {
            path: String,
            #[serde(default)]
            options: Option<Map<String, Value>>,
        }
        let url = format!("v1/sys/internal/ui/mounts/{}", self.path);
        let answer = self.http.ask(Method::GET, &url, Some(token), None).await?;
        let plain = Layout { url: format!("v1/{}", self.path), versioned: false };
        match answer.status {
            200 => {
                let mount: Mount = serde_json::from_value(answer.data()?)
                    .map_err(|_| self.http.unusable("it does not say where the secret is mounted"))?;
                let versioned = mount.options.is_some_and(|o| o.get("version").and_then(Value::as_str) == Some("2"));
                let mount = mount.path.trim_matches('/');
                let rest = self.path.strip_prefix(mount).map(|rest| rest.trim_matches('/'));
                Ok(match rest {
                    Some(rest) if versioned && !rest.is_empty() => {
                        Layout { url: format!("v1/{mount}/data/{rest}"), versioned }
                    }
                    _ => plain,
                })
            }
            // Servers before 0.10 have neither this request nor version 2.
            404 => Ok(plain),
            403 => Err(Failed::Denied(self.http.refused(
                &answer,
                &[token],
                format!(
                    "check that the token is valid, that `{}` names an engine and a secret of the server, and that the \
                     token's policy may read it",
                    self.path
                ),
            ))),
            _ => Err(self.http.refused(&answer, &[token], "see the server's log".to_owned()).into()),
        }
    }

    fn absent(&self, layout: &Layout) -> StoreError {
        let hint = match self.path.split_once("/data/") {
            Some((mount, rest)) if layout.versioned => {
                format!("PATH is written without `data`: hashicorp_vault:{mount}/{rest}")
            }
            _ => format!("put it there: bao kv put {} KEY=VALUE", self.path),
        };
        StoreError::Absent { what: format!("secret `{}`", self.path), endpoint: self.http.endpoint().to_owned(), hint }
    }
}

#[async_trait]
impl SecretStore for Vault {
    async fn read(&self, _: &[String]) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::Whole(self.fields().await?))
    }

    fn places(&self, key: &str) -> String {
        format!("the field {key} of the secret {} at {}", self.path, self.http.endpoint())
    }

    fn endpoint(&self) -> Option<String> {
        Some(self.http.endpoint().to_owned())
    }

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    async fn changed(&self) {
        // Vault does not report changes of a secret; this only keeps the token renewed.
        self.sessions.keep().await
    }
}

/// A failed request. `Denied` may succeed with another token.
enum Failed {
    Denied(StoreError),
    Other(StoreError),
}

impl Failed {
    fn into_error(self) -> StoreError {
        match self {
            Self::Denied(error) | Self::Other(error) => error,
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

impl Said {
    /// Returns the `data` field of the response.
    fn data(&self) -> Result<Value, StoreError> {
        #[derive(Deserialize)]
        struct Envelope {
            data: Value,
        }
        match serde_json::from_slice::<Envelope>(self.body.expose()) {
            Ok(envelope) => Ok(envelope.data),
            Err(_) => Err(StoreError::Answer {
                endpoint: self.endpoint.clone(),
                why: "it is not a response of Vault".to_owned(),
            }),
        }
    }
}
