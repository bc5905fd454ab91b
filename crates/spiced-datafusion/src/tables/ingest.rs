//! Bulk ingestion: plans the rows as the equivalent `INSERT` or `CREATE TABLE`, with a source that can be read once.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{Column, Constraints, TableReference};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{
    CreateMemoryTable, DdlStatement, Expr, LogicalPlan, LogicalPlanBuilder, TableSource, cast, lit,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::scalar::ScalarValue;
use futures::stream::{self, StreamExt};
use spiced_engine::{Batches, EngineError, ErrorKind, Execution, IfExists, IfMissing, Ingest, TablePath};

use crate::error::{engine_error, invalid};
use crate::planning::exact_cast::exact_cast;

/// Returns the plan of `ingest`.
pub(crate) async fn plan(ingest: Ingest, state: &SessionState) -> Result<LogicalPlan, EngineError> {
    let Ingest { table, if_missing, if_exists, rows, .. } = ingest;
    let reference = reference(&table, state);
    let schema_provider = state.schema_for_ref(reference.clone()).map_err(engine_error)?;
    let there = schema_provider.table(&table.name).await.map_err(engine_error)?;
    let source = source(rows)?;
    match (there, if_exists, if_missing) {
        (Some(provider), IfExists::Append, _) => append(reference, provider_as_source(provider), source),
        (Some(_), IfExists::Replace, _) => create(reference, source, true),
        (Some(_), IfExists::Fail, _) => Err(invalid(format!("the table `{reference}` already exists"))),
        (None, _, IfMissing::Create) => create(reference, source, false),
        (None, _, IfMissing::Fail) => {
            Err(EngineError::new(ErrorKind::NotFound, format!("there is no table `{reference}`")))
        }
    }
}

fn reference(table: &TablePath, state: &SessionState) -> TableReference {
    let defaults = &state.config_options().catalog;
    let catalog = table.catalog.as_deref().unwrap_or(&defaults.default_catalog);
    let schema = table.schema.as_deref().unwrap_or(&defaults.default_schema);
    TableReference::full(catalog, schema, table.name.as_str())
}

/// Returns a plan that reads the rows once.
fn source(rows: Execution) -> Result<LogicalPlanBuilder, EngineError> {
    let Execution { schema, batches } = rows;
    let once = Once { schema: schema.clone(), batches: Mutex::new(Some(batches)) };
    let table = StreamingTable::try_new(schema, vec![Arc::new(once)]).map_err(engine_error)?;
    LogicalPlanBuilder::scan("rows", provider_as_source(Arc::new(table)), None).map_err(engine_error)
}

fn create(name: TableReference, rows: LogicalPlanBuilder, or_replace: bool) -> Result<LogicalPlan, EngineError> {
    // The columns are unqualified: the name of the source is not part of the table.
    let columns: Vec<Expr> =
        rows.schema().columns().into_iter().map(|column| Expr::Column(column.clone()).alias(column.name)).collect();
    let input = rows.project(columns).and_then(LogicalPlanBuilder::build).map_err(engine_error)?;
    Ok(LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(CreateMemoryTable {
        name,
        constraints: Constraints::default(),
        input: Arc::new(input),
        if_not_exists: false,
        or_replace,
        column_defaults: Vec::new(),
        temporary: false,
    })))
}

/// Maps each column to the table's column of the same name and casts it to that column's type. Columns missing from the
/// rows get their default, or NULL.
fn append(
    name: TableReference,
    target: Arc<dyn TableSource>,
    rows: LogicalPlanBuilder,
) -> Result<LogicalPlan, EngineError> {
    let given: Schema = rows.schema().as_arrow().clone();
    let wanted = target.schema();
    if let Some(unknown) = given.fields().iter().find(|field| wanted.field_with_name(field.name()).is_err()) {
        let known: Vec<&str> = wanted.fields().iter().map(|field| field.name().as_str()).collect();
        let message = format!("`{name}` has no column `{}`; it has {}", unknown.name(), known.join(", "));
        return Err(invalid(message));
    }
    let provider = source_as_provider(&target).map_err(engine_error)?;
    let column = |field: &datafusion::arrow::datatypes::Field| -> Result<Expr, EngineError> {
        let value = match given.field_with_name(field.name()) {
            Ok(column) => {
                let value = Expr::Column(Column::from_name(field.name()));
                let value = exact_cast(value, column.data_type(), field.data_type(), field.name());
                return value.map(|value| value.alias(field.name())).map_err(engine_error);
            }
            Err(_) => match provider.get_column_default(field.name()) {
                Some(default) => default.clone(),
                None if field.is_nullable() => lit(ScalarValue::Null),
                None => {
                    return Err(invalid(format!(
                        "the column `{}` of `{name}` takes no NULL, and the rows leave it out",
                        field.name()
                    )));
                }
            },
        };
        Ok(cast(value, field.data_type().clone()).alias(field.name()))
    };
    let columns = wanted.fields().iter().map(|field| column(field)).collect::<Result<Vec<_>, _>>()?;
    let input = rows.project(columns).and_then(LogicalPlanBuilder::build).map_err(engine_error)?;
    LogicalPlanBuilder::insert_into(input, name, target, InsertOp::Append)
        .and_then(LogicalPlanBuilder::build)
        .map_err(engine_error)
}

/// Rows that can be read once.
struct Once {
    schema: SchemaRef,
    batches: Mutex<Option<Batches>>,
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).take();
        let batches = batches.unwrap_or_else(|| {
            stream::iter([Err(EngineError::new(ErrorKind::Internal, "the rows were read already"))]).boxed()
        });
        let batches = batches.map(|batch| batch.map_err(|error| DataFusionError::External(Box::new(error))));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("schema", &self.schema).finish_non_exhaustive()
    }
}
