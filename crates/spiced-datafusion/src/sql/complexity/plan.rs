//! The size of the plan, with views and common table expressions expanded.

use std::collections::HashSet;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};
use spiced_engine::ErrorKind;

use super::{MAX_COLUMNS, MAX_NODES, conditions};
use crate::error::refusal;

/// The maximum depth of a plan, and of an expression in it.
const MAX_DEPTH: usize = 520;
/// The maximum depth of a column's type: a list of a list has depth two. Encoders and clients recurse with the depth.
pub(crate) const MAX_TYPE_DEPTH: usize = 32;

/// The maximum number of sort keys of a plan, as the sum of the cubes of its lists: DataFusion compares each key of a
/// list with every list that begins the same.
const MAX_SORT_KEYS: usize = 2 * 128 * 128 * 128;

/// Checks the plan, with views and common table expressions expanded.
///
/// # Errors
/// Fails if the plan is too deep or too large.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.visit_with_subqueries(&mut PlanSize::default())?;
    conditions::check(plan)
}

/// Checks the types of a result's columns.
///
/// # Errors
/// Fails if a type is too deep.
pub(crate) fn check_types(schema: &Schema) -> Result<()> {
    match schema.fields().iter().find(|field| !is_shallow(field.data_type(), MAX_TYPE_DEPTH)) {
        None => Ok(()),
        Some(field) => {
            let why = format!("the type of the column `{}` is nested more than {MAX_TYPE_DEPTH} deep", field.name());
            Err(refusal(ErrorKind::InvalidStatement, why))
        }
    }
}

/// Returns whether `data_type` has at most `depth` levels.
pub(crate) fn is_shallow(data_type: &DataType, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => is_shallow(field.data_type(), depth),
        DataType::Struct(fields) => fields.iter().all(|field| is_shallow(field.data_type(), depth)),
        DataType::Union(fields, _) => fields.iter().all(|(_, field)| is_shallow(field.data_type(), depth)),
        DataType::Dictionary(_, value) => is_shallow(value, depth),
        DataType::RunEndEncoded(_, values) => is_shallow(values.data_type(), depth),
        _ => true,
    }
}

#[derive(Default)]
struct PlanSize {
    depth: usize,
    nodes: usize,
    sort_keys: usize,
}

impl PlanSize {
    /// Counts the distinct keys of one list.
    fn sort<'e>(&mut self, keys: impl Iterator<Item = &'e Expr>) -> Result<()> {
        let distinct = keys.collect::<HashSet<_>>().len();
        self.sort_keys = self.sort_keys.saturating_add(distinct.saturating_pow(3));
        if self.sort_keys > MAX_SORT_KEYS {
            return Err(refusal(
                ErrorKind::InvalidStatement,
                "the statement sorts or partitions by too many expressions: 160 in one list, or 128 in each of two, \
                 are the most",
            ));
        }
        Ok(())
    }
}

impl<'n> TreeNodeVisitor<'n> for PlanSize {
    type Node = LogicalPlan;

    fn f_down(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        self.depth += 1;
        self.nodes += 1;
        if self.depth > MAX_DEPTH {
            return Err(too("deep", MAX_DEPTH, "levels"));
        }
        if self.nodes > MAX_NODES {
            return Err(too("large", MAX_NODES, "nodes"));
        }
        if node.schema().fields().len() > MAX_COLUMNS {
            return Err(too("wide", MAX_COLUMNS, "columns"));
        }
        if let LogicalPlan::Sort(sort) = node {
            self.sort(sort.expr.iter().map(|key| &key.expr))?;
        }
        node.apply_expressions(|expr| {
            let mut depth = ExprDepth(0);
            let visited = expr.visit(&mut depth)?;
            expr.apply(|part| {
                match part {
                    Expr::WindowFunction(call) => {
                        let order = call.params.order_by.iter().map(|key| &key.expr);
                        self.sort(call.params.partition_by.iter().chain(order))?;
                    }
                    Expr::AggregateFunction(call) => self.sort(call.params.order_by.iter().map(|key| &key.expr))?,
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
            if !matches!(node, LogicalPlan::Filter(_))
                && expr.exists(|part| Ok(matches!(part, Expr::SetComparison(_))))?
            {
                return Err(refusal(
                    ErrorKind::Unsupported,
                    "ANY and ALL of a subquery are for conditions (WHERE, HAVING) alone; compare with its min or max",
                ));
            }
            Ok(visited)
        })?;
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, _node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        self.depth -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}

struct ExprDepth(usize);

impl<'n> TreeNodeVisitor<'n> for ExprDepth {
    type Node = Expr;

    fn f_down(&mut self, _node: &'n Expr) -> Result<TreeNodeRecursion> {
        self.0 += 1;
        if self.0 > MAX_DEPTH {
            return Err(too("deep", MAX_DEPTH, "levels"));
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, _node: &'n Expr) -> Result<TreeNodeRecursion> {
        self.0 -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}

fn too(how: &str, most: usize, of: &str) -> DataFusionError {
    refusal(
        ErrorKind::InvalidStatement,
        format!("the plan of the statement is too {how}: it has more than {most} {of}, its views included"),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{Field, Fields};

    use super::*;

    fn nested(depth: usize, level: impl Fn(Field) -> DataType) -> Schema {
        let deepest = (1..depth).fold(DataType::Int64, |inner, _| level(Field::new("x", inner, true)));
        Schema::new(vec![Field::new("it", deepest, true)])
    }

    #[test]
    fn deep_types_are_refused_whatever_they_are_of() {
        let levels: [fn(Field) -> DataType; 4] = [
            |field| DataType::List(Arc::new(field)),
            |field| DataType::Struct(Fields::from(vec![Field::new("y", DataType::Utf8, true), field])),
            |field| DataType::FixedSizeList(Arc::new(field), 1),
            |field| DataType::Dictionary(Box::new(DataType::Int8), Box::new(field.data_type().clone())),
        ];
        for level in levels {
            assert!(check_types(&nested(MAX_TYPE_DEPTH, level)).is_ok());
            assert!(check_types(&nested(MAX_TYPE_DEPTH + 1, level)).is_err());
        }
    }
}
