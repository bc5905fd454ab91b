//! `a IS [NOT] DISTINCT FROM b AND c` with PostgreSQL's precedence: `IS` binds tighter than `NOT`, `AND` and `OR`
//! (PostgreSQL manual, "Operator Precedence"). sqlparser takes everything that follows as the right operand.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Visitor, VisitorMut};

use crate::sql::visit::{take, visit, visit_mut};

/// Ends the right operand of each `IS DISTINCT FROM` in `statement` where PostgreSQL ends it.
pub(crate) fn rewrite(statement: &mut Statement) {
    struct Found;
    impl Visitor for Found {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) if is_chain(right) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    if visit(statement, &mut Found).is_continue() {
        return;
    }
    struct Conditions;
    impl VisitorMut for Conditions {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if reaches_too_far(expr) {
                let condition = take(expr);
                let mut items = Vec::new();
                flatten(condition, &mut items);
                *expr = rebuild(items);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = visit_mut(statement, &mut Conditions);
}

/// An element of a condition, in the order of the text.
enum Item {
    Operand(Box<Expr>),
    Not,
    And,
    Or,
}

fn is_chain(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. })
}

/// Returns whether a condition has an `IS DISTINCT FROM` with `AND` or `OR` in its right operand, outside parentheses.
fn reaches_too_far(expr: &Expr) -> bool {
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryOp { left, right, .. } if is_chain(expr) => open.extend([&**left, &**right]),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => open.push(expr),
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) if is_chain(right) => return true,
            _ => {}
        }
    }
    false
}

fn flatten(expr: Expr, items: &mut Vec<Item>) {
    match expr {
        Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
            flatten(*left, items);
            items.push(if op == BinaryOperator::And { Item::And } else { Item::Or });
            flatten(*right, items);
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
            items.push(Item::Not);
            flatten(*expr, items);
        }
        Expr::IsDistinctFrom(left, right) if is_chain(&right) => cut(left, *right, Expr::IsDistinctFrom, items),
        Expr::IsNotDistinctFrom(left, right) if is_chain(&right) => cut(left, *right, Expr::IsNotDistinctFrom, items),
        operand => items.push(Item::Operand(Box::new(operand))),
    }
}

/// Ends the comparison after the first operand of `right`.
fn cut(left: Box<Expr>, right: Expr, compare: fn(Box<Expr>, Box<Expr>) -> Expr, items: &mut Vec<Item>) {
    let mut rest = Vec::new();
    flatten(right, &mut rest);
    let end = rest.iter().position(|item| matches!(item, Item::Operand(_))).unwrap_or_default();
    let after = rest.split_off(end + 1);
    // A `NOT` before the operand belongs to it: nothing else could be negated there.
    let operand = rest.into_iter().rev().fold(None, |operand, item| match (item, operand) {
        (Item::Operand(expr), _) => Some(expr),
        (_, Some(expr)) => Some(Box::new(Expr::UnaryOp { op: UnaryOperator::Not, expr })),
        (_, None) => None,
    });
    if let Some(operand) = operand {
        items.push(Item::Operand(Box::new(compare(left, operand))));
    }
    items.extend(after);
}

/// Rebuilds the expression from `items`: `NOT` before `AND` before `OR`, left-associative.
fn rebuild(items: Vec<Item>) -> Expr {
    let join = |left: Option<Expr>, op, right: Expr| match left {
        Some(left) => Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) },
        None => right,
    };
    let (mut any, mut all, mut negations) = (None, None, 0_usize);
    for item in items {
        match item {
            Item::Not => negations += 1,
            Item::Operand(mut expr) => {
                for _ in 0..std::mem::take(&mut negations) {
                    expr = Box::new(Expr::UnaryOp { op: UnaryOperator::Not, expr });
                }
                all = Some(join(all.take(), BinaryOperator::And, *expr));
            }
            Item::And => {}
            Item::Or => any = all.take().map(|all| join(any.take(), BinaryOperator::Or, all)),
        }
    }
    let last = all.unwrap_or_else(|| Expr::Wildcard(AttachedToken::empty()));
    join(any, BinaryOperator::Or, last)
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[test]
    fn the_comparison_ends_before_and_and_or() {
        for (written, meant) in [
            ("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c"),
            ("a IS NOT DISTINCT FROM b AND c OR d", "((a IS NOT DISTINCT FROM b) AND c) OR d"),
            ("x AND a IS DISTINCT FROM b OR c", "(x AND (a IS DISTINCT FROM b)) OR c"),
            ("x OR a IS DISTINCT FROM b AND c", "x OR ((a IS DISTINCT FROM b) AND c)"),
            ("NOT a IS DISTINCT FROM b AND c", "(NOT (a IS DISTINCT FROM b)) AND c"),
            (
                "a IS DISTINCT FROM b OR NOT c IS DISTINCT FROM d AND e",
                "(a IS DISTINCT FROM b) OR ((NOT (c IS DISTINCT FROM d)) AND e)",
            ),
            ("a IS DISTINCT FROM (b AND c) AND d", "(a IS DISTINCT FROM (b AND c)) AND d"),
            ("a IS DISTINCT FROM b + 1 AND c = 2", "(a IS DISTINCT FROM (b + 1)) AND (c = 2)"),
            ("(a IS DISTINCT FROM b AND c) OR d", "((a IS DISTINCT FROM b) AND c) OR d"),
        ] {
            assert_eq!(shape(written), shape(meant), "{written}");
        }
    }

    /// Formats the condition with parentheses around each operation and nothing else.
    fn shape(condition: &str) -> String {
        struct Parentheses;
        impl VisitorMut for Parentheses {
            type Break = ();

            fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
                let inner = take(expr);
                *expr = match inner {
                    Expr::Nested(inner) => *inner,
                    operation @ (Expr::BinaryOp { .. }
                    | Expr::UnaryOp { .. }
                    | Expr::IsDistinctFrom(..)
                    | Expr::IsNotDistinctFrom(..)) => Expr::Nested(Box::new(operation)),
                    operand => operand,
                };
                ControlFlow::Continue(())
            }
        }
        let state = SessionContext::new().state();
        let mut statement = crate::sql::statement::parse(&format!("SELECT 1 WHERE {condition}"), &state).unwrap();
        let _ = visit_mut(&mut statement, &mut Parentheses);
        statement.to_string()
    }
}
