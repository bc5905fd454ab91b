//! The state that a reload can change: the TLS material, the access policy, and the stores that both come from. A
//! reload reads them as startup does, checks them as a whole, and then swaps them in at once.

use std::sync::Arc;
use std::time::Duration;

use spiced_certs::{FileWatch, Finding, LoadError, Outcome, SelfSigned, Severity, Sources};
use spiced_config::{RestartOnlySettings, Settings};
use spiced_http::{ReloadFinding, ReloadResult, ReloadedPart};
use spiced_middleware::{KeyRotation, Policy};
use spiced_secrets::{Refresher, Resolver, SecretValue, StoreStatus, WatchedSecrets};
use tls_core::{ClientAuthPolicy, SniCertResolver, Sourced};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::args::PodArgs;
use crate::auth_policy;
use crate::config;
use crate::failure::Failure;
use crate::tls::{self, Served};

/// How often to check whether a development certificate expires soon. It is short because the clock of a laptop that
/// slept is ahead by hours.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// The delay before another attempt to create a development certificate that could not be created.
const RETRY: Duration = Duration::from_secs(60 * 60);

/// How long a reload may take to read the pod and its secrets. A store is given 15 s.
const POD_TIME: Duration = Duration::from_secs(30);

/// How long material that has just changed may be partially written.
const GRACE_PERIOD: Duration = Duration::from_secs(2);

/// The state in force.
pub(crate) struct ReloadableState {
    pub(crate) pod: PodArgs,
    /// The pod's own files.
    pub(crate) files: FileWatch,
    pub(crate) served: Option<Served>,
    pub(crate) policy: Arc<watch::Sender<Arc<Policy>>>,
    /// The settings that only a restart changes, as they were at startup.
    pub(crate) fixed: RestartOnlySettings,
    /// When to check next whether a development certificate expires soon.
    look: Instant,
    /// The reading of a pod that was given up on and has not ended yet.
    settling: Option<JoinHandle<Result<(Settings, Resolver), Failure>>>,
}

/// The watched stores and the tasks that follow them. Dropping it stops the tasks.
pub(crate) struct Follower {
    pub(crate) refresher: Refresher,
    pub(crate) status: watch::Receiver<Vec<StoreStatus>>,
    _tasks: JoinSet<()>,
}

impl Follower {
    /// Starts to follow the stores. Must be called from within a Tokio runtime.
    pub(crate) fn start(
        followed: WatchedSecrets,
        rotation: KeyRotation,
        policy: Arc<watch::Sender<Arc<Policy>>>,
    ) -> Self {
        let WatchedSecrets { status, refresher, following, .. } = followed;
        let mut tasks = JoinSet::new();
        tasks.spawn(following.run());
        tasks.spawn(rotation.run(policy));
        Self { refresher, status, _tasks: tasks }
    }
}

/// A completed reload: the state now in force, and its follower if the stores are new.
pub(crate) struct ReloadOutcome {
    pub(crate) live: ReloadableState,
    pub(crate) result: ReloadResult,
    pub(crate) follower: Option<Follower>,
    /// The pod was read again and rejected.
    pub(crate) refused: bool,
    /// A dry run: nothing was changed or scheduled.
    pub(crate) dry: bool,
    /// Of two secrets that belong together, one may have changed before the other.
    pub(crate) mismatch: bool,
    /// The time until the new material becomes valid, if it is not valid yet.
    pub(crate) held: Option<Duration>,
}

impl ReloadOutcome {
    /// Creates the outcome of reading the material again, or of a dry run of that.
    fn of(live: ReloadableState, outcome: Outcome, policy_changed: bool) -> Self {
        let rejected = match &outcome {
            Outcome::Rejected(error) => Some(error),
            _ => None,
        };
        let mismatch = rejected.is_some_and(LoadError::is_mid_rotation);
        let held =
            rejected.and_then(LoadError::starts_in).map(|left| Duration::from_secs(u64::try_from(left).unwrap_or(0)));
        let result = result(outcome, policy_changed);
        Self { live, result, follower: None, refused: false, dry: false, mismatch, held }
    }
}

/// A change that was detected without a request.
pub(crate) enum Change {
    /// The TLS material: a file or a secret.
    Material,
    /// The pod.
    Pod,
    /// The development certificate, which expires soon.
    Development(SelfSigned),
    /// Nothing changed since the last check.
    Nothing,
}

impl ReloadableState {
    pub(crate) fn new(
        pod: PodArgs,
        files: FileWatch,
        served: Option<Served>,
        policy: Arc<watch::Sender<Arc<Policy>>>,
        fixed: RestartOnlySettings,
    ) -> Self {
        Self { pod, files, served, policy, fixed, look: Instant::now() + POLL_INTERVAL, settling: None }
    }

