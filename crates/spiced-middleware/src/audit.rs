//! The audit log: one line for each denied request, and one for each statement that changes something or would have
//! changed it. The target of the lines is `spiced::audit`; they contain no part of a credential.

use spiced_engine::{Effect, Outcome, Principal, RequestContext, Statement, StatementObserver, StatementRecord, Trace};
use tracing::{info, warn};

use crate::digest::{hex, sha256};

/// The target of the audit log's lines.
const TARGET: &str = "spiced::audit";

/// Logs the statements that a [`Guarded`](spiced_engine::Guarded) engine reports.
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
                outcome = "failed", "a statement that changes something failed"
            ),
            Outcome::Cancelled => info!(
                target: TARGET, principal, endpoint, address, certificate, trace, statement, effect,
                outcome = "cancelled", "a statement that changes something was cancelled"
            ),
        }
    }
}

/// Logs that an authenticated caller's role does not permit its request.
pub fn role_denied(principal: &Principal) {
    denied(Some(principal.name()), principal.way(), "role", None);
}

/// Logs a request that was denied before its statement was known.
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

/// Returns the first half of a statement's SHA-256: equal for equal texts, and reveals nothing of the text.
fn fingerprint(statement: &Statement) -> String {
    let bytes = match statement {
        Statement::Sql(sql) => sql.as_bytes(),
        Statement::Substrait(plan) => plan,
        _ => &[],
    };
    hex(&sha256(bytes)[..8])
}
