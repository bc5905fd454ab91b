//! The table: its schema from PostgreSQL, its rows by one statement a scan.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, DFSchema, SchemaExt};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt};
use spiced_engine::ErrorKind;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{RowStream, Statement};

use super::super::outdated::Outdated;
use super::super::remote::RemoteScan;
use super::change::{ADDRESSES, Change};
use super::connect::{Busy, Pool, Trouble};
use super::expression::{Condition, Value, compared_by_own_rules, condition};
use super::keys::Keys;
use super::types::{Collation, Reading};
use super::values::Raw;
use super::write::Copy;
use super::{Keyed, Relation, quoted};
use crate::dml::{UpdatableTable, left_out, row_id_column};
use crate::error::refusal;

/// A batch is full with this many bytes as they came, however few rows that is.
const BATCH_BYTES: usize = 8 << 20;

/// Where rows come from.
#[derive(Debug, Clone)]
enum From {
    /// A table or view.
    Relation(Relation),
    /// A statement, whose columns have names of their own.
    Query(String),
}

impl From {
    /// As it stands in a statement.
    fn sql(&self) -> String {
        match self {
            Self::Relation(relation) => relation.quoted(),
            Self::Query(sql) => format!("({sql}) AS q"),
        }
    }
}

/// A table or view of a server, or what a statement makes of several.
#[derive(Debug, Clone)]
pub(super) struct PostgresTable {
    pool: Pool,
    from: From,
    schema: SchemaRef,
    readings: Vec<Reading>,
    /// How many of the columns are the table's own; the rest are addresses.
    own: usize,
    /// Whether its rows have addresses: it is a table, and no view.
    has_addresses: bool,
    writable: bool,
    keys: Arc<Keys>,
    outdated: Outdated,
}

impl PostgresTable {
    /// Asks the server what the table is.
    pub(super) async fn open(
        pool: Pool,
        relation: Relation,
        writable: bool,
        outdated: Outdated,
    ) -> std::result::Result<Self, Trouble> {
        let client = pool.get().await?;
        let name = relation.quoted();
        let statement = client.prepare(&format!("SELECT * FROM {name}")).await?;
        // Rows of a foreign table, and of one that is a part of this one, have no version.
        let query = "WITH RECURSIVE parts(oid) AS ( \
                         SELECT $1::text::regclass::oid UNION \
                         SELECT inhrelid FROM pg_catalog.pg_inherits JOIN parts ON inhparent = parts.oid \
                     ) \
                     SELECT attname::text, \
                         attnotnull AND (relkind = 'p' OR NOT EXISTS ( \
                             SELECT FROM pg_catalog.pg_inherits WHERE inhparent = attrelid \
                         )), \
                         relkind IN ('r', 'p') AND NOT EXISTS ( \
                         SELECT FROM parts JOIN pg_catalog.pg_foreign_table ON ftrelid = parts.oid \
                     ), \
                     attcollation NOT IN (0, 100), \
                     current_setting('server_encoding') <> 'UTF8', \
                     EXISTS ( \
                         SELECT FROM pg_catalog.pg_collation AS known WHERE known.oid = attcollation \
                         AND to_jsonb(known) ->> 'collisdeterministic' = 'false' \
                     ) \
                     FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class ON attrelid = pg_class.oid \
                     WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
        let known = client.query(query, &[&name]).await?;
        let has_addresses = known.iter().all(|row| row.get(2));
        // Whether a column is never null (a child of a table may say otherwise), and how its texts are compared (100 is the
        // database's own way).
        let collation = |is_other: bool, is_lax: bool, is_nondeterministic: bool| {
            if is_nondeterministic {
                Collation::Nondeterministic
            } else if is_lax {
                Collation::Lax
            } else if is_other {
                Collation::Other
            } else {
                Collation::Default
            }
        };
        let known: HashMap<String, (bool, Collation)> =
            known.iter().map(|row| (row.get(0), (row.get(1), collation(row.get(3), row.get(4), row.get(5))))).collect();
        let (mut fields, mut readings) = (Vec::new(), Vec::new());
        for column in statement.columns() {
            let (never_null, collation) = known.get(column.name()).copied().unwrap_or((false, Collation::Lax));
            let reading = Reading::of(column.type_(), column.type_modifier(), collation);
            fields.push(Field::new(column.name(), reading.data_type(), !never_null));
            readings.push(reading);
        }
        let schema = Arc::new(Schema::new(fields));
        if schema.fields().is_empty() {
            return Err(Trouble::unavailable(format!("PostgreSQL: {name} has no columns")));
        }
        let own = readings.len();
        let mut keys = Keys::of(&client, &name).await;
        // What is hidden from `SELECT *` is no column here.
        keys.primary.take_if(|key| !key.columns.iter().all(|column| schema.index_of(column).is_ok()));
        let keys = Arc::new(keys);
        let from = From::Relation(relation);
        Ok(Self { pool, from, schema, readings, own, has_addresses, writable, keys, outdated })
    }

