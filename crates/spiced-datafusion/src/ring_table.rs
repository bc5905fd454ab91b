//! A table of what came last: bounded in bytes and age, and the oldest rows go first. Telemetry is kept in such.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::SchemaExt;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use metrics::{counter, gauge};
use spiced_engine::ErrorKind;

use crate::coalesce::{collect, merged};
use crate::error::refusal;

/// Rows that came within this part of the retention may share a batch, and a batch goes as a whole.
const GRAINS: u32 = 16;

/// A table that is there from the start, takes `INSERT` and bulk rows, and forgets. No data set may have its name.
#[derive(Debug, Clone)]
pub struct RetainedSpec {
    /// The schema it lies in.
    pub schema: String,
    /// Its name there.
    pub table: String,
    /// The columns.
    pub columns: SchemaRef,
    /// What it keeps.
    pub retention: Retention,
}

/// How much of what came is kept: what is beyond either bound goes, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For how long a row is kept after it came.
    pub age: Duration,
    /// How many bytes a table holds. They count against the engine's memory, and where that is short there are fewer.
    pub bytes: usize,
}

/// The table.
#[derive(Debug)]
pub(crate) struct RingTable {
    rows: Arc<Rows>,
}

impl RingTable {
    /// An empty table, which is counted as `name`.
    pub(crate) fn new(name: &str, schema: SchemaRef, retention: Retention, pool: &Arc<dyn MemoryPool>) -> Self {
        let reservation = MemoryConsumer::new("retained table").register(pool);
        let held = Mutex::new(Held { segments: VecDeque::new(), reservation, counts: Counts(name.to_owned()) });
        Self { rows: Arc::new(Rows { schema, retention, held }) }
    }
}

#[async_trait]
impl TableProvider for RingTable {
    fn schema(&self) -> SchemaRef {
        self.rows.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let batches = self.rows.now(Instant::now());
        let source = MemorySourceConfig::try_new(&[batches], self.schema(), projection.cloned())?;
        Ok(DataSourceExec::from_data_source(source.with_limit(limit)))
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if op != InsertOp::Append {
            let why = "a table of what came last takes INSERT INTO, and does not overwrite";
            return Err(refusal(ErrorKind::Unsupported, why));
        }
        self.rows.schema.logically_equivalent_names_and_types(&input.schema())?;
        Ok(Arc::new(DataSinkExec::new(input, self.rows.clone(), None)))
    }
}

struct Rows {
    schema: SchemaRef,
    retention: Retention,
    held: Mutex<Held>,
}

/// The segments, the oldest first, and what they take.
struct Held {
    segments: VecDeque<Segment>,
    reservation: MemoryReservation,
    counts: Counts,
}

/// Counts, under the name of a table, what becomes of its rows, and its bytes. A recorder may be installed after the
/// engine, so nothing is kept of it.
struct Counts(String);

impl Counts {
    fn rows(&self, result: &'static str, batch: &RecordBatch) {
        let counted = counter!("spiced_telemetry_rows_total", "table" => self.0.clone(), "result" => result);
        counted.increment(batch.num_rows() as u64);
    }

    fn bytes(&self, bytes: usize) {
        gauge!("spiced_telemetry_bytes", "table" => self.0.clone()).set(bytes as f64);
    }
}

/// Rows that go together.
struct Segment {
    batch: RecordBatch,
    bytes: usize,
    /// When the first and the last of them came.
    came: (Instant, Instant),
}

impl Rows {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Segments are added and taken whole, so a panic elsewhere leaves them as they were.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is at `now`.
    fn now(&self, now: Instant) -> Vec<RecordBatch> {
        let mut held = self.held();
        held.forget(now, self.retention.age);
        held.segments.iter().map(|segment| segment.batch.clone()).collect()
    }

    /// Adds batches that came at `now`: all, or none.
    fn add(&self, fresh: Vec<RecordBatch>, now: Instant) -> Result<()> {
        let Retention { age, bytes: most } = self.retention;
        let bytes: usize = fresh.iter().map(get_record_batch_memory_size).sum();
        if bytes > most {
            let why = format!("{bytes} bytes of rows at once are more than the {most} that the table keeps");
            return Err(refusal(ErrorKind::Exhausted, why));
        }
        let mut held = self.held();
        held.forget(now, age);
        while held.reservation.size() + bytes > most && held.evict() {}
        // Where queries hold the memory, what is kept makes room for what is new.
        while let Err(full) = held.reservation.try_grow(bytes) {
            if !held.evict() {
                return Err(full);
            }
        }
        for batch in fresh {
            held.counts.rows("kept", &batch);
            held.push(batch, now, age / GRAINS);
        }
        held.counts.bytes(held.reservation.size());
        Ok(())
    }
}

