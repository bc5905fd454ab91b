//! Tables whose rows UPDATE and DELETE can address.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::common::metadata::FieldMetadata;
use datafusion::datasource::sink::DataSink;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

/// A table whose rows can be identified.
pub(crate) trait UpdatableTable: TableProvider {
    /// Returns the table with the row ids as further columns after its own.
    fn addressed(&self) -> Result<Arc<dyn TableProvider>>;

    /// Returns a sink that takes row ids followed by new values of `columns`, and changes these rows; if `columns` is
    /// empty, it deletes the rows. It changes all rows, or none if one of them is gone or has changed since. It counts
    /// the rows.
    ///
    /// # Errors
    /// Fails if the table cannot change these columns.
    fn change(&self, columns: &[usize], given: SchemaRef) -> Result<Arc<dyn DataSink>>;

    /// Returns a sink that takes rows with only `columns` and fills in the other columns: a default, the next number of
    /// a sequence, a generated value. Returns `None` if the table cannot fill in columns.
    ///
    /// # Errors
    /// Fails if the table accepts no rows.
    fn insert(&self, _columns: &[usize]) -> Result<Option<Arc<dyn DataSink>>> {
        Ok(None)
    }
}

/// The default of an [`UpdatableTable`] for a column that an INSERT omits, if the table itself fills the column in.
pub(crate) fn left_out() -> Expr {
    let mark = [(LEFT_OUT.to_owned(), String::new())];
    Expr::Literal(ScalarValue::Null, Some(FieldMetadata::from(BTreeMap::from(mark))))
}

/// The metadata key that marks [`left_out`].
const LEFT_OUT: &str = "spiced.left_out";

/// Returns whether `value` is [`left_out`].
pub(crate) fn is_left_out(value: &Expr) -> bool {
    match value {
        Expr::Alias(alias) => is_left_out(&alias.expr),
        Expr::Cast(cast) => is_left_out(&cast.expr),
        Expr::Literal(ScalarValue::Null, Some(metadata)) => metadata.inner().contains_key(LEFT_OUT),
        _ => false,
    }
}

/// Returns a name for a row id column that no column of `schema` has.
pub(crate) fn row_id_column(name: &str, schema: &Schema) -> String {
    let mut name = name.to_owned();
    while schema.column_with_name(&name).is_some() {
        name.push('_');
    }
    name
}
