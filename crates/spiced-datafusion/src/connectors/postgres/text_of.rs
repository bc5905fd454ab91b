//! Preserves `column::text` for types that PostgreSQL compares by type-specific rules. Such a column is text here
//! already, so DataFusion would remove the cast, and the comparison would then use the rules of the type. A function in
//! place of the cast is kept.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::table::PostgresTable;
use crate::planning::plan_expressions;

const NAME: &str = "text_of";

static FUNCTION: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Function { signature: Signature::any(1, Volatility::Immutable) })));

/// Whether this is the function that the rule inserts.
pub(super) fn is_text_of(call: &ScalarFunction) -> bool {
    Arc::ptr_eq(&call.func, &FUNCTION)
}

/// The analyzer rule, which runs before those that remove casts.
#[derive(Debug)]
pub(super) struct TextOf;

impl AnalyzerRule for TextOf {
    fn name(&self) -> &str {
        "postgres_text_of"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut columns = HashSet::new();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Ok(provider) = source_as_provider(&scan.source)
                && let Some(table) = provider.downcast_ref::<PostgresTable>()
            {
                columns.extend(table.of_own_rules().map(str::to_owned));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if columns.is_empty() {
            return Ok(plan);
        }
        let replace = |expr: Expr| match expr {
            Expr::Cast(cast)
                if matches!(cast.field.data_type(), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
                    && matches!(&*cast.expr, Expr::Column(column) if columns.contains(&column.name)) =>
            {
                let args = vec![*cast.expr];
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(FUNCTION.clone(), args))))
            }
            expr => Ok(Transformed::no(expr)),
        };
        let plan = plan.transform_up_with_subqueries(|node| {
            plan_expressions::rewrite(node, |whole| whole.transform_up(replace))
        })?;
        Ok(plan.data)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        types.first().cloned().ok_or_else(|| DataFusionError::Internal(format!("{NAME} has one argument")))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.into_iter().next().ok_or_else(|| DataFusionError::Internal(format!("{NAME} has one argument")))
    }
}
