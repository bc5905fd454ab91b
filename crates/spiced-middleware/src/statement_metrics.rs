//! Metrics of statements, their cost and outcome: `spiced_statements_total`, `spiced_statement_seconds` and
//! `spiced_statement_queue_seconds`.

use metrics::{counter, histogram};
use spiced_engine::{ErrorKind, Outcome, StatementObserver, StatementRecord};

/// Records the metrics of each statement.
#[derive(Debug, Clone, Copy)]
pub struct StatementMetrics;

impl StatementObserver for StatementMetrics {
    fn on_complete(&self, seen: &StatementRecord<'_>) {
        let role = seen.principal.role().name();
        counter!("spiced_statements_total", "role" => role, "outcome" => outcome(seen)).increment(1);
        histogram!("spiced_statement_seconds", "role" => role).record(seen.took.as_secs_f64());
        histogram!("spiced_statement_queue_seconds", "role" => role).record(seen.queued.as_secs_f64());
    }
}

/// Returns the outcome as a label value from a small fixed set.
fn outcome(seen: &StatementRecord<'_>) -> &'static str {
    match (seen.outcome, seen.error.map(|error| error.kind())) {
        (Outcome::Done, _) => "done",
        (Outcome::Cancelled, _) => "cancelled",
        (Outcome::Denied, _) => "denied",
        (Outcome::Failed, Some(ErrorKind::InvalidStatement | ErrorKind::NotFound | ErrorKind::Unsupported)) => {
            "refused"
        }
        (Outcome::Failed, Some(ErrorKind::Exhausted)) => "exhausted",
        (Outcome::Failed, Some(ErrorKind::Timeout)) => "timeout",
        (Outcome::Failed, Some(ErrorKind::Unavailable)) => "unavailable",
        (Outcome::Failed, _) => "failed",
    }
}
