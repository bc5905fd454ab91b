//! `aws_secrets_manager[:NAME]`: with NAME, one secret of AWS Secrets Manager that is a JSON object whose fields are
//! the keys; without NAME, each KEY is the name of a secret, whose whole value is used.

mod bound;
mod client;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::{GetSecretValueError, GetSecretValueOutput};
use tls_core::Secret;
use tokio::sync::OnceCell;

use super::document::{NoFields, fields_of};
use super::remote::{ATTEMPT_WITHIN, MAX_ANSWER, innermost, said, trust_or};
use super::{OpenArgs, SecretStore, Snapshot, StoreError, each};
use client::Access;

/// The refresh interval. Each read is a billed request.
const INTERVAL: Duration = Duration::from_secs(300);

struct Aws {
    /// The secret whose fields are the keys.
    name: Option<String>,
    access: Access,
    client: OnceCell<(Client, String)>,
}

/// Opens the store; see [`super::KINDS`].
pub(super) fn open(opening: &OpenArgs<'_>) -> Result<Arc<dyn SecretStore>, StoreError> {
    let access = Access::read(opening)?;
    Ok(Arc::new(Aws { name: opening.argument.map(str::to_owned), access, client: OnceCell::new() }))
}

impl Aws {
    /// Returns the client, and the name of the region or endpoint for messages. The client is created on first use,
    /// because determining the region may query the machine's metadata service.
    async fn client(&self) -> Result<&(Client, String), StoreError> {
        self.client.get_or_try_init(|| self.access.client()).await
    }

    /// Returns the value of the secret called `name`; `None` if it does not exist.
    async fn value(&self, name: &str) -> Result<Option<Secret>, StoreError> {
        let (client, endpoint) = self.client().await?;
        match client.get_secret_value().secret_id(name).send().await {
            Ok(output) => value_of(output).map(Some).ok_or_else(|| StoreError::Answer {
                endpoint: endpoint.clone(),
                why: format!("`{name}` has no value"),
            }),
            Err(error)
                if error.as_service_error().is_some_and(GetSecretValueError::is_resource_not_found_exception) =>
            {
                Ok(None)
            }
            Err(error) => Err(failure(&error, name, endpoint, &self.access)),
        }
    }

    async fn fields(&self, name: &str) -> Result<BTreeMap<String, Secret>, StoreError> {
        let value = self.value(name).await?;
        let (_, endpoint) = self.client().await?;
        let value = value.ok_or_else(|| StoreError::Absent {
            what: format!("secret `{name}`"),
            endpoint: endpoint.clone(),
            hint: format!("aws secretsmanager create-secret --name {name} --secret-string '{{\"KEY\": \"VALUE\"}}'"),
        })?;
        let fields = value.expose_text().map_err(|_| NoFields::Binary).and_then(fields_of);
        fields.map_err(|why| {
            StoreError::declaration(format!(
                "the secret `{name}` is not a JSON object ({why}); for whole secrets write `from: \
                 aws_secrets_manager`, and the secret's name as the KEY"
            ))
        })
    }
}

#[async_trait]
impl SecretStore for Aws {
    async fn read(&self, keys: &[String]) -> Result<Snapshot, StoreError> {
        match &self.name {
            Some(name) => Ok(Snapshot::Whole(self.fields(name).await?)),
            None => {
                // A problem with the client is one fault of the store, not one for each key.
                self.client().await?;
                Ok(each(keys, async |key| self.value(&key).await).await)
            }
        }
    }

    fn places(&self, key: &str) -> String {
        let place = self.client.get().map_or("AWS Secrets Manager", |(_, endpoint)| endpoint);
        match &self.name {
            Some(name) => format!("the field {key} of the secret {name} at {place}"),
            None => format!("the secret {key} at {place}"),
        }
    }

    fn endpoint(&self) -> Option<String> {
        let known = self.client.get().map(|(_, endpoint)| endpoint.clone());
        Some(known.unwrap_or_else(|| "AWS".to_owned()))
    }

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }
}

