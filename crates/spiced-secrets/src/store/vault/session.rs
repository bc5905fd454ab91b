//! The token for a Vault: either given or obtained by a login. It is renewed while possible, and otherwise fetched
//! again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tls_core::Secret;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::super::{OpenArgs, StoreError};
use super::http::{Http, Said};
use super::{PARAMS, param_or_variable};

/// How a token is obtained.
pub(super) enum Login {
    Token(Secret),
    AppRole { role_id: Secret, secret_id: Option<Secret> },
    Kubernetes { role: String, token_file: PathBuf },
}

impl Login {
    /// Reads the login method; exactly one must be given.
    pub(super) fn read(opening: &OpenArgs<'_>) -> Result<Self, StoreError> {
        let param = |name: &str| opening.secret(&format!("{PARAMS}{name}")).cloned();
        let (token, role_id, secret_id) = (param("token"), param("role_id"), param("secret_id"));
        let kubernetes_role = opening.text(&format!("{PARAMS}kubernetes_role"))?.map(str::to_owned);
        if secret_id.is_some() && role_id.is_none() {
            return Err(StoreError::declaration(format!("{PARAMS}secret_id is set without {PARAMS}role_id")));
        }
        match (token, role_id, kubernetes_role) {
            (Some(token), None, None) => Ok(Self::Token(token)),
            (None, Some(role_id), None) => Ok(Self::AppRole { role_id, secret_id }),
            (None, None, Some(role)) => {
                Ok(Self::Kubernetes { role, token_file: opening.surroundings.service_account.join("token") })
            }
            (None, None, None) => match param_or_variable(opening, "token", Some("TOKEN")) {
                Some(token) => Ok(Self::Token(token)),
                None => Err(StoreError::Declaration {
                    message: "no credentials for the server are set".to_owned(),
                    hint: format!(
                        "set {PARAMS}token (or VAULT_TOKEN), or {PARAMS}role_id and {PARAMS}secret_id, or \
                         {PARAMS}kubernetes_role"
                    ),
                }),
            },
            _ => Err(StoreError::declaration(format!(
                "there is more than one of {PARAMS}token, {PARAMS}role_id and {PARAMS}kubernetes_role"
            ))),
        }
    }
}

/// The current token.
pub(super) struct Sessions {
    http: Arc<Http>,
    login: Login,
    current: watch::Sender<Option<Session>>,
    /// Allows one login at a time.
    logging_in: Mutex<()>,
}

#[derive(Clone)]
struct Session {
    token: Secret,
    /// When the token must be renewed; `None` if it does not expire or cannot be renewed.
    renew_at: Option<Instant>,
    /// When the token expires.
    ends_at: Option<Instant>,
}

impl Session {
    fn new(token: Secret, lasts: u64, renewable: bool) -> Self {
        let now = Instant::now();
        let lasts = Some(Duration::from_secs(lasts)).filter(|lasts| !lasts.is_zero());
        // Renew after two thirds of the lifetime, as Vault's agents do.
        let renew_at = lasts.filter(|_| renewable).map(|lasts| now + lasts * 2 / 3);
        Self { token, renew_at, ends_at: lasts.map(|lasts| now + lasts) }
    }

    fn is_over(&self) -> bool {
        self.ends_at.is_some_and(|ends| ends <= Instant::now())
    }
}

/// Vault's response to a login or a renewal.
#[derive(Deserialize)]
struct Granted {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: Option<String>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

impl Sessions {
    pub(super) fn new(http: Arc<Http>, login: Login) -> Self {
        Self { http, login, current: watch::Sender::new(None), logging_in: Mutex::default() }
    }

    /// Returns true if a new token can be obtained.
    pub(super) fn can_log_in(&self) -> bool {
        !matches!(self.login, Login::Token(_))
    }

    /// Returns the token to use.
    pub(super) async fn token(&self) -> Result<Secret, StoreError> {
        let _one = self.logging_in.lock().await;
        if let Some(session) = &*self.current.borrow()
            && !(session.is_over() && self.can_log_in())
        {
            return Ok(session.token.clone());
        }
        let session = self.begin().await?;
        let token = session.token.clone();
        self.current.send_replace(Some(session));
        Ok(token)
    }

    /// Drops a token that is no longer valid.
    pub(super) fn forget(&self, token: &Secret) {
        self.current.send_if_modified(|current| {
            let is_it = current.as_ref().is_some_and(|session| session.token.expose() == token.expose());
            if is_it {
                *current = None;
            }
            is_it
        });
    }

    /// Renews tokens when they are due, forever.
    pub(super) async fn keep(&self) {
        let mut current = self.current.subscribe();
        loop {
            let session = current.borrow_and_update().clone();
            let due = session.as_ref().and_then(|session| session.renew_at);
            tokio::select! {
                changed = current.changed() => if changed.is_err() { return std::future::pending().await },
                () = async { match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                } } => if let Some(session) = session {
                    self.renew(session).await;
                },
            }
        }
    }

