//! An in-memory table whose memory is accounted for: a `memory:` data set, or the result of `CREATE TABLE`.
//!
//! DataFusion's own `MemTable` is not used: it draws on no memory pool, and it executes `DELETE` and `UPDATE` during
//! planning, so that even `EXPLAIN DELETE` deletes.
//!
//! A row's address is a number that is unique within the table and never reused: if rows are changed or moved, the
//! batch that holds them is renumbered.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use datafusion::arrow::compute::{filter_record_batch, interleave};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::common::{Constraints, SchemaExt};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use futures::stream;
use spiced_engine::ErrorKind;

use crate::error::refusal;
use crate::execution::coalesce::{collect, merged};
use crate::proven::Proven;
use crate::tables::updatable::{UpdatableTable, row_id_column};

/// An in-memory table.
#[derive(Debug)]
pub(crate) struct MemoryTable {
    schema: SchemaRef,
    constraints: Constraints,
    column_defaults: Proven<HashMap<String, Expr>>,
    rows: Arc<Rows>,
}

impl MemoryTable {
    /// Creates an empty table whose rows count against `pool`.
    pub(crate) fn new(schema: SchemaRef, pool: &Arc<dyn MemoryPool>) -> Self {
        let reservation = MemoryConsumer::new("memory table").register(pool);
        let held = Mutex::new(Held { parts: Vec::new(), next: 0, reservation });
        let rows = Rows { schema: schema.clone(), held };
        Self {
            schema,
            constraints: Constraints::default(),
            column_defaults: Proven::new(HashMap::new()),
            rows: Arc::new(rows),
        }
    }

    /// Returns the keys that the table was created with.
    pub(crate) fn declared(&self) -> &Constraints {
        &self.constraints
    }

    /// Sets the keys and defaults from `CREATE TABLE`.
    pub(crate) fn with_definition(mut self, constraints: Constraints, defaults: HashMap<String, Expr>) -> Self {
        self.constraints = constraints;
        self.column_defaults = Proven::new(defaults);
        self
    }

    /// Appends all rows of `stream`, or no row if the stream fails; returns the number of rows.
    pub(crate) async fn append(&self, stream: SendableRecordBatchStream) -> Result<u64> {
        self.rows.append(stream).await
    }
}

#[async_trait]
impl TableProvider for MemoryTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Keys are not enforced, so no plan may rely on them.
    fn constraints(&self) -> Option<&Constraints> {
        None
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.column_defaults.get(column)
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let batches: Vec<RecordBatch> = self.rows.held().parts.iter().map(|part| part.batch.clone()).collect();
        let source = MemorySourceConfig::try_new(&[batches], self.schema.clone(), projection.cloned())?;
        Ok(DataSourceExec::from_data_source(source.with_limit(limit)))
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if op != InsertOp::Append {
            return Err(refusal(ErrorKind::Unsupported, "a table in memory takes INSERT INTO, and does not overwrite"));
        }
        self.schema.logically_equivalent_names_and_types(&input.schema())?;
        Ok(Arc::new(DataSinkExec::new(input, self.rows.clone(), None)))
    }
}

impl UpdatableTable for MemoryTable {
    fn addressed(&self) -> Result<Arc<dyn TableProvider>> {
        let address = Arc::new(Field::new(row_id_column("row", &self.schema), DataType::UInt64, false));
        let fields: Vec<_> = self.schema.fields().iter().cloned().chain([address]).collect();
        let schema = Arc::new(Schema::new(fields));
        let rows = Numbered { rows: self.rows.clone(), schema: schema.clone() };
        Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(rows)])?))
    }

    fn change(&self, columns: &[usize], given: SchemaRef) -> Result<Arc<dyn DataSink>> {
        // Nullability is checked once the values are available.
        let fields = columns.iter().map(|at| self.schema.fields()[*at].clone());
        let fields: Vec<_> = given.fields().iter().take(1).cloned().chain(fields).collect();
        let (rows, columns) = (self.rows.clone(), columns.to_vec());
        Ok(Arc::new(Change { rows, columns, given, wanted: Arc::new(Schema::new(fields)) }))
    }
}

/// The rows, shared by the table and the running statements.
struct Rows {
    schema: SchemaRef,
    held: Mutex<Held>,
}

struct Held {
    parts: Vec<Part>,
    /// The address of the next row.
    next: u64,
    /// The memory of `parts`.
    reservation: MemoryReservation,
}

/// Rows that were added or changed together.
#[derive(Clone)]
struct Part {
    /// The address of the first row; the others follow consecutively.
    first: u64,
    batch: RecordBatch,
}

impl Held {
    /// Numbers a batch that joins the parts.
    fn part(&mut self, batch: RecordBatch) -> Part {
        let first = self.next;
        self.next += batch.num_rows() as u64;
        self.reservation.grow(get_record_batch_memory_size(&batch));
        Part { first, batch }
    }

    /// Releases the memory of a batch that was removed.
    fn gone(&self, batch: &RecordBatch) {
        self.reservation.shrink(get_record_batch_memory_size(batch));
    }
}