impl Held {
    fn forget(&mut self, now: Instant, age: Duration) {
        while let Some(old) = self.segments.pop_front_if(|oldest| now.saturating_duration_since(oldest.came.1) > age) {
            self.release(&old);
            self.counts.rows("expired", &old.batch);
        }
    }

    /// Makes room of the oldest; false where there is nothing any more.
    fn evict(&mut self) -> bool {
        let Some(oldest) = self.segments.pop_front() else { return false };
        self.release(&oldest);
        self.counts.rows("evicted", &oldest.batch);
        true
    }

    fn release(&mut self, gone: &Segment) {
        self.reservation.shrink(gone.bytes);
        self.counts.bytes(self.reservation.size());
    }

    /// Adds a batch that is accounted for, and merges it with what came at most `grain` ago.
    fn push(&mut self, batch: RecordBatch, now: Instant, grain: Duration) {
        let mut fresh = Segment { bytes: get_record_batch_memory_size(&batch), batch, came: (now, now) };
        while let Some(last) = self.segments.back()
            && now.saturating_duration_since(last.came.0) <= grain
            && let Some(batch) = merged(&last.batch, &fresh.batch)
        {
            let both = Segment { bytes: get_record_batch_memory_size(&batch), batch, came: (last.came.0, now) };
            self.reservation.shrink(last.bytes + fresh.bytes);
            self.reservation.grow(both.bytes);
            self.segments.pop_back();
            fresh = both;
        }
        self.segments.push_back(fresh);
    }
}

#[async_trait]
impl DataSink for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(&self, data: SendableRecordBatchStream, _context: &Arc<TaskContext>) -> Result<u64> {
        let coming = self.held().reservation.new_empty();
        let (fresh, rows) = collect(data, &self.schema, &coming).await?;
        drop(coming);
        self.add(fresh, Instant::now())?;
        Ok(rows)
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("retention", &self.retention).finish_non_exhaustive()
    }
}

impl DisplayAs for Rows {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetainedTable")
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, Int64Array};
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn table(age: Duration, bytes: usize, pool: usize) -> Arc<Rows> {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(pool));
        RingTable::new("test", schema, Retention { age, bytes }, &pool).rows
    }

    fn add(rows: &Rows, values: std::ops::Range<i64>, at: Instant) -> Result<()> {
        let column = Arc::new(Int64Array::from_iter_values(values));
        rows.add(vec![RecordBatch::try_new(rows.schema.clone(), vec![column]).unwrap()], at)
    }

    fn kept(rows: &Rows, at: Instant) -> Vec<i64> {
        let batches = rows.now(at);
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn old_rows_go() {
        let (rows, start) = (table(HOUR, 1 << 20, 1 << 20), Instant::now());
        add(&rows, 0..3, start).unwrap();
        add(&rows, 3..6, start + HOUR / 2).unwrap();
        assert_eq!(kept(&rows, start + HOUR), [0, 1, 2, 3, 4, 5]);
        assert_eq!(kept(&rows, start + HOUR * 5 / 4), [3, 4, 5]);
        assert!(kept(&rows, start + HOUR * 2).is_empty());
        assert_eq!(rows.held().reservation.size(), 0);
    }

    #[test]
    fn the_oldest_make_room() {
        let (rows, now) = (table(HOUR, 100_000, 1 << 20), Instant::now());
        for part in 0..100 {
            add(&rows, part * 5_000..(part + 1) * 5_000, now).unwrap();
        }
        let left = kept(&rows, now);
        assert!(rows.held().reservation.size() <= 100_000);
        assert_eq!((left.len(), left.last()), (10_000, Some(&499_999)));
        // More than all of it is refused, and nothing is lost for it.
        assert!(add(&rows, 0..50_000, now).is_err());
        assert_eq!(kept(&rows, now).len(), 10_000);
    }

    #[test]
    fn queries_that_hold_the_memory_leave_less() {
        let (rows, now) = (table(HOUR, 1 << 20, 100_000), Instant::now());
        for part in 0..20 {
            add(&rows, part * 1_000..(part + 1) * 1_000, now).unwrap();
        }
        let left = kept(&rows, now);
        assert_eq!(left.last(), Some(&19_999));
        assert!(left.len() < 13_000, "{}", left.len());
    }

    #[test]
    fn small_batches_become_few() {
        let (rows, start) = (table(HOUR, 1 << 30, 1 << 30), Instant::now());
        for one in 0..20_000 {
            add(&rows, one..one + 1, start).unwrap();
        }
        assert_eq!(kept(&rows, start), (0..20_000).collect::<Vec<_>>());
        assert!(rows.held().segments.len() < 24, "{}", rows.held().segments.len());
        // Never so that rows of another age go with them.
        add(&rows, 0..1, start + HOUR / 8).unwrap();
        assert_eq!(kept(&rows, start + HOUR + HOUR / 9), [0]);
    }
}
