//! From raw to resolved settings: types, references, defaults, and contradictions.

pub(crate) mod api_keys;
mod auth;
mod data;
pub(crate) mod decode;
pub(crate) mod effective;
mod folder;
mod limits;
mod listen;
pub(crate) mod stores;
mod tls;

use std::path::Path;
use std::time::Duration;

use crate::problem::shown::may_be_secret;
use crate::problem::{ConfigError, Problem};
use crate::raw::spanned::{SecretInput, Spanned, Templated};
use crate::raw::spicepod::{self, Spicepod};
use crate::resolve::decode::instead;
use crate::resolve::folder::Folder;
use crate::settings::{Cors, Runtime, Settings, View, Warning};

/// The supported versions of the pod file.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v2"];

/// The minimum length; a shorter secret could be guessed from one recorded ticket.
const SHORTEST_TICKET_SECRET: usize = 16;

impl Spicepod {
    /// Resolves the settings from the effective values. `tls_on` is whether TLS is on. `contradictions`: whether
    /// contradictions and missing counterparts are reported; not if a part of them is known to be wrong.
    pub(crate) fn decide(
        self,
        tls_on: bool,
        folder: &Path,
        mut warnings: Vec<Warning>,
        contradictions: bool,
    ) -> Result<Settings, ConfigError> {
        let mut problems = Vec::new();
        self.header(&mut problems);
        let runtime = self.runtime.decide(tls_on, &Folder(folder), contradictions, &mut problems, &mut warnings);
        let datasets = self.datasets.into_iter().map(|d| data::dataset(d, &mut problems)).collect();
        let views = self.views.into_iter().map(|Spanned(view)| view.value);
        let views = views.map(|view| View { name: view.name.0.value, sql: view.sql.0.value }).collect();
        let name = pod_name(self.name, &mut problems);
        match runtime {
            Some(runtime) if problems.is_empty() => {
                Ok(Settings { name, folder: folder.to_owned(), runtime, datasets, views, warnings })
            }
            _ => Err(ConfigError(problems)),
        }
    }

    fn header(&self, problems: &mut Vec<Problem>) {
        for (what, given, known) in
            [("version", &self.version, VERSIONS.as_slice()), ("kind", &self.kind, ["Spicepod"].as_slice())]
        {
            let Some(Templated { placed: Spanned(given), reference }) = given else { continue };
            if known.contains(&given.value.as_str()) {
                continue;
            }
            let shown = instead(&given.value, *reference, &given.origin)
                .map_or_else(|| format!("`{}`", given.value), str::to_owned);
            let problem = Problem::new(given.origin.clone(), format!("{shown} is no {what} that this program reads"));
            problems.push(problem.hint(format!("write {what}: {}", known.join(" or "))));
        }
    }
}

impl spicepod::Runtime {
    /// Resolves the settings; `None` if a part has no value, which may have been reported already.
    fn decide(
        self,
        tls_on: bool,
        folder: &Folder<'_>,
        contradictions: bool,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Warning>,
    ) -> Option<Runtime> {
        let mut contradicting = Vec::new();
        let listen = self.listen.decide(problems);
        let mut tls = self.tls;
        let tls_off = tls.enabled.take().filter(|on| !on.0.value).map(|on| on.0.origin);
        let asks = tls.asks(tls_on, &mut contradicting, warnings);
        let auth = self.auth.decide(asks, &mut contradicting, warnings);
        let session_ticket_secret = match tls.session_ticket_secret.take() {
            Some(SecretInput { secret, .. }) if secret.value.expose().len() < SHORTEST_TICKET_SECRET => {
                let problem = Problem::new(secret.origin, format!("takes at least {SHORTEST_TICKET_SECRET} bytes"));
                problems.push(problem.hint("make one with: openssl rand -base64 32"));
                None
            }
            input => input.map(|input| input.secret.value),
        };
        let tls = match tls_on {
            true => tls.decide(folder, asks).map(Some).map_err(|wrong| contradicting.extend(wrong)).ok(),
            false => {
                tls.without_tls(&mut contradicting, warnings);
                Some(None)
            }
        };
        if contradictions {
            problems.extend(contradicting);
        }
        let limits = self.limits.decide(problems);
        let sql = self.sql.decide(folder, problems);
        let otel = self.otel.decide(problems);
        let http = self.http.decide(problems);
        let allowed_origins = match self.cors.enabled {
            Some(true) => Some(self.cors.allowed_origins.into_iter().map(|origin| origin.0).collect()),
            _ => None,
        };
        Some(Runtime {
            listen: listen?,
            shutdown_delay: self.shutdown_delay.map_or(Duration::ZERO, |span| span.0),
            shutdown_timeout: self.shutdown_timeout.map_or(Duration::from_secs(25), |span| span.0),
            tls: tls?,
            tls_off,
            session_ticket_secret,
            auth,
            cors: Cors { allowed_origins },
            sql,
            otel,
            http,
            limits,
        })
    }
}

/// Returns the pod's name, which logs, metrics and `/v1/status` show: one line.
fn pod_name(name: Option<Spanned<String>>, problems: &mut Vec<Problem>) -> String {
    let Some(Spanned(name)) = name else { return "spicepod".to_owned() };
    if may_be_secret(&name.value) {
        let message = "takes a short name on one line; this is none, and it is not shown: it may be a secret";
        problems.push(Problem::new(name.origin, message).hint("write a name, such as my-app"));
        return "spicepod".to_owned();
    }
    name.value
}