    /// What `sql` gives, which is made of tables for which `outdated` is said.
    pub(super) fn of_query(
        pool: Pool,
        sql: String,
        schema: SchemaRef,
        readings: Vec<Reading>,
        outdated: Outdated,
    ) -> Self {
        let (own, from, keys) = (readings.len(), From::Query(sql), Arc::default());
        Self { pool, from, schema, readings, own, has_addresses: false, writable: false, keys, outdated }
    }

    /// Says that the table is another one now.
    pub(super) fn outdated(&self) -> &Outdated {
        &self.outdated
    }

    pub(super) fn keyed(&self) -> Keyed<'_> {
        Keyed { pool: &self.pool, keys: &self.keys }
    }

    /// The table, where it may be a part of a larger statement: it is the server's as it is, and its rows need no address.
    pub(super) fn whole(&self) -> Option<(&Pool, &Relation)> {
        match &self.from {
            From::Relation(relation) if self.own == self.readings.len() && self.pool.takes_whole_queries() => {
                Some((&self.pool, relation))
            }
            _ => None,
        }
    }

    /// The columns that PostgreSQL compares by rules of their own.
    pub(super) fn of_own_rules(&self) -> impl Iterator<Item = &str> {
        let columns = self.schema.fields().iter().zip(&self.readings);
        columns.filter(|(_, reading)| reading.has_own_rules()).map(|(field, _)| field.name().as_str())
    }

    /// How many columns there are.
    pub(super) fn width(&self) -> usize {
        self.readings.len()
    }

    /// A column, in a statement about the table alone, which is called `of` there.
    pub(super) fn column(&self, of: &str, at: usize) -> Value {
        Value::new(format!("{of}{}", quoted(self.schema.field(at).name())), self.readings[at].clone())
    }

    /// The same by its name.
    pub(super) fn named(&self, of: &str, column: &Column) -> Option<Value> {
        Some(self.column(of, self.schema.index_of(column.name()).ok()?))
    }

    fn condition(&self, filter: &Expr) -> Option<Condition> {
        condition(filter, &|column| self.named("", column))
    }

    fn statement(&self, columns: &[usize], filters: &[Condition], limit: Option<usize>) -> String {
        let column = |at: &usize| {
            if let Some(address) = at.checked_sub(self.own) {
                return format!("({})::text", ADDRESSES[address].sql);
            }
            let Value { sql, reading, .. } = self.column("", *at);
            if reading.is_text() { format!("{sql}::text") } else { sql }
        };
        let selected = columns.iter().map(column).collect::<Vec<_>>().join(", ");
        let mut sql = format!("SELECT {selected} FROM {}", self.from.sql());
        for (at, filter) in filters.iter().enumerate() {
            sql += if at == 0 { " WHERE " } else { " AND " };
            sql += &filter.sql;
        }
        if let Some(limit) = limit {
            sql += &format!(" LIMIT {limit}");
        }
        sql
    }

    /// The table that may be written.
    fn written(&self) -> Option<&Relation> {
        match &self.from {
            From::Relation(relation) if self.writable => Some(relation),
            _ => None,
        }
    }
}

/// Why a condition is refused that PostgreSQL cannot be asked, and this engine would answer by another rule.
fn own_rules(column: &str) -> String {
    format!(
        "PostgreSQL compares the column `{column}` by rules of its type, and this condition cannot be left to it as a whole; put the \
         comparison into a condition of its own (AND), or compare its text: `{column}::text`"
    )
}