/// Returns the text or the bytes of a secret, without copying them.
fn value_of(output: GetSecretValueOutput) -> Option<Secret> {
    match (output.secret_string, output.secret_binary) {
        (Some(text), _) => Some(Secret::from(text)),
        (None, Some(bytes)) => Some(Secret::new(bytes.into_inner())),
        (None, None) => None,
    }
}

fn failure(error: &SdkError<GetSecretValueError>, name: &str, endpoint: &str, access: &Access) -> StoreError {
    let endpoint = endpoint.to_owned();
    let cause = || innermost(error as &(dyn Error + 'static));
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let Some(code) = answer.err().code() else {
                return match status {
                    // Emulators of AWS and proxies refuse requests in different formats.
                    401 | 403 => StoreError::Refused {
                        endpoint,
                        why: format!("HTTP {status}"),
                        hint: format!("{}; {}", hint("AccessDenied", name), hint("SignatureDoesNotMatch", name)),
                    },
                    _ => StoreError::Answer { endpoint, why: "it is not a response of Secrets Manager".to_owned() },
                };
            };
            let words = said(answer.err().message().unwrap_or_default(), &access.credentials());
            StoreError::Refused { endpoint, why: format!("{code}: {words}"), hint: hint(code, name) }
        }
        SdkError::TimeoutError(_) => StoreError::Timeout { within: ATTEMPT_WITHIN, endpoint: Some(endpoint) },
        SdkError::DispatchFailure(dispatch) if dispatch.is_timeout() => {
            StoreError::Timeout { within: ATTEMPT_WITHIN, endpoint: Some(endpoint) }
        }
        SdkError::DispatchFailure(dispatch) if dispatch.is_io() => {
            let cause = cause();
            let trust = "put the CA that signed its certificate into the file that AWS_CA_BUNDLE names";
            let hint = trust_or(&cause, trust, "check that this machine reaches it, and aws_endpoint_url if it is set");
            StoreError::Unreachable { endpoint, cause, hint }
        }
        SdkError::ResponseError(_) => {
            let why = match cause() {
                limit if limit.contains("length limit") => format!("it is larger than {MAX_ANSWER} bytes"),
                why => why,
            };
            StoreError::Answer { endpoint, why }
        }
        // There are no working credentials. The first line of the cause says so, the others list where the SDK looked.
        _ => StoreError::Unasked {
            endpoint,
            why: cause()
                .lines()
                .next()
                .unwrap_or_default()
                .trim_end_matches(" Attempted:")
                .trim_end_matches('.')
                .to_owned(),
            hint: "provide credentials: the params aws_access_key_id and aws_secret_access_key, AWS_ACCESS_KEY_ID and \
                   AWS_SECRET_ACCESS_KEY, a profile, or a role of the machine or the pod"
                .to_owned(),
        },
    }
}

fn hint(code: &str, name: &str) -> String {
    match code {
        "AccessDeniedException" | "AccessDenied" => {
            format!("allow secretsmanager:GetSecretValue on `{name}`, and kms:Decrypt on its key if that is your own")
        }
        "ThrottlingException" | "TooManyRequestsException" | "RequestLimitExceeded" | "LimitExceededException" => {
            "query it less often: a longer refresh_interval, or one JSON secret with all keys".to_owned()
        }
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch" => {
            "check that the access key and its secret are right, and belong to the account that has the secret"
                .to_owned()
        }
        "ExpiredTokenException" | "ExpiredToken" => "the session's credentials have expired: get new ones".to_owned(),
        "DecryptionFailure" => {
            "check that the secret's KMS key is enabled, and that kms:Decrypt on it is allowed".to_owned()
        }
        "InvalidRequestException" => format!("check that `{name}` is not marked for deletion"),
        _ => "see the request in CloudTrail".to_owned(),
    }
}
