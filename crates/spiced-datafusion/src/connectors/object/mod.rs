//! `s3:`, `https:` and `http:` data sets: Parquet, CSV, TSV and NDJSON on other servers. They are read only.

mod client;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datafusion::execution::context::SessionState;
use datafusion::object_store::path::Path;
use datafusion::object_store::{Error, ObjectStoreExt};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::RetryConfig;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::http::HttpBuilder;
use url::Url;

use self::client::Way;
use self::store::Remote;
use super::format;
use super::listing::Listing;
use super::outbound::{MATERIAL, innermost};
use super::params::Params;
use crate::connectors::source::Loading;
use crate::connectors::source::{Connector, LoadError, Opened, Request, Source};
use crate::engine::start_error::SpecPart;

pub(super) const S3: Connector = Connector {
    name: "s3",
    params: &[S3_PARAMS, client::PARAMS, MATERIAL, format::PARAMS],
    open: open_s3,
    ..Connector::READER
};
pub(super) const HTTPS: Connector = Connector {
    name: "https",
    params: &[HTTP_PARAMS, client::PARAMS, MATERIAL, format::PARAMS],
    open: |request| open_http("https", request),
    ..Connector::READER
};
pub(super) const HTTP: Connector = Connector { name: "http", open: |request| open_http("http", request), ..HTTPS };

/// Named as in Spice.ai.
const S3_PARAMS: &[&str] =
    &["s3_region", "s3_endpoint", "s3_auth", "s3_key", "s3_secret", "s3_session_token", "allow_http"];
const HTTP_PARAMS: &[&str] = &["http_username", "http_password"];

/// The region of a bucket if none is specified.
const REGION: &str = "us-east-1";

/// The environment variables by which AWS passes an identity to a program: a key, a web identity (EKS), the role of a
/// task (ECS) or of a pod (EKS). Without any of them, the instance metadata is used (EC2).
const IDENTITY: [(&str, AmazonS3ConfigKey); 10] = [
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

const S3_HINT: &str = "see that `s3_key` and `s3_secret` (or the role, where neither is given) are right, \
                       and that the bucket's policy lets it be read";
const HTTP_HINT: &str = "see that `http_username` and `http_password` are right";

/// Limits how often a request that a busy server refuses is retried; a failed load is retried in addition.
fn retries() -> RetryConfig {
    RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}

/// The identity for S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Auth {
    /// Anonymous: requests are not signed.
    Public,
    /// The owner of the given key.
    Key,
    /// The identity of the machine, from its environment: a role of EC2, ECS or EKS.
    Role,
}

fn open_s3(request: Request<'_>) -> Opened {
    let mut params = Params::of(request.spec);
    let written = request.rest.strip_prefix("//").unwrap_or(request.rest);
    let (bucket, path) = written.split_once('/').unwrap_or((written, ""));
    if bucket.is_empty() {
        params.wrong.push(SpecPart::From.error("no bucket stands after `s3:`; write `s3://bucket/folder/`"));
    }
    // The part before an `@` is a credential, which logs and errors would repeat.
    if bucket.contains('@') {
        params.wrong.push(
            SpecPart::From
                .error("a bucket's name has no `@`; credentials belong into the params `s3_key` and `s3_secret`"),
        );
    }
    let way = Way::read(&mut params);
    let allow_http =
        params.read("allow_http", "`true` or `false`", |value| value.parse::<bool>().ok()).unwrap_or(false);
    let endpoint = params.text("s3_endpoint");
    if endpoint.as_ref().is_some_and(|endpoint| !endpoint.starts_with("https://") && !allow_http) {
        params.refuse("`s3_endpoint` wants https://HOST; plain http is for who says `allow_http: true`");
    }
    let (key, secret, token) = (params.text("s3_key"), params.text("s3_secret"), params.text("s3_session_token"));
    let auth = params.read("s3_auth", "`public`, `key` or `iam_role`", |value| match value {
        "public" => Some(Auth::Public),
        "key" => Some(Auth::Key),
        "iam_role" => Some(Auth::Role),
        _ => None,
    });
    let auth = auth.unwrap_or(if key.is_some() || secret.is_some() { Auth::Key } else { Auth::Role });
    if auth == Auth::Key && (key.is_none() || secret.is_none()) {
        params.refuse("`s3_key` and `s3_secret` belong together; one is missing");
    }
    let said = |name: &str| std::env::var(name).ok().filter(|value| auth == Auth::Role && !value.is_empty());
    let region = params.text("s3_region").or_else(|| said("AWS_REGION")).or_else(|| said("AWS_DEFAULT_REGION"));
    let region = region.unwrap_or_else(|| REGION.to_owned());
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_region(region).with_allow_http(allow_http);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    builder = match auth {
        Auth::Public => builder.with_skip_signature(true),
        Auth::Key => {
            let builder = builder.with_access_key_id(key.unwrap_or_default());
            let builder = builder.with_secret_access_key(secret.unwrap_or_default());
            match token {
                Some(token) => builder.with_token(token),
                None => builder,
            }
        }
        Auth::Role => IDENTITY.into_iter().fold(builder, |builder, (name, key)| match said(name) {
            Some(value) => builder.with_config(key, value),
            None => builder,
        }),
    };
    let connect = move || {
        let store =
            builder.clone().with_retry(retries()).with_http_connector(client::Connector::new(way.clone())).build();
        store.map(|store| Remote(Arc::new(store))).map_err(|error| LoadError::caused(error.to_string(), error))
    };
    Objects::open(params, format!("s3://{written}"), path, true, connect)
}