    /// Waits for a change. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> Change {
        tokio::select! {
            () = material_changed(&mut self.served) => return Change::Material,
            () = self.files.changed() => return Change::Pod,
            () = tokio::time::sleep_until(self.look) => {}
        }
        self.look = Instant::now() + POLL_INTERVAL;
        match self.served.as_ref().and_then(|served| served.reloader.development_due()) {
            Some(made) => Change::Development(made),
            None => Change::Nothing,
        }
    }

    /// Renews the development certificate with the same CA, and loads it.
    pub(crate) async fn renew(mut self, made: SelfSigned) -> ReloadOutcome {
        match blocking(move || made.ensure()).await {
            Ok(_) => info!("the development certificate was about to expire and was renewed by the same CA"),
            Err(reason) => {
                let hint = "spiced tls init --dir DIR also creates it";
                error!(%reason, hint, "the development certificate cannot be renewed");
                self.look = Instant::now() + RETRY;
            }
        }
        self.reread(false).await
    }

    /// Reads the material again from the same sources. `changed` means that it has just changed, so it may still be
    /// partially written.
    pub(crate) async fn reread(mut self, changed: bool) -> ReloadOutcome {
        let outcome = self.reread_here(changed).await;
        ReloadOutcome::of(self, outcome, false)
    }

    /// Returns the certificates that the endpoints present and the client certificates that they trust.
    fn in_force(&self) -> Option<(Arc<SniCertResolver>, Arc<ClientAuthPolicy>)> {
        let Served { identities, clients, .. } = self.served.as_ref()?;
        Some((identities.served().identities, clients.borrow().clone()))
    }

    /// Logs the outcome of reading the material, and which parts took effect although the rest was rejected.
    fn tell(&self, outcome: &Outcome, before: Option<(Arc<SniCertResolver>, Arc<ClientAuthPolicy>)>) {
        tls::tell(outcome);
        let (Outcome::Rejected(_), Some(before), Some(now)) = (outcome, before, self.in_force()) else { return };
        if !Arc::ptr_eq(&before.0, &now.0) {
            warn!("the certificate at its previous source has changed, and was loaded anyway");
        }
        if !Arc::ptr_eq(&before.1, &now.1) {
            warn!("the client CA and the revocation lists are valid, and were loaded anyway");
        }
    }

    /// Reloads everything: the stores, through `refresher` if they are watched, then the pod and the environment, then
    /// the material. With `dry`, changes nothing. With `force`, also accepts material that clients would refuse.
    pub(crate) async fn reload(mut self, refresher: Option<Refresher>, dry: bool, force: bool) -> ReloadOutcome {
        if let Some(refresher) = refresher {
            self.refresh_secrets(refresher).await;
        }
        let mut this = if dry { self } else { blocking(move || self.mark_pod_seen()).await };
        let settled = this.settle().await;
        let this = if dry { this } else { blocking(move || this.mark_material_seen()).await };
        let wanted = match settled.and_then(|(settings, resolver)| this.wanted(settings, resolver, dry)) {
            Ok(wanted) => wanted,
            Err(failure) => return this.rejected(failure, dry).await,
        };
        let Candidate { fixed, sources, development, policy, rotation, followed } = wanted;
        if let Some(made) = development.filter(|_| !dry)
            && let Err(failure) = blocking(move || tls::make(&made)).await
        {
            return this.rejected(failure, dry).await;
        }
        let before = this.in_force();
        let (live, outcome) = blocking(move || this.read_material(sources, dry, force)).await;
        if !dry {
            if live.served.is_some() {
                live.tell(&outcome, before);
            }
            live.warn_of_restart(&fixed);
        }
        if let Outcome::Rejected(_) = outcome {
            return ReloadOutcome { refused: !dry, dry, ..ReloadOutcome::of(live, outcome, false) };
        }
        let policy_changed = !policy.same(&live.policy.borrow());
        let mut follower = None;
        if !dry {
            if policy_changed {
                live.policy.send_replace(Arc::new(policy));
                info!("the access policy has changed; the next request is checked against it");
            }
            follower = Some(Follower::start(followed, rotation, live.policy.clone()));
        }
        ReloadOutcome { follower, dry, ..ReloadOutcome::of(live, outcome, policy_changed) }
    }

    /// Reads the watched stores again. Their secrets keep their values and the status of their stores, even if the pod
    /// cannot be read. Meanwhile, the files of the material are read when they change.
    async fn refresh_secrets(&mut self, refresher: Refresher) {
        let refresh = tokio::time::timeout(POD_TIME, refresher.refresh());
        tokio::pin!(refresh);
        loop {
            tokio::select! {
                biased;
                _ = &mut refresh => return,
                () = files_changed(&mut self.served) => drop(self.reread_here(true).await),
            }
        }
    }

    /// Reads the material from `sources`, and uses it unless it is rejected. With `dry`, changes nothing. Blocks.
    fn read_material(mut self, sources: Option<Sources>, dry: bool, force: bool) -> (Self, Outcome) {
        let outcome = match (&mut self.served, sources) {
            (Some(served), Some(sources)) if dry => served.reloader.check(sources, force),
            (Some(served), Some(sources)) => {
                let files = FileWatch::new(sources.files());
                let outcome = served.reloader.reload_from(sources, force);
                if !matches!(outcome, Outcome::Rejected(_)) {
                    served.files = files;
                }
                outcome
            }
            // TLS is off.
            _ => Outcome::Unchanged,
        };
        (self, outcome)
    }

    /// Logs which of the settings in `new` require a restart and differ from those at startup.
    fn warn_of_restart(&self, new: &RestartOnlySettings) {
        let changed = self.fixed.changed(new);
        if !changed.is_empty() {
            warn!(
                changed = changed.join(", "),
                "settings have changed that require a restart; the previous values stay in use"
            );
        }
    }

    /// Reads the pod and its secrets. While that takes time, the material is watched and read again as usual, so that a
    /// pod or a store that is slow does not hold up the renewal of a certificate. A pod that takes longer than
    /// [`POD_TIME`] is rejected; its reading is left behind, and no other begins before it has ended.
    async fn settle(&mut self) -> Result<(Settings, Resolver), Failure> {
        const FIX: &str = "see which of its files or stores does not respond: spiced secrets check";
        if self.settling.as_ref().is_some_and(|settling| !settling.is_finished()) {
            let cause = "an earlier reading of the pod and its secrets has not ended yet";
            return Err(Failure::configuration(cause, FIX));
        }
        // What an abandoned reading gave is out of date.
        self.settling = None;
        // On a blocking thread: the compiler cannot prove that this future is `Send`.
        let (pod, runtime) = (self.pod.clone(), Handle::current());
        let mut settling = tokio::task::spawn_blocking(move || runtime.block_on(config::settle(&pod)));
        let deadline = Instant::now() + POD_TIME;
        loop {
            tokio::select! {
                biased;
                settled = &mut settling => {
                    return settled.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic()));
                }
                () = tokio::time::sleep_until(deadline) => {
                    self.settling = Some(settling);
                    let cause = format!("the pod and its secrets were not read within {} s", POD_TIME.as_secs());
                    return Err(Failure::configuration(cause, FIX));
                }
                () = material_changed(&mut self.served) => drop(self.reread_here(true).await),
            }
        }
    }

    /// Reads the material again, also during a reload of the pod, and logs the outcome.
    async fn reread_here(&mut self, changed: bool) -> Outcome {
        let before = self.in_force();
        let served = self.served.take();
        let (served, outcome) = blocking(move || reread(served, changed)).await;
        self.served = served;
        self.tell(&outcome, before);
        outcome
    }

    /// Marks all changes of the pod's files and of secrets up to now as seen: this reload reads them, even if it
    /// rejects them, so they must not trigger another.
    fn mark_pod_seen(mut self) -> Self {
        self.files.mark_seen();
        if let Some(Served { reloader, .. }) = &mut self.served {
            reloader.mark_seen();
        }
        self
    }

    /// Marks all changes of the material up to now as seen, just before it is read.
    fn mark_material_seen(mut self) -> Self {
        if let Some(Served { reloader, files, .. }) = &mut self.served {
            reloader.mark_seen();
            files.mark_seen();
        }
        self
    }

    /// Returns the state that the pod asks for, if a reload can apply it.
    fn wanted(&self, mut settings: Settings, mut resolver: Resolver, dry: bool) -> Result<Candidate, Failure> {
        let fixed = RestartOnlySettings::of(&settings);
        let tls = settings.runtime.tls.take();
        if tls.is_some() != self.served.is_some() {
            // The switch would leave endpoints and callers in different states.
            return Err(Failure::configuration(
                "TLS is switched on or off, but open endpoints keep their protocol",
                "restart for it",
            ));
        }
        let asks = tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        let mut subscribe = |value: &Sourced<SecretValue>| resolver.subscribe(value);
        if !dry {
            auth_policy::findings(&settings.runtime.auth, asks).iter().for_each(tls::say);
        }
        let (policy, rotation) = auth_policy::establish(&settings.runtime.auth, asks, &mut subscribe)?;
        let (sources, development) = match tls.map(|tls| tls::sources(tls, &mut subscribe)) {
            // A dry run does not create a development pair, so it cannot check one.
            Some((_, Some(made))) if dry && !made.is_made() => (None, Some(made)),
            Some((sources, development)) => (Some(sources), development),
            None => (None, None),
        };
        if self.policy.borrow().has_credentials() && !policy.has_credentials() {
            // An empty or truncated file looks the same as one that removes the credentials on purpose.
            return Err(Failure::configuration(
                "the pod no longer sets up credentials, and a reload does not open endpoints that required some",
                "restart for it; or set runtime.auth.api_key or runtime.tls.client_auth_mode again",
            ));
        }
        let followed = resolver.follow();
        Ok(Candidate { fixed, sources, development, policy, rotation, followed })
    }

    /// Rejects the new configuration, but still reads the material from the previous sources: a pod that cannot be
    /// read, or a store that is down, must not block the renewal of a certificate.
    async fn rejected(self, failure: Failure, dry: bool) -> ReloadOutcome {
        let (reason, fix) = failure.in_words();
        let (ended, refused) = if dry {
            (ReloadOutcome::of(self, Outcome::Unchanged, false), false)
        } else {
            error!(%reason, hint = fix, "the new configuration is rejected; the previous one stays in use");
            (self.reread(false).await, true)
        };
        ReloadOutcome { result: ReloadResult::Rejected { reason, fix, findings: Vec::new() }, refused, dry, ..ended }
    }
}