#[async_trait]
impl TableProvider for PostgresTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| {
            let condition = self.condition(filter);
            let column = match condition {
                Some(_) => None,
                None => compared_by_own_rules(filter, &|column| self.named("", column)),
            };
            match column {
                Some(column) => Err(refusal(ErrorKind::Unsupported, own_rules(&column))),
                None => Ok(Condition::support(condition.as_ref())),
            }
        };
        filters.iter().map(support).collect()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.readings.len()).collect());
        let (mut conditions, mut rest) = (Vec::new(), Vec::new());
        for filter in filters {
            match self.condition(filter) {
                Some(condition) => conditions.push(condition),
                None => rest.push(filter.clone()),
            }
        }
        // The optimizer may rewrite what it has handed over already into what has no words there.
        let Some(rest) = conjunction(rest) else { return self.scanned(&columns, &conditions, limit) };
        let wanted = columns.len();
        for column in rest.column_refs() {
            let at = self.schema.index_of(column.name())?;
            if !columns.contains(&at) {
                columns.push(at);
            }
        }
        let scan = self.scanned(&columns, &conditions, None)?;
        let schema = DFSchema::try_from(scan.schema())?;
        let predicate = state.create_physical_expr(rest, &schema)?;
        let filter = FilterExecBuilder::new(predicate, scan).apply_projection(Some((0..wanted).collect()))?.build()?;
        Ok(Arc::new(filter))
    }

    /// What an INSERT leaves out is PostgreSQL's to fill in.
    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        static LEFT_OUT: LazyLock<Expr> = LazyLock::new(left_out);
        (self.written().is_some() && self.schema.index_of(column).is_ok()).then(|| &*LEFT_OUT)
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(relation) = self.written().filter(|_| op == InsertOp::Append) else {
            return Err(takes_no_rows());
        };
        self.schema.logically_equivalent_names_and_types(&input.schema())?;
        let copy = Copy::new(self.pool.clone(), relation, self.schema.clone());
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(copy), None)))
    }
}

impl PostgresTable {
    fn scanned(
        &self,
        columns: &[usize],
        conditions: &[Condition],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let sql = self.statement(columns, conditions, limit);
        let schema = Arc::new(self.schema.project(columns)?);
        let scan = Scan {
            pool: self.pool.clone(),
            sql,
            schema,
            readings: columns.iter().map(|at| self.readings[*at].clone()).collect(),
            is_own: matches!(self.from, From::Relation(_)),
            outdated: self.outdated.clone(),
        };
        Ok(RemoteScan::plan(scan))
    }
}

impl UpdatableTable for PostgresTable {
    fn addressed(&self) -> Result<Arc<dyn TableProvider>> {
        let text = Reading::address();
        let fields =
            ADDRESSES.map(|part| Arc::new(Field::new(row_id_column(part.name, &self.schema), text.data_type(), false)));
        let fields = self.schema.fields().iter().cloned().chain(fields);
        let readings = self.readings.iter().cloned().chain(ADDRESSES.map(|_| text.clone()));
        let (schema, readings) = (Arc::new(Schema::new(fields.collect::<Vec<_>>())), readings.collect());
        Ok(Arc::new(Self { schema, readings, ..self.clone() }))
    }

    fn change(&self, columns: &[usize], given: SchemaRef) -> Result<Arc<dyn DataSink>> {
        let Some(relation) = self.written().filter(|_| self.has_addresses) else {
            let why = "a PostgreSQL data set takes UPDATE and DELETE where its access is read_write and it is a table there; a \
                       view or a foreign table, or one with foreign parts, is not";
            return Err(refusal(ErrorKind::Unsupported, why));
        };
        let columns: Vec<&str> = columns.iter().map(|at| self.schema.field(*at).name().as_str()).collect();
        Ok(Arc::new(Change::new(self.pool.clone(), relation, &columns, given)))
    }

    fn insert(&self, columns: &[usize]) -> Result<Option<Arc<dyn DataSink>>> {
        let Some(relation) = self.written() else { return Err(takes_no_rows()) };
        let schema = Arc::new(self.schema.project(columns)?);
        Ok(Some(Arc::new(Copy::new(self.pool.clone(), relation, schema))))
    }
}

