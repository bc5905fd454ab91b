//! Three-valued logic for `IN` and `NOT IN` lists, which DataFusion's simplifier breaks.
//!
//! The simplifier merges two lists over one expression as sets of texts. It treats a column as a constant, and NULL as
//! an ordinary value: `a NOT IN (1, 2) OR a NOT IN (3, 4)` becomes `true`, although it is NULL if `a` is NULL. After
//! this rule, lists hold only non-NULL constants, and no two lists that the simplifier would merge wrongly are
//! neighbours.

use std::collections::HashSet;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;

use crate::planning::plan_expressions;

/// The analyzer rule. It runs after type coercion, so that the constants of a list have the type of the compared
/// expression.
#[derive(Debug)]
pub(crate) struct InLists;

impl AnalyzerRule for InLists {
    fn name(&self) -> &str {
        "in_lists"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            match plan_expressions::any(&node, |part| matches!(part, Expr::InList(_)))? {
                true => plan_expressions::rewrite(node, |whole| whole.transform_up(|part| Ok(rewrite(part)))),
                false => Ok(Transformed::no(node)),
            }
        })?;
        Ok(plan.data)
    }
}

fn rewrite(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Not(inner) if matches!(*inner, Expr::InList(_)) => {
            let Expr::InList(list) = *inner else { unreachable!("the guard has seen a list") };
            Transformed::yes(Expr::InList(InList { negated: !list.negated, ..list }))
        }
        Expr::InList(list) if !list.expr.is_volatile() => split(list),
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) if has_neighbours(&expr, op) => {
            Transformed::yes(merge(expr, op))
        }
        expr => Transformed::no(expr),
    }
}

/// Returns the value of a non-NULL constant.
fn constant(expr: &Expr) -> Option<ScalarValue> {
    let value = match expr {
        Expr::Literal(value, _) => value.clone(),
        Expr::Cast(Cast { expr, field }) => constant(expr)?.cast_to(field.data_type()).ok()?,
        _ => return None,
    };
    (!value.is_null()).then_some(value)
}

/// Reduces `list` to its constants and adds a comparison for each other item.
fn split(InList { expr, list, negated }: InList) -> Transformed<Expr> {
    let (constants, others): (Vec<Expr>, Vec<Expr>) = list.into_iter().partition(|item| constant(item).is_some());
    if others.is_empty() {
        return Transformed::no(Expr::InList(InList { expr, list: constants, negated }));
    }
    let (compare, join) = if negated { (Operator::NotEq, Operator::And) } else { (Operator::Eq, Operator::Or) };
    let mut terms: Vec<Expr> = others.into_iter().map(|item| binary(*expr.clone(), compare, item)).collect();
    if !constants.is_empty() {
        terms.push(Expr::InList(InList { expr, list: constants, negated }));
    }
    Transformed::yes(balanced(terms, join))
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// Joins `terms` by `op` in a balanced tree: a chain would be as deep as it is long.
fn balanced(mut terms: Vec<Expr>, op: Operator) -> Expr {
    while terms.len() > 1 {
        let mut pairs = terms.into_iter();
        let mut joined = Vec::with_capacity(pairs.len().div_ceil(2));
        while let Some(first) = pairs.next() {
            joined.push(match pairs.next() {
                Some(second) => binary(first, op, second),
                None => first,
            });
        }
        terms = joined;
    }
    terms.pop().unwrap_or_else(|| lit(op == Operator::And))
}

/// Returns the operands of a chain of `op`.
fn operands(expr: &Expr, op: Operator) -> Vec<&Expr> {
    let mut found = Vec::new();
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryExpr(chain) if chain.op == op => open.extend([&*chain.right, &*chain.left]),
            expr => found.push(expr),
        }
    }
    found
}

/// Returns whether a chain of `op` has two lists over the same expression.
fn has_neighbours(expr: &Expr, op: Operator) -> bool {
    let mut seen = HashSet::new();
    operands(expr, op).into_iter().any(|operand| match operand {
        Expr::InList(list) if !list.expr.is_volatile() => !seen.insert(&*list.expr),
        _ => false,
    })
}

/// The lists over one expression in a chain.
struct Group {
    expr: Expr,
    /// The constants allowed by the lists of AND, or those common to all lists of OR.
    within: Option<Vec<ScalarValue>>,
    /// The constants in the lists of the opposite kind.
    without: Vec<ScalarValue>,
}

/// Merges the lists of a chain of `op`, so that each expression has one list.
///
/// Under AND, the lists of `IN` intersect, and those of `NOT IN` are subtracted from them or united. OR is the reverse:
/// by De Morgan, a chain of OR is the negation of a chain of AND over the negated lists.
fn merge(expr: Expr, op: Operator) -> Expr {
    let mut groups: Vec<Group> = Vec::new();
    let mut others = Vec::new();
    for operand in operands(&expr, op) {
        let list = match operand {
            Expr::InList(list) if !list.expr.is_volatile() => list,
            other => {
                others.push(other.clone());
                continue;
            }
        };
        let Some(values) = list.list.iter().map(constant).collect::<Option<Vec<_>>>() else {
            others.push(operand.clone());
            continue;
        };
        let index = groups.iter().position(|group| group.expr == *list.expr).unwrap_or_else(|| {
            groups.push(Group { expr: (*list.expr).clone(), within: None, without: Vec::new() });
            groups.len() - 1
        });
        let group = &mut groups[index];
        if list.negated == (op == Operator::Or) {
            let values: HashSet<ScalarValue> = values.into_iter().collect();
            group.within = Some(match group.within.take() {
                Some(within) => within.into_iter().filter(|value| values.contains(value)).collect(),
                None => list.list.iter().filter_map(constant).collect(),
            });
        } else {
            group.without.extend(values);
        }
    }
    others.extend(groups.into_iter().map(|group| group.into_expr(op)));
    balanced(others, op)
}

impl Group {
    fn into_expr(self, op: Operator) -> Expr {
        let Self { expr, within, without } = self;
        let is_or = op == Operator::Or;
        let mut seen: HashSet<ScalarValue> = without.iter().cloned().collect();
        let Some(mut within) = within else {
            seen.clear();
            let list = without.into_iter().filter(|value| seen.insert(value.clone()));
            return list_of(expr, list.collect(), !is_or);
        };
        within.retain(|value| seen.insert(value.clone()));
        if within.is_empty() {
            // No value qualifies; for NULL the result is unknown.
            let null = Expr::Literal(ScalarValue::Boolean(None), None);
            let test = if is_or { Expr::IsNotNull(Box::new(expr)) } else { Expr::IsNull(Box::new(expr)) };
            return binary(test, op, null);
        }
        list_of(expr, within, is_or)
    }
}

fn list_of(expr: Expr, list: Vec<ScalarValue>, negated: bool) -> Expr {
    Expr::InList(InList { expr: Box::new(expr), list: list.into_iter().map(lit).collect(), negated })
}
