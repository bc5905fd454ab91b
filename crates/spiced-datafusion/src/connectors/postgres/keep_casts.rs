//! Preserves `column::text` for types that PostgreSQL compares by type-specific rules. Such a column is text here
//! already, so DataFusion would remove the cast, and the comparison would then use the rules of the type. A function in
//! place of the cast is kept.

use std::collections::HashSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use super::table::PostgresTable;
use super::text_of::text_of;
use crate::planning::plan_expressions;

/// The analyzer rule, which runs before those that remove casts.
#[derive(Debug)]
pub(super) struct KeepCasts;

impl AnalyzerRule for KeepCasts {
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
                Ok(Transformed::yes(text_of(*cast.expr)))
            }
            expr => Ok(Transformed::no(expr)),
        };
        let plan = plan.transform_up_with_subqueries(|node| {
            plan_expressions::rewrite(node, |whole| whole.transform_up(replace))
        })?;
        Ok(plan.data)
    }
}