/// The state that a pod asks for, checked as far as possible without reading the material.
struct Candidate {
    fixed: RestartOnlySettings,
    sources: Option<Sources>,
    /// The development pair to create if it is missing, before the material is read.
    development: Option<SelfSigned>,
    policy: Policy,
    rotation: KeyRotation,
    followed: WatchedSecrets,
}

/// Waits until a file or secret of the material changes. Cancel-safe.
async fn material_changed(served: &mut Option<Served>) {
    match served {
        Some(Served { reloader, files, .. }) => tokio::select! {
            () = reloader.changed() => {}
            () = files.changed() => {}
        },
        None => std::future::pending().await,
    }
}

/// Waits until a file of the material changes. Cancel-safe.
async fn files_changed(served: &mut Option<Served>) {
    match served {
        Some(Served { files, .. }) => files.changed().await,
        None => std::future::pending().await,
    }
}

/// Reads the material again from the same sources. `changed` means that it has just changed, so it may still be
/// partially written. Blocks.
fn reread(mut served: Option<Served>, changed: bool) -> (Option<Served>, Outcome) {
    let outcome = match &mut served {
        Some(served) if changed => served.reloader.reload_patiently(GRACE_PERIOD),
        Some(served) => served.reloader.reload(),
        None => Outcome::Unchanged,
    };
    (served, outcome)
}

