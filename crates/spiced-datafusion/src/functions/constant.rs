//! A large constant of the statement's text that would be repeated for every row: as a function, its size is checked
//! first.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::governor::Governor;
use super::{literals, piece, sizes};

/// The name that an error shows to a caller.
const NAME: &str = "a constant";

#[derive(Debug)]
struct Constant {
    value: ScalarValue,
    name: String,
    signature: Signature,
    governor: Arc<Governor>,
}

/// Returns whether `node` repeats constants for every row.
pub(super) fn spreads(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_) => true,
        // A projection is split according to its constants; it learns too late what a `CASE` makes of them.
        LogicalPlan::Projection(projection) => projection.expr.iter().any(has_case),
        _ => false,
    }
}

fn has_case(whole: &Expr) -> bool {
    // The closure never fails.
    whole.exists(|part| Ok(matches!(part, Expr::Case(_)))).unwrap_or(false)
}

/// Returns whether `part` is a large constant.
pub(super) fn is_large(part: &Expr) -> bool {
    matches!(part, Expr::Literal(value, None) if sizes::of_scalar(value) > literals::ONE)
}

/// Replaces the constant `part` with a function.
pub(super) fn govern(part: Expr, governor: &Arc<Governor>) -> Expr {
    let name = part.schema_name().to_string();
    let Expr::Literal(value, None) = part else { return part };
    let signature = Signature::exact(Vec::new(), Volatility::Immutable);
    let constant = Constant { value, name, signature, governor: governor.clone() };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(constant)), Vec::new()))
}

/// Returns whether `function` replaces a constant.
pub(super) fn is_governed(function: &ScalarUDF) -> bool {
    function.inner().is::<Constant>()
}

impl PartialEq for Constant {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Constant {}

impl Hash for Constant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        NAME
    }

    fn schema_name(&self, _: &[Expr]) -> Result<String> {
        Ok(self.name.clone())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.value.data_type(), self.value.is_null())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = sizes::of_scalar(&self.value);
        literals::admit(NAME, bytes)?;
        let all = bytes.saturating_mul(args.number_rows.max(1) as u64);
        piece::admit(NAME, all, args.number_rows, &self.governor.bounds)?;
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}
