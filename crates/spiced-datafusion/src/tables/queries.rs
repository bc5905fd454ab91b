//! The recently completed statements, as the table `runtime.queries`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use datafusion::arrow::array::{
    ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use spiced_engine::{Effect, Outcome, Principal, Redacted, Role, Statement, StatementObserver, StatementRecord, Trace};

use super::system_table::SystemTable;

/// The maximum length of a statement's text, in bytes.
const MAX_STATEMENT: usize = 4 * 1024;

/// The maximum length of an error's text, in bytes.
const MAX_ERROR: usize = 1024;

/// The most recent statements, oldest first; bounded.
#[derive(Debug)]
pub struct History {
    ended: Mutex<VecDeque<FinishedStatement>>,
    most: usize,
}

#[derive(Debug, Clone)]
struct FinishedStatement {
    principal: Principal,
    started: SystemTime,
    statement: Option<String>,
    effect: Option<Effect>,
    outcome: Outcome,
    error: Option<String>,
    rows: u64,
    queued: Duration,
    took: Duration,
}

impl History {
    /// Creates a history of at most `most` statements.
    pub fn of(most: usize) -> Arc<Self> {
        Arc::new(Self { ended: Mutex::default(), most })
    }

    /// Returns the table `runtime.queries`. A caller with write access sees all statements, any other caller only its
    /// own.
    pub fn table(self: &Arc<Self>) -> SystemTable {
        let (schema, history) = (schema(), self.clone());
        SystemTable::new("queries", schema.clone(), move |caller| {
            let all = caller.role() == Role::ReadWrite;
            let seen = |ended: &&FinishedStatement| all || ended.principal == *caller;
            let rows: Vec<FinishedStatement> = history.lock().iter().filter(seen).cloned().collect();
            batch(&schema, &rows)
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<FinishedStatement>> {
        // A statement is added in one step, so a panic elsewhere leaves the list consistent.
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatementObserver for History {
    fn on_complete(&self, seen: &StatementRecord<'_>) {
        if self.most == 0 {
            return;
        }
        let statement = match seen.statement {
            Statement::Sql(sql) if !may_tell_secrets(sql, seen.effect) => Some(Redacted::of(sql)),
            _ => None,
        };
        // An error message may quote the statement, so it is dropped if the statement's text is dropped.
        let error = seen.error.and_then(|error| statement.as_ref()?.message(&error.to_string()));
        let ended = FinishedStatement {
            principal: seen.principal.clone(),
            started: seen.started,
            error: error.map(|error| cut(&error, MAX_ERROR)),
            statement: statement.map(|statement| cut(&statement.text, MAX_STATEMENT)),
            effect: seen.effect,
            outcome: seen.outcome,
            rows: seen.rows,
            queued: seen.queued,
            took: seen.took,
        };
        let mut all = self.lock();
        if all.len() == self.most {
            all.pop_front();
        }
        all.push_back(ended);
    }
}

/// Returns whether the whole text of a statement is dropped: `COPY` and `CREATE EXTERNAL TABLE`, whose options hold
/// credentials, even if they could not be planned. In all other statements, only what may be a credential is removed.
fn may_tell_secrets(sql: &str, effect: Option<Effect>) -> bool {
    let words = || sql.split(|c: char| !c.is_ascii_alphanumeric());
    match effect {
        Some(effect) => effect == Effect::Admin,
        None => words().any(|word| ["copy", "external", "options"].iter().any(|key| word.eq_ignore_ascii_case(key))),
    }
}

/// Returns at most `bytes` of a text, cut at a character boundary.
fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

fn schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        Field::new("started_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        text("endpoint", false),
        text("principal", false),
        text("role", false),
        text("address", true),
        text("trace_id", true),
        text("parent_span_id", true),
        text("statement", true),
        text("effect", true),
        text("outcome", false),
        text("error", true),
        Field::new("rows", DataType::UInt64, false),
        Field::new("queued_ms", DataType::Float64, false),
        Field::new("duration_ms", DataType::Float64, false),
    ]))
}

fn batch(schema: &SchemaRef, rows: &[FinishedStatement]) -> RecordBatch {
    fn text<'a>(rows: &'a [FinishedStatement], value: impl Fn(&'a FinishedStatement) -> Option<String>) -> ArrayRef {
        Arc::new(rows.iter().map(value).collect::<StringArray>())
    }
    let milliseconds = |value: fn(&FinishedStatement) -> Duration| -> ArrayRef {
        Arc::new(rows.iter().map(|row| value(row).as_secs_f64() * 1e3).collect::<Float64Array>())
    };
    let started = rows.iter().map(|row| microseconds(row.started)).collect::<TimestampMicrosecondArray>();
    fn trace(row: &FinishedStatement) -> Option<&Trace> {
        row.principal.way().trace.as_ref()
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(started.with_timezone("UTC")),
        text(rows, |row| Some(row.principal.way().endpoint.to_owned())),
        text(rows, |row| Some(row.principal.name().to_owned())),
        text(rows, |row| Some(row.principal.role().to_string())),
        text(rows, |row| row.principal.way().address.map(|address| address.to_string())),
        text(rows, |row| trace(row).map(Trace::id)),
        text(rows, |row| trace(row).map(Trace::parent)),
        text(rows, |row| row.statement.clone()),
        text(rows, |row| row.effect.map(|effect| effect.name().to_owned())),
        text(rows, |row| Some(row.outcome.name().to_owned())),
        text(rows, |row| row.error.clone()),
        Arc::new(rows.iter().map(|row| row.rows).collect::<UInt64Array>()),
        milliseconds(|row| row.queued),
        milliseconds(|row| row.took),
    ];
    RecordBatch::try_new(schema.clone(), columns).expect("the columns are those of the schema")
}

fn microseconds(at: SystemTime) -> Option<i64> {
    at.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_micros()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_no_options() {
        let history = History::of(2);
        let reader = Principal::new("reader", Role::ReadOnly);
        let saw = |sql: &str, effect| {
            let statement = Statement::Sql(sql.to_owned());
            history.on_complete(&StatementRecord {
                principal: &reader,
                statement: &statement,
                effect,
                outcome: Outcome::Done,
                error: None,
                started: SystemTime::now(),
                queued: Duration::ZERO,
                took: Duration::ZERO,
                rows: 1,
            });
        };
        let kept = || history.lock().iter().map(|ended| ended.statement.clone()).collect::<Vec<_>>();
        saw("SELECT 1", Some(Effect::Read));
        saw("SELECT '\u{e9}'", Some(Effect::Read));
        saw("COPY t TO 's3://b' OPTIONS (key 'k')", Some(Effect::Admin));
        assert_eq!(kept(), [Some("SELECT '\u{e9}'".to_owned()), None]);
        // A statement that was denied before its effect was known.
        saw("COPY t TO 's3://b' OPTIONS ('aws.secret_access_key' 'hush')", Some(Effect::Write));
        assert_eq!(kept()[1].as_deref(), Some("COPY t TO '***' OPTIONS ('aws.secret_access_key' '***')"));
        saw("create EXTERNAL table broken", None);
        saw(&"\u{e9}".repeat(MAX_STATEMENT), None);
        let last = kept().pop().flatten().unwrap();
        assert_eq!((kept()[0].clone(), last.len()), (None, MAX_STATEMENT));
        assert_eq!(batch(&schema(), history.lock().make_contiguous()).num_rows(), 2);
    }
}
