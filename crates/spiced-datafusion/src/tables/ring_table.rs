//! A table of the most recent rows, limited in bytes and age; the oldest rows are evicted first. It stores telemetry.

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

use crate::error::refusal;
use crate::execution::coalesce::{collect, merged};

/// Rows that arrive within this fraction of the retention may share a batch, and a batch is evicted as a whole.
const GRAINS: u32 = 16;

/// A table that exists from the start, accepts `INSERT` and bulk rows, and evicts old rows. Its name is reserved: no
/// data set may use it.
#[derive(Debug, Clone)]
pub struct RetainedSpec {
    /// The schema of the table.
    pub schema: String,
    /// Its name in that schema.
    pub table: String,
    /// The columns.
    pub columns: SchemaRef,
    /// How much it retains.
    pub retention: Retention,
}

/// How much is retained: rows beyond either limit are evicted, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a row is kept after its arrival.
    pub age: Duration,
    /// The maximum size of a table in bytes. It counts against the engine's memory; if that is short, fewer rows are
    /// kept.
    pub bytes: usize,
}

/// A ring table.
#[derive(Debug)]
pub(crate) struct RingTable {
    rows: Arc<Rows>,
}

impl RingTable {
    /// Creates an empty table, with metrics labelled `name`.
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

/// The segments, the oldest first, and their size.
struct Held {
    segments: VecDeque<Segment>,
    reservation: MemoryReservation,
    counts: Counts,
}

/// Records metrics of a table's rows and bytes under its name. The recorder may be installed after the engine starts,
/// so no handle is cached.
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

/// Rows that are evicted together.
struct Segment {
    batch: RecordBatch,
    bytes: usize,
    /// When the first and the last row arrived.
    came: (Instant, Instant),
}

impl Rows {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Segments are added and removed as a whole, so a panic elsewhere leaves them intact.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the rows retained at `now`.
    fn now(&self, now: Instant) -> Vec<RecordBatch> {
        let mut held = self.held();
        held.forget(now, self.retention.age);
        held.segments.iter().map(|segment| segment.batch.clone()).collect()
    }

    /// Adds batches that arrive at `now`: all of them, or no batch.
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
        // If queries hold the memory, old rows are evicted for new ones.
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

    /// Evicts the oldest segment; returns false if the table is empty.
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

    /// Adds a batch that is already accounted for, and merges it with rows that arrived at most `grain` ago.
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
        // An insert larger than the whole table is refused, and no row is lost.
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
        // Rows of another age are never evicted with them.
        add(&rows, 0..1, start + HOUR / 8).unwrap();
        assert_eq!(kept(&rows, start + HOUR + HOUR / 9), [0]);
    }
}
