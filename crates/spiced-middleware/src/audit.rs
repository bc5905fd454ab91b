//! The audit log: a line for each request that was denied, and for each statement that was to change
//! something. The target of the lines is `spiced::audit`; nothing of a credential is in them.

use spiced_engine::{Effect, Outcome, Principal, RequestContext, Statement, StatementObserver, StatementRecord, Trace};
use tracing::{info, warn};

use crate::keys::{hex, sha256};

/// The target of the log's lines.
const TARGET: &str = "spiced::audit";

/// Writes what a [`Guarded`](spiced_engine::Guarded) engine tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditLog;

impl StatementObserver for AuditLog {
    fn on_complete(&self, seen: &StatementRecord<'_>) {
        let StatementRecord { principal, statement, effect: Some(effect), outcome, .. } = *seen else { return };
        if outcome != Outcome::Denied && matches!(effect, Effect::Read | Effect::Session) {
            return;
        }
        let RequestContext { endpoint, address, certificate, trace } = principal.way();
        let address = address.map(tracing::field::display);
        let certificate = certificate.as_deref();
        let trace = trace.as_ref().map(Trace::id).map(tracing::field::display);
        let (principal, statement, effect) = (principal.name(), fingerprint(statement), effect.name());
        match outcome {
            Outcome::Denied => warn!(
                target: TARGET, principal, endpoint, address, certificate, trace, statement, effect,
                outcome = "denied", reason = "role", "a statement was denied"
            ),
            Outcome::Done => info!(
                target: TARGET, principal, endpoint, address, certificate, trace, statement, effect,
                outcome = "done", "a statement changed something"
            ),
            Outcome::Failed => info!(
                target: TARGET, principal, endpoint, address, certificate, trace, statement, effect,
                outcome = "failed", "a statement that was to change something failed"
            ),
            Outcome::Cancelled => info!(
                target: TARGET, principal, endpoint, address, certificate, trace, statement, effect,
                outcome = "cancelled", "a statement that was to change something was cancelled"
            ),
        }
    }
}

/// Logs that a caller who was let in has a role that does not suffice for what it asks.
pub fn role_denied(principal: &Principal) {
    denied(Some(principal.name()), principal.way(), "role", None);
}

/// A request that was denied before it was known what it asks.
pub(crate) fn denied(principal: Option<&str>, way: &RequestContext, reason: &'static str, detail: Option<&str>) {
    let RequestContext { endpoint, address, certificate, trace } = way;
    let address = address.map(tracing::field::display);
    let certificate = certificate.as_deref();
    let trace = trace.as_ref().map(Trace::id).map(tracing::field::display);
    warn!(
        target: TARGET, principal, endpoint, address, certificate, trace, outcome = "denied", reason, detail,
        "a request was denied"
    );
}

/// The first half of the SHA-256 of a statement: the same for the same text, and nothing of it.
fn fingerprint(statement: &Statement) -> String {
    let bytes = match statement {
        Statement::Sql(sql) => sql.as_bytes(),
        Statement::Substrait(plan) => plan,
        _ => &[],
    };
    hex(&sha256(bytes)[..8])
}