impl Rows {
    fn held(&self) -> MutexGuard<'_, Held> {
        // The parts are replaced as a whole, so a panic elsewhere leaves them intact.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&self, stream: SendableRecordBatchStream) -> Result<u64> {
        let coming = self.held().reservation.new_empty();
        let (fresh, rows) = collect(stream, &self.schema, &coming).await?;
        let mut held = self.held();
        for mut batch in fresh {
            while let Some(both) = held.parts.last().and_then(|last| merged(&last.batch, &batch)) {
                if let Some(last) = held.parts.pop() {
                    held.gone(&last.batch);
                }
                batch = both;
            }
            let part = held.part(batch);
            held.parts.push(part);
        }
        // Briefly counted twice, but never uncounted.
        coming.free();
        Ok(rows)
    }

    /// Sets `columns` of the rows whose addresses are in the first column of `given` to the values in its other
    /// columns; deletes the rows if there are no other columns.
    fn change(&self, given: &[RecordBatch], columns: &[usize], coming: &MemoryReservation) -> Result<()> {
        let mut parts = self.held().parts.clone();
        parts.sort_by_key(|part| part.first);
        let mut hits: HashMap<usize, Vec<Hit>> = HashMap::new();
        for (at, batch) in given.iter().enumerate() {
            coming.try_grow(batch.num_rows() * size_of::<Hit>())?;
            for (row, address) in batch.column(0).as_primitive::<UInt64Type>().values().iter().enumerate() {
                let place = parts.partition_point(|part| part.first <= *address).checked_sub(1).ok_or_else(changed)?;
                let part = &parts[place];
                let within = usize::try_from(address - part.first).unwrap_or(usize::MAX);
                if within >= part.batch.num_rows() {
                    return Err(changed());
                }
                hits.entry(place).or_default().push(Hit { within, given: (at, row) });
            }
        }
        let mut fresh = Vec::new();
        for (place, hits) in hits {
            let Part { first, batch } = &parts[place];
            let after = match columns.is_empty() {
                true => without(batch, &hits)?,
                false => updated(batch, &hits, given, columns)?,
            };
            coming.try_grow(get_record_batch_memory_size(&after))?;
            fresh.push((*first, after));
        }
        let mut held = self.held();
        let places: HashMap<u64, usize> = held.parts.iter().enumerate().map(|(at, part)| (part.first, at)).collect();
        if fresh.iter().any(|(first, _)| !places.contains_key(first)) {
            return Err(changed());
        }
        for (first, batch) in fresh {
            let part = held.part(batch);
            let before = std::mem::replace(&mut held.parts[places[&first]], part);
            held.gone(&before.batch);
        }
        let (kept, empty): (_, Vec<Part>) =
            std::mem::take(&mut held.parts).into_iter().partition(|part| part.batch.num_rows() > 0);
        held.parts = kept;
        empty.iter().for_each(|part| held.gone(&part.batch));
        Ok(())
    }
}

/// A row of a part, and the batch and row that hold its new values.
struct Hit {
    within: usize,
    given: (usize, usize),
}

/// Returns `batch` without the hit rows.
fn without(batch: &RecordBatch, hits: &[Hit]) -> Result<RecordBatch> {
    let mut stays = vec![true; batch.num_rows()];
    hits.iter().for_each(|hit| stays[hit.within] = false);
    Ok(filter_record_batch(batch, &BooleanArray::from(stays))?)
}

/// Returns `batch` with the given values in `columns`.
fn updated(batch: &RecordBatch, hits: &[Hit], given: &[RecordBatch], columns: &[usize]) -> Result<RecordBatch> {
    // The first source is the unchanged column.
    let mut picks: Vec<(usize, usize)> = (0..batch.num_rows()).map(|row| (0, row)).collect();
    hits.iter().for_each(|hit| picks[hit.within] = (hit.given.0 + 1, hit.given.1));
    let mut after: Vec<ArrayRef> = batch.columns().to_vec();
    for (value, column) in columns.iter().enumerate() {
        let mut from: Vec<&dyn Array> = vec![batch.column(*column).as_ref()];
        from.extend(given.iter().map(|given| given.column(value + 1).as_ref()));
        after[*column] = interleave(&from, &picks)?;
    }
    Ok(RecordBatch::try_new(batch.schema(), after)?)
}

fn changed() -> datafusion::error::DataFusionError {
    let why = "another statement has changed the table meanwhile; nothing was changed by this one: try it again";
    refusal(ErrorKind::Unavailable, why)
}

#[async_trait]
impl DataSink for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(&self, data: SendableRecordBatchStream, _context: &Arc<TaskContext>) -> Result<u64> {
        self.append(data).await
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl DisplayAs for Rows {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryTable")
    }
}

/// Consumes the rows that an UPDATE or a DELETE affects.
#[derive(Debug)]
struct Change {
    rows: Arc<Rows>,
    columns: Vec<usize>,
    given: SchemaRef,
    wanted: SchemaRef,
}

#[async_trait]
impl DataSink for Change {
    fn schema(&self) -> &SchemaRef {
        &self.given
    }

    async fn write_all(&self, data: SendableRecordBatchStream, _context: &Arc<TaskContext>) -> Result<u64> {
        let coming = self.rows.held().reservation.new_empty();
        let (given, rows) = collect(data, &self.wanted, &coming).await?;
        self.rows.change(&given, &self.columns, &coming)?;
        Ok(rows)
    }
}

impl DisplayAs for Change {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryTable")
    }
}

/// The rows at the time they are read, with their addresses as the last column.
struct Numbered {
    rows: Arc<Rows>,
    schema: SchemaRef,
}

impl PartitionStream for Numbered {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (parts, schema) = (self.rows.held().parts.clone(), self.schema.clone());
        let batches = parts.into_iter().map(move |Part { first, batch }| {
            let addresses = UInt64Array::from_iter_values(first..first + batch.num_rows() as u64);
            let columns = batch.columns().iter().cloned().chain([Arc::new(addresses) as ArrayRef]).collect();
            Ok(RecordBatch::try_new(schema.clone(), columns)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream::iter(batches)))
    }
}

impl fmt::Debug for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryTable")
    }
}