fn takes_no_rows() -> DataFusionError {
    let why = "a PostgreSQL data set takes INSERT INTO where its access is read_write, and does not overwrite";
    refusal(ErrorKind::Unsupported, why)
}

/// One statement.
#[derive(Clone)]
struct Scan {
    pool: Pool,
    sql: String,
    schema: SchemaRef,
    readings: Vec<Reading>,
    /// Whether its columns are the table's own.
    is_own: bool,
    outdated: Outdated,
}

impl Scan {
    /// What the server says of the statement. Where it says that it is wrong, what is known of the table is: the statement
    /// was made of that (PostgreSQL, "Error Codes", class 42).
    fn refused(&self, error: tokio_postgres::Error) -> Trouble {
        let code = error.as_db_error().map(|said| said.code());
        if code.is_some_and(|code| code.code().starts_with("42") && *code != SqlState::INSUFFICIENT_PRIVILEGE) {
            self.outdated.notify();
        }
        Trouble::from(error)
    }

    /// How what comes differs from what is expected: the values would be taken for others than they are.
    fn changed(&self, statement: &Statement) -> Option<String> {
        let mut columns = statement.columns().iter().zip(&self.readings).zip(self.schema.fields());
        columns.find_map(|((column, reading), field)| {
            let same = reading.reads(column.type_(), column.type_modifier(), self.is_own);
            (!same).then(|| {
                format!(
                    "PostgreSQL: the column `{}` is {} now, and was read as {} when the data set was loaded; the data set is \
                     being loaded again, so send the statement again",
                    field.name(),
                    column.type_().name(),
                    field.data_type()
                )
            })
        })
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is made of the caller's own statement.
        write!(f, "PostgreSQL: {}", self.sql)
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (scan, rows) = (self.clone(), context.session_config().batch_size());
        let batches = async move {
            let running = Running::start(&scan).await?;
            Ok::<_, DataFusionError>(batches(running, scan.schema, scan.readings, rows))
        };
        let stream = futures::stream::once(batches).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

/// A statement that runs.
struct Running {
    rows: Pin<Box<RowStream>>,
    busy: Busy,
}

impl Running {
    async fn start(scan: &Scan) -> std::result::Result<Self, Trouble> {
        let none: [&(dyn ToSql + Sync); 0] = [];
        // Before anything is sent: the first word of an answer may take as long as all of it.
        let mut busy = Busy::new(scan.pool.clone()).await?;
        let client = busy.client().expect("it has just begun");
        let statement = match client.prepare(&scan.sql).await {
            Ok(statement) => statement,
            Err(error) => {
                busy.over();
                return Err(scan.refused(error));
            }
        };
        if let Some(changed) = scan.changed(&statement) {
            busy.over();
            scan.outdated.notify();
            return Err(Trouble::unavailable(changed));
        }
        let rows = Box::pin(client.query_raw(&statement, none).await?);
        Ok(Self { rows, busy })
    }
}

fn batches(
    running: Running,
    schema: SchemaRef,
    readings: Vec<Reading>,
    most: usize,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::try_unfold(running, move |mut running| {
        let (schema, readings) = (schema.clone(), readings.clone());
        async move {
            if running.busy.client().is_none() {
                return Ok(None);
            }
            let mut fillers: Vec<_> = readings.iter().map(Reading::filler).collect();
            let (mut rows, mut bytes) = (0, 0);
            while rows < most && bytes < BATCH_BYTES {
                let Some(row) = running.rows.next().await else {
                    running.busy.over();
                    break;
                };
                let row = row.map_err(Trouble::from)?;
                for (at, filler) in fillers.iter_mut().enumerate() {
                    let raw: Option<Raw<'_>> = row.try_get(at).map_err(Trouble::from)?;
                    bytes += raw.as_ref().map_or(0, |raw| raw.0.len());
                    filler.push(raw.map(|raw| raw.0)).map_err(|why| {
                        let name = schema.field(at).name();
                        refusal(ErrorKind::InvalidStatement, format!("the column `{name}` of PostgreSQL {why}"))
                    })?;
                }
                rows += 1;
            }
            if rows == 0 {
                return Ok(None);
            }
            let columns = fillers.iter_mut().map(|filler| filler.finish()).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            Ok(Some((RecordBatch::try_new_with_options(schema, columns, &options)?, running)))
        }
    })
}
