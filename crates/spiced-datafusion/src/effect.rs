//! What a plan does, read from the plan. What is not known to only read does not count as reading.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement};
use spiced_engine::Effect;

/// The most that any part of `plan` does: common table expressions, subqueries and the statement
/// within `EXPLAIN ANALYZE` or `PREPARE` included. `EXPLAIN` alone runs nothing, and reads.
pub(crate) fn of(plan: &LogicalPlan) -> Result<Effect> {
    let mut most = Effect::Read;
    plan.apply_with_subqueries(|node| {
        most = most.max(of_node(node));
        Ok(if matches!(node, LogicalPlan::Explain(_)) { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    })?;
    Ok(most)
}

/// What a node does by itself. There is no wildcard here on purpose: a kind of node that a later
/// DataFusion adds has to be looked at first.
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
            // The planner of this crate replaces it by the plan that was prepared; one that is left
            // is unknown.
            Statement::Execute(_) => Effect::Admin,
        },
    }
}