fn open_http(scheme: &str, request: Request<'_>) -> Opened {
    let mut params = Params::of(request.spec);
    let written = format!("{scheme}:{}", request.rest);
    let url = match Url::parse(&written) {
        Ok(url) if url.host_str().is_some_and(|host| !host.is_empty()) => Some(url),
        _ => {
            params.wrong.push(
                SpecPart::From.error(format!("`{written}` is no URL; write `{scheme}://host/folder/file.parquet`")),
            );
            None
        }
    };
    if url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        params
            .wrong
            .push(SpecPart::From.error("the URL holds credentials; give them as `http_username` and `http_password`"));
    }
    if url.as_ref().is_some_and(|url| url.query().is_some() || url.fragment().is_some()) {
        params.wrong.push(SpecPart::From.error("the URL has a `?` or `#`; a file's own address has neither"));
    }
    if url.as_ref().is_some_and(|url| url.path().ends_with('/')) {
        params
            .wrong
            .push(SpecPart::From.error(format!("`{written}` is a folder; HTTP has no folders, so name a file")));
    }
    let mut way = Way::read(&mut params);
    match (params.text("http_username"), params.given("http_password")) {
        (Some(_), Some(_)) if scheme == "http" => {
            params.refuse("`http_password` would travel in plain text; use https");
        }
        (Some(user), Some(password)) => match way.clone().authorized(&user, password) {
            Ok(authorized) => way = authorized,
            Err(why) => params.refuse(&why.to_string()),
        },
        (None, None) => {}
        _ => params.refuse("`http_username` and `http_password` belong together; one is missing"),
    }
    let base = url.as_ref().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    let path = url.as_ref().map(|url| url.path().trim_start_matches('/').to_owned()).unwrap_or_default();
    let connect = move || {
        let options = object_store::ClientOptions::new().with_allow_http(true);
        let builder = HttpBuilder::new().with_url(base.clone()).with_client_options(options).with_retry(retries());
        let store = builder.with_http_connector(client::Connector::new(way.clone())).build();
        store.map(|store| Remote(Arc::new(store))).map_err(|error| LoadError::caused(error.to_string(), error))
    };
    Objects::open(params, written, &path, false, connect)
}

/// Objects of a store that is contacted when they are first loaded.
struct Objects<Connect> {
    connect: Connect,
    /// The file or directory, as in a URL.
    base: String,
    /// Whether the store has directories.
    has_folders: bool,
    listing: Listing,
}

impl<Connect> Objects<Connect>
where
    Connect: Fn() -> Result<Remote, LoadError> + Send + Sync + 'static,
{
    fn open(params: Params<'_>, written: String, path: &str, has_folders: bool, connect: Connect) -> Opened {
        let (base, listing) = Listing::open(params.spec, written, path, params.wrong)?;
        Ok(Arc::new(Self { connect, base: base.to_owned(), has_folders, listing }))
    }
}

/// Each data set has a separate store with separate credentials, even if several use the same bucket.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl<Connect> Source for Objects<Connect>
where
    Connect: Fn() -> Result<Remote, LoadError> + Send + Sync + 'static,
{
    fn outdated(&self) -> BoxFuture<'_, ()> {
        async move {
            self.listing.outdated().await;
        }
        .boxed()
    }

    fn load<'a>(&'a self, state: &'a SessionState) -> Loading<'a> {
        Box::pin(async move {
            let written = &self.listing.written;
            let store = (self.connect)().map_err(|why| format!("`{written}` cannot be reached: {why}"))?;
            let mut base = self.base.clone();
            if !base.is_empty() && !base.ends_with('/') {
                // Without a slash, it is a file or otherwise a directory.
                let path = Path::from_url_path(&base).map_err(|error| format!("`{written}` is no path: {error}"))?;
                match store.head(&path).await {
                    Ok(_) => {}
                    Err(Error::NotFound { .. }) if self.has_folders => base.push('/'),
                    Err(Error::NotFound { .. }) => return Err(format!("there is no file at `{written}`").into()),
                    // The server explains the error in a body, which a response to HEAD lacks.
                    Err(error @ (Error::Unauthenticated { .. } | Error::PermissionDenied { .. })) => {
                        let why = innermost(&error);
                        let why = why.trim_end_matches([':', ' ']);
                        let hint = if self.has_folders { S3_HINT } else { HTTP_HINT };
                        return Err(format!("`{written}` cannot be read: {why}; {hint}").into());
                    }
                    Err(error) => return Err(format!("`{written}` cannot be read: {}", innermost(&error)).into()),
                }
            }
            // A scheme that SQL cannot name: its statements reach the store only through the table.
            let root = format!("dataset{}://objects/", NEXT.fetch_add(1, Ordering::Relaxed));
            let url = Url::parse(&root).map_err(|error| error.to_string())?;
            state.runtime_env().register_object_store(&url, Arc::new(store));
            self.listing.table(&format!("{root}{base}"), state).await
        })
    }
}
