//! What rules do with the expressions of a plan's nodes.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

/// Returns whether `affects` is true of any part of the expressions of `node`.
pub(crate) fn any(node: &LogicalPlan, affects: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|whole| {
        found = whole.exists(|part| Ok(affects(part)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Replaces each expression of `node` by what `change` makes of it, under the name that it had.
pub(crate) fn rewrite(
    node: LogicalPlan,
    mut change: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    node.map_expressions(|whole| {
        let name = names.save(&whole);
        let changed = change(whole)?;
        Ok(if changed.transformed { changed.update_data(|whole| name.restore(whole)) } else { changed })
    })
}

/// Like [`rewrite`], for changes that depend on types or alter them. `change` also gets the columns that an expression
/// may use.
pub(crate) fn rewrite_typed(
    node: LogicalPlan,
    mut change: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let schema = match &node {
        LogicalPlan::TableScan(scan) => {
            DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
        }
        node => merge_schema(&node.inputs()),
    };
    let changed = rewrite(node, |whole| change(whole, &schema))?;
    match changed.transformed {
        true => changed.map_data(LogicalPlan::recompute_schema),
        false => Ok(changed),
    }
}

/// Rewrites the comparisons and casts of a plan and of its subqueries, from the inside out. `change` gets every part of
/// an expression with the columns that it may use. A node without comparisons and casts costs only the check.
pub(crate) fn rewrite_comparisons(
    plan: LogicalPlan,
    change: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    let is_affected = |part: &Expr| match part {
        Expr::BinaryExpr(binary) => compares(binary.op),
        other => matches!(other, Expr::Between(_) | Expr::InList(_) | Expr::Cast(_)),
    };
    let plan = plan.transform_up_with_subqueries(|node| match any(&node, is_affected)? {
        true => rewrite_typed(node, |whole, schema| whole.transform_up(|part| change(part, schema))),
        false => Ok(Transformed::no(node)),
    })?;
    Ok(plan.data)
}

/// Returns whether `op` compares two values.
pub(crate) fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}
