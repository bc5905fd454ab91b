//! The size that a plan's conditions reach when their columns are expanded.
//!
//! The optimizer pushes a condition down through projections and replaces each column with the expression that computes
//! it. `SELECT x + x AS x FROM (SELECT x + x AS x FROM …) WHERE x > 0` doubles the condition at every step, within one
//! rule that checks no deadline. The size is computed beforehand, in one pass from the leaves up.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use spiced_engine::ErrorKind;

use crate::error::refusal;

/// The maximum number of terms of a condition after its columns are expanded.
const MAX_TERMS: usize = 10_000;

/// Checks every condition of `plan`, whose depth is already bounded.
///
/// # Errors
/// Fails if a condition would become too large.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    terms(plan).map(|_| ())
}

/// Returns, for each column of `plan`, the number of terms of the expression that computes it, counted from the tables
/// up.
fn terms(plan: &LogicalPlan) -> Result<Vec<usize>> {
    let mut inputs = Vec::new();
    for input in plan.inputs() {
        inputs.push(terms(input)?);
    }
    plan.apply_expressions(|expression| {
        expression.apply(|part| {
            let subquery = match part {
                Expr::ScalarSubquery(subquery) => Some(subquery),
                Expr::InSubquery(within) => Some(&within.subquery),
                Expr::Exists(exists) => Some(&exists.subquery),
                _ => None,
            };
            subquery.map_or(Ok(Vec::new()), |subquery| terms(&subquery.subquery))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let size = |expression: &Expr| term_count(expression, plan, &inputs);
    let conditions: Vec<&Expr> = match plan {
        LogicalPlan::Filter(filter) => vec![&filter.predicate],
        LogicalPlan::Join(join) => join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter).collect(),
        _ => Vec::new(),
    };
    for condition in conditions {
        if size(condition)? > MAX_TERMS {
            return Err(refusal(
                ErrorKind::InvalidStatement,
                format!(
                    "a condition of the statement has more than {MAX_TERMS} terms once the columns it is about are \
                     written out; put the rows of a step before it into a table"
                ),
            ));
        }
    }
    let width = plan.schema().fields().len();
    let mut columns = match plan {
        LogicalPlan::Projection(projection) => projection.expr.iter().map(size).collect::<Result<_>>()?,
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.iter().map(size).collect::<Result<_>>()?,
        // The condition is pushed into each branch.
        LogicalPlan::Union(_) => (0..width)
            .map(|at| {
                inputs.iter().filter_map(|input| input.get(at)).fold(0, |all: usize, one| all.saturating_add(*one))
            })
            .collect(),
        _ => inputs.concat(),
    };
    columns.resize(width, 1);
    Ok(columns)
}

/// Counts the terms of `expression`, which `plan` computes from its inputs.
fn term_count(expression: &Expr, plan: &LogicalPlan, inputs: &[Vec<usize>]) -> Result<usize> {
    let mut all = 0_usize;
    expression.apply(|part| {
        let terms = match part {
            Expr::Column(column) => {
                let mut found = plan.inputs().into_iter().zip(inputs);
                found.find_map(|(input, terms)| terms.get(input.schema().maybe_index_of_column(column)?)).copied()
            }
            _ => None,
        };
        all = all.saturating_add(terms.unwrap_or(1));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    /// `steps` projections, each of which uses the previous one's column twice, followed by `above`.
    fn doubling(steps: usize, above: &str) -> String {
        let first = "a0 AS (SELECT value AS x FROM generate_series(1, 3))".to_owned();
        let more = (1..=steps).map(|n| format!("a{n} AS (SELECT sqrt(x) + x AS x FROM a{})", n - 1));
        let all = std::iter::once(first).chain(more).collect::<Vec<_>>().join(", ");
        format!("WITH {all} {}", above.replace("LAST", &format!("a{steps}")))
    }

    #[tokio::test]
    async fn a_condition_that_doubles_is_refused_and_a_deep_one_is_not() {
        for (steps, above, admitted) in [
            (8, "SELECT * FROM LAST WHERE x > 0", true),
            (20, "SELECT * FROM LAST WHERE x > 0", false),
            (20, "SELECT * FROM LAST", true),
            (20, "SELECT x FROM LAST GROUP BY x HAVING x > 0", false),
            (20, "SELECT count(*) FROM LAST l JOIN LAST r ON l.x = r.x", false),
            (20, "SELECT * FROM (SELECT * FROM LAST UNION ALL SELECT * FROM LAST) WHERE x > 0", false),
            (20, "SELECT 1 WHERE 1 IN (SELECT x FROM LAST WHERE x > 0)", false),
        ] {
            let sql = doubling(steps, above);
            let plan = SessionContext::new().state().create_logical_plan(&sql).await.unwrap();
            assert_eq!(super::check(&plan).is_ok(), admitted, "{steps} {above}");
        }
    }
}
