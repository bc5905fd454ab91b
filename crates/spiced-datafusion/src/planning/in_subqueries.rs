//! Three-valued logic for `IN (SELECT …)` inside a larger condition.
//!
//! There, DataFusion plans a join that marks the rows with a match. The mark is false where SQL requires NULL: if
//! nothing matches, and the value or one of the subquery's rows is NULL. `NOT IN` would then keep rows that it must not
//! keep (ISO/IEC 9075-2, 8.4 and 8.9).
//!
//! In a select list, DataFusion has no plan for `IN` and `EXISTS`. They become a count of the subquery's rows there.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit,
};
use datafusion::optimizer::AnalyzerRule;

use crate::planning::plan_expressions;

/// The analyzer rule. It runs after type coercion.
#[derive(Debug)]
pub(crate) struct InSubqueries;

impl AnalyzerRule for InSubqueries {
    fn name(&self) -> &str {
        "in_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Filter(Filter { predicate, input, .. }) if has_subquery(&predicate)? => {
                let rewritten = condition(predicate, input.schema(), Place::Conjunct)?;
                let changed = rewritten.transformed;
                let filter = LogicalPlan::Filter(Filter::try_new(rewritten.data, input)?);
                Ok(Transformed::new_transformed(filter, changed))
            }
            // In other nodes, DataFusion has no plan for a subquery's value either.
            LogicalPlan::Projection(_) if plan_expressions::any(&node, is_predicate)? => {
                plan_expressions::rewrite_typed(node, |whole, schema| whole.transform_up(|part| value(part, schema)))
            }
            node => Ok(Transformed::no(node)),
        })?;
        Ok(plan.data)
    }
}

fn has_subquery(predicate: &Expr) -> Result<bool> {
    predicate.exists(|part| Ok(matches!(part, Expr::InSubquery(_))))
}

fn is_predicate(part: &Expr) -> bool {
    matches!(part, Expr::InSubquery(_) | Expr::Exists(_))
}

/// Replaces `IN (SELECT …)` or `EXISTS` by what computes its value for each row.
fn value(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match part {
        Expr::InSubquery(subquery) => {
            let expanded = three_valued(subquery, schema)?;
            match expanded.transformed {
                true => expanded.data.transform_up(|part| value(part, schema)).map(|done| Transformed::yes(done.data)),
                false => Ok(expanded),
            }
        }
        Expr::Exists(Exists { subquery, negated }) => {
            let mut rows = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery.subquery.clone()));
            if subquery.outer_ref_columns.is_empty() {
                rows = rows.limit(0, Some(1))?;
            }
            let counted = rows.aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("rows")])?.build()?;
            let counted = Expr::ScalarSubquery(Subquery { subquery: Arc::new(counted), ..subquery });
            // A join with the counts may have none for a row.
            let counted = coalesce(vec![counted, lit(0_i64)]);
            Ok(Transformed::yes(if negated { counted.eq(lit(0_i64)) } else { counted.gt(lit(0_i64)) }))
        }
        part => Ok(Transformed::no(part)),
    }
}

/// The position of an expression in a condition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The whole condition, or one operand of its conjunction. DataFusion plans a join that respects NULLs, but its
    /// join for NOT IN drops the subquery's other conditions on the row.
    Conjunct,
    /// A position in which false and NULL are equivalent.
    Positive,
    /// A position in which false and NULL differ.
    Anywhere,
}

fn condition(expr: Expr, schema: &DFSchema, place: Place) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let place = if op == Operator::Or && place == Place::Conjunct { Place::Positive } else { place };
            let (left, right) = (condition(*left, schema, place)?, condition(*right, schema, place)?);
            let changed = left.transformed || right.transformed;
            let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(left.data), op, Box::new(right.data)));
            Ok(Transformed::new_transformed(expr, changed))
        }
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(subquery) => {
                condition(Expr::InSubquery(InSubquery { negated: !subquery.negated, ..subquery }), schema, place)
            }
            inner => Ok(condition(inner, schema, Place::Anywhere)?.update_data(|inner| Expr::Not(Box::new(inner)))),
        },
        Expr::InSubquery(subquery) => {
            let is_uncorrelated = subquery.subquery.outer_ref_columns.is_empty();
            let is_right = match place {
                Place::Conjunct => !subquery.negated || is_uncorrelated,
                Place::Positive => !subquery.negated,
                Place::Anywhere => false,
            };
            if is_right {
                return Ok(Transformed::no(Expr::InSubquery(subquery)));
            }
            three_valued(subquery, schema)
        }
        expr => expr.map_children(|child| condition(child, schema, Place::Anywhere)),
    }
}

/// Returns `EXISTS (S WHERE b = a) OR ((EXISTS (S WHERE b IS NULL) OR (a IS NULL AND EXISTS S)) AND NULL)`, negated if
/// the `IN` is negated; `b` is the column of `S`.
fn three_valued(InSubquery { expr, subquery, negated }: InSubquery, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let rows = &subquery.subquery;
    let is_plain = !expr.exists(|part| Ok(matches!(part, Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_))))?;
    let Some(column) = rows.schema().columns().into_iter().next().filter(|_| is_plain) else {
        return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated })));
    };
    let filtered = |condition: Expr, outer: Vec<Expr>| -> Result<Expr> {
        let plan = LogicalPlanBuilder::from(Arc::unwrap_or_clone(rows.clone())).filter(condition)?.build()?;
        let outer_ref_columns = subquery.outer_ref_columns.iter().cloned().chain(outer).collect();
        Ok(exists(Subquery { subquery: Arc::new(plan), outer_ref_columns, ..subquery.clone() }))
    };
    let mut outer = Vec::new();
    let value = expr.clone().transform(|part| match part {
        Expr::Column(column) => {
            let (_, field) = schema.qualified_field_from_column(&column)?;
            let reference = Expr::OuterReferenceColumn(field.clone(), column);
            outer.push(reference.clone());
            Ok(Transformed::yes(reference))
        }
        part => Ok(Transformed::no(part)),
    })?;
    let matched = filtered(Expr::Column(column.clone()).eq(value.data), outer)?;
    let mut unknown = Vec::new();
    if rows.schema().field(0).is_nullable() {
        unknown.push(filtered(Expr::IsNull(Box::new(Expr::Column(column))), Vec::new())?);
    }
    if expr.nullable(schema).unwrap_or(true) {
        unknown.push(Expr::IsNull(expr).and(exists(subquery.clone())));
    }
    let is_in = match unknown.into_iter().reduce(Expr::or) {
        Some(unknown) => matched.or(unknown.and(Expr::Literal(ScalarValue::Boolean(None), None))),
        None => matched,
    };
    Ok(Transformed::yes(if negated { Expr::Not(Box::new(is_in)) } else { is_in }))
}

fn exists(subquery: Subquery) -> Expr {
    Expr::Exists(Exists { subquery, negated: false })
}