    async fn begin(&self) -> Result<Session, StoreError> {
        match &self.login {
            Login::Token(token) => self.look_up(token).await,
            Login::AppRole { role_id, secret_id } => {
                let mut body = json!({ "role_id": text(role_id)? });
                if let Some(secret_id) = secret_id {
                    body["secret_id"] = text(secret_id)?.into();
                }
                let asked_with: Vec<&Secret> = std::iter::once(role_id).chain(secret_id).collect();
                let hint =
                    format!("check that {PARAMS}role_id and {PARAMS}secret_id are right, and that neither is used up");
                self.log_in("v1/auth/approle/login", body, &asked_with, hint).await
            }
            Login::Kubernetes { role, token_file } => {
                // Read the file each time: the kubelet replaces it about every hour.
                let content = super::super::read::read(token_file).await?;
                let jwt = content.map(|content| content.secret).ok_or_else(|| StoreError::Declaration {
                    message: format!("there is no service account token at {}", token_file.display()),
                    hint: format!(
                        "{PARAMS}kubernetes_role is for pods of Kubernetes; elsewhere log in with a token or an AppRole"
                    ),
                })?;
                let body = json!({ "role": role, "jwt": text(&jwt)? });
                let hint = format!("check that the role {role} is bound to the service account of this pod");
                self.log_in("v1/auth/kubernetes/login", body, &[&jwt], hint).await
            }
        }
    }

    async fn log_in(
        &self,
        url: &str,
        body: Value,
        asked_with: &[&Secret],
        hint: String,
    ) -> Result<Session, StoreError> {
        let answer = self.http.ask(Method::POST, url, None, Some(&body)).await;
        wipe(body);
        let answer = answer?;
        if answer.status != 200 {
            return Err(self.http.refused(&answer, asked_with, hint));
        }
        let auth = granted(&answer).ok_or_else(|| self.http.unusable("it is not a response to a login"))?;
        let token = auth.client_token.ok_or_else(|| self.http.unusable("the login returned no token"))?;
        debug!(lasts = auth.lease_duration, renewable = auth.renewable, "logged in to Vault");
        Ok(Session::new(Secret::from(token), auth.lease_duration, auth.renewable))
    }

    /// Determines the lifetime of a given token. If the token may not query its lifetime, it is assumed not to expire.
    async fn look_up(&self, token: &Secret) -> Result<Session, StoreError> {
        #[derive(Deserialize)]
        struct Found {
            data: About,
        }
        #[derive(Deserialize)]
        struct About {
            #[serde(default)]
            ttl: u64,
            #[serde(default)]
            renewable: bool,
        }
        let answer = self.http.ask(Method::GET, "v1/auth/token/lookup-self", Some(token), None).await?;
        let about = match answer.status {
            200 => serde_json::from_slice::<Found>(answer.body.expose()).ok(),
            status if status >= 500 => {
                return Err(self.http.refused(&answer, &[token], "see the server's log".to_owned()));
            }
            _ => None,
        };
        let (ttl, renewable) = about.map_or((0, false), |found| (found.data.ttl, found.data.renewable));
        Ok(Session::new(token.clone(), ttl, renewable))
    }

    async fn renew(&self, session: Session) {
        let answer =
            self.http.ask(Method::POST, "v1/auth/token/renew-self", Some(&session.token), Some(&json!({}))).await;
        let auth = answer.ok().filter(|answer| answer.status == 200).and_then(|answer| granted(&answer));
        let next = match auth {
            // The renewal of a token near its maximum lifetime extends it by almost nothing.
            Some(auth) if auth.lease_duration > 1 => {
                debug!(lasts = auth.lease_duration, "the Vault token is renewed");
                Some(Session::new(session.token.clone(), auth.lease_duration, auth.renewable))
            }
            _ if self.can_log_in() => None,
            _ => {
                warn!("the Vault token cannot be renewed; the last good values are kept when it ends");
                Some(Session { renew_at: None, ..session.clone() })
            }
        };
        self.current.send_if_modified(|current| {
            let is_it = current.as_ref().is_some_and(|c| c.token.expose() == session.token.expose());
            if is_it {
                *current = next;
            }
            is_it
        });
    }
}

fn granted(answer: &Said) -> Option<Auth> {
    serde_json::from_slice::<Granted>(answer.body.expose()).ok().map(|granted| granted.auth)
}

fn text(secret: &Secret) -> Result<&str, StoreError> {
    secret.expose_text().map(str::trim).map_err(|_| StoreError::declaration("a credential is not UTF-8"))
}

/// Wipes the credentials of a request from memory.
fn wipe(body: Value) {
    if let Value::Object(fields) = body {
        for value in fields.into_values() {
            if let Value::String(text) = value {
                drop(Secret::from(text));
            }
        }
    }
}
