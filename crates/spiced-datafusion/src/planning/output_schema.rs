//! The schema of results, without the types that clients do not support.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::util::display::FormatOptions;
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;

/// Returns the schema of the result of `plan`.
pub(crate) fn schema(plan: &LogicalPlan, parameters: &Schema, state: &SessionState) -> Result<SchemaRef> {
    match plan {
        LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => Ok(Arc::new(Schema::empty())),
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) => {
            Ok(plan.schema().inner().clone())
        }
        _ => {
            // Coercion determines the types, and rejects those that do not fit. It fails if the type of a parameter is
            // unknown; then the planner's types are used.
            let analyzed = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {});
            match analyzed {
                Ok(analyzed) => Ok(plain_schema(analyzed.schema().inner())),
                Err(_) if !parameters.fields().is_empty() => Ok(plain_schema(plan.schema().inner())),
                Err(error) => Err(error),
            }
        }
    }
}

/// Returns `schema` with plain types instead of Arrow's view types, which many clients do not support.
pub(crate) fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    if !schema.fields().iter().any(|field| plain_type(field.data_type()).is_some()) {
        return schema.clone();
    }
    let fields = schema.fields().iter().map(|field| match plain_type(field.data_type()) {
        Some(plain) => Arc::new(Field::clone(field).with_data_type(plain)),
        None => field.clone(),
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// A value that does not fit is an error; it never becomes null.
const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };

/// Converts `batch` to the names and types of `schema`.
pub(crate) fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => cast_with_options(column, field.data_type(), &STRICT),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn plain_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Utf8View => Some(DataType::Utf8),
        DataType::BinaryView => Some(DataType::Binary),
        _ => None,
    }
}
