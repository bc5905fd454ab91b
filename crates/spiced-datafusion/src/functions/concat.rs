//! The `||` operator: DataFusion does not treat it as a function, and a text concatenated with itself doubles each
//! time.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};

use super::bounds::too_large;
use super::contain::contain;
use super::governor::Governor;
use super::{piece, sizes};

/// Concatenates two texts after checking the length of the result.
#[derive(Debug)]
pub(super) struct Concat {
    /// The operator as planned.
    pair: BinaryExpr,
    governor: Arc<Governor>,
}

impl Concat {
    pub(super) fn new(left: Arc<dyn PhysicalExpr>, right: Arc<dyn PhysicalExpr>, governor: Arc<Governor>) -> Self {
        Self { pair: BinaryExpr::new(left, Operator::StringConcat, right), governor }
    }
}

impl PartialEq for Concat {
    fn eq(&self, other: &Self) -> bool {
        self.pair == other.pair
    }
}

impl Eq for Concat {}

impl Hash for Concat {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pair.hash(state);
    }
}

impl fmt::Display for Concat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pair.fmt(f)
    }
}

impl PhysicalExpr for Concat {
    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.pair.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let both = [self.pair.left().evaluate(batch)?, self.pair.right().evaluate(batch)?];
        let are_constant = both.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if are_constant { 1 } else { batch.num_rows() };
        let bytes = both.iter().map(|value| sizes::of_value(value, rows)).fold(0, u64::saturating_add);
        // Constants are expanded to arrays first, and then both sides are concatenated.
        let bytes = bytes.saturating_mul(2);
        let bounds = &self.governor.bounds;
        if are_constant && bytes / 2 > bounds.value {
            return Err(too_large("||", bytes / 2, 1, bounds.value));
        }
        piece::admit("||", bytes, rows, bounds)?;
        let columns = both.map(|value| value.into_array(rows));
        let [left, right] = columns;
        let (left, right) = (left?, right?);
        let fields = [&left, &right].map(|side| Field::new("", side.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let pair = RecordBatch::try_new_with_options(schema, vec![left, right], &options)?;
        let sides = [0, 1].map(|at| Arc::new(Column::new("", at)) as Arc<dyn PhysicalExpr>);
        let [left, right] = sides;
        let made = contain("||", || BinaryExpr::new(left, Operator::StringConcat, right).evaluate(&pair))?;
        match made {
            ColumnarValue::Array(array) if are_constant => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            made => Ok(made),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.pair.children()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let [left, right] = &children[..] else {
            return datafusion::common::internal_err!("`||` has two sides");
        };
        Ok(Arc::new(Self::new(left.clone(), right.clone(), self.governor.clone())))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pair.fmt_sql(f)
    }
}
