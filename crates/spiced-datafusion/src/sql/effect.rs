//! The effect of a plan, determined from the plan. A node counts as reading only if it is known to do nothing else.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement};
use spiced_engine::Effect;

/// Returns the strongest effect of any part of `plan`, including common table expressions, subqueries and the statement
/// within `EXPLAIN ANALYZE` or `PREPARE`. `EXPLAIN` alone runs nothing, and counts as reading.
pub(crate) fn of(plan: &LogicalPlan) -> Result<Effect> {
    let mut most = Effect::Read;
    plan.apply_with_subqueries(|node| {
        most = most.max(of_node(node));
        Ok(if matches!(node, LogicalPlan::Explain(_)) { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    })?;
    Ok(most)
}

/// Returns the effect of a single node. The match has no wildcard on purpose: a kind of node that a later DataFusion
/// version adds must be reviewed first.
fn of_node(node: &LogicalPlan) -> Effect {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::RecursiveQuery(_) => Effect::Read,
        LogicalPlan::Dml(_) => Effect::Write,
        LogicalPlan::Copy(_) | LogicalPlan::Extension(_) => Effect::Admin,
        LogicalPlan::Ddl(ddl) => match ddl {
            DdlStatement::CreateMemoryTable(_)
            | DdlStatement::CreateView(_)
            | DdlStatement::CreateCatalogSchema(_)
            | DdlStatement::CreateCatalog(_)
            | DdlStatement::CreateIndex(_)
            | DdlStatement::DropTable(_)
            | DdlStatement::DropView(_)
            | DdlStatement::DropCatalogSchema(_) => Effect::Ddl,
            DdlStatement::CreateExternalTable(_) | DdlStatement::CreateFunction(_) | DdlStatement::DropFunction(_) => {
                Effect::Admin
            }
        },
        LogicalPlan::Statement(statement) => match statement {
            Statement::SetVariable(_)
            | Statement::ResetVariable(_)
            | Statement::Prepare(_)
            | Statement::Deallocate(_)
            | Statement::TransactionStart(_)
            | Statement::TransactionEnd(_) => Effect::Session,
            // The planner of this crate replaces it with the prepared plan; one that remains is unknown.
            Statement::Execute(_) => Effect::Admin,
        },
    }
}