/// Runs work that may block on a file system. A panic of the work is propagated to this task.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic()))
}

fn result(outcome: Outcome, policy_changed: bool) -> ReloadResult {
    match outcome {
        Outcome::Rejected(error) => ReloadResult::Rejected {
            reason: error.to_string(),
            fix: tls::hint(&error),
            findings: match &error {
                LoadError::Refused { finding, .. }
                | LoadError::LocksOut { finding }
                | LoadError::OlderList { finding } => {
                    vec![reported(finding)]
                }
                _ => Vec::new(),
            },
        },
        Outcome::Unchanged if !policy_changed => ReloadResult::Unchanged,
        outcome => {
            let (tls, findings) = match outcome {
                Outcome::Swapped(findings) => (true, findings.iter().map(reported).collect()),
                _ => (false, Vec::new()),
            };
            let parts = [(tls, ReloadedPart::Tls), (policy_changed, ReloadedPart::Auth)];
            let changed = parts.into_iter().filter(|(is, _)| *is).map(|(_, part)| part).collect();
            ReloadResult::Swapped { changed, findings }
        }
    }
}

fn reported(finding: &Finding) -> ReloadFinding {
    ReloadFinding {
        code: finding.code,
        severity: match finding.severity {
            Severity::Info => spiced_http::Severity::Info,
            Severity::Warning => spiced_http::Severity::Warning,
            Severity::Error => spiced_http::Severity::Error,
        },
        origin: finding.origin.clone(),
        subject: finding.subject.clone(),
        message: finding.message.clone(),
        fix: finding.fix.clone(),
        refused_by: finding.refused_by.names().collect(),
    }
}
