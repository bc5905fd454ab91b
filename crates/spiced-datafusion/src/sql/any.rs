//! Rewrites `= ANY (SELECT …)` and `>= ALL (SELECT …)` so that the subquery's column has a unique name.
//!
//! DataFusion resolves a column of the subquery to the outer query's column if both have the same name: `DELETE FROM t
//! WHERE s = ANY (SELECT s FROM t WHERE id = 1)` would compare `t.s` with itself and delete every row. `= ANY` and `<>
//! ALL` become `IN` and `NOT IN`, which DataFusion handles correctly.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, SelectItem, SetExpr, TableFactor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::sql::visit::{take, visit_mut};

/// Rewrites all such subqueries in `statement`.
pub(crate) fn rewrite(statement: &mut Statement) {
    // The visitor never breaks.
    let _ = visit_mut(statement, &mut Renames);
}

struct Renames;

impl VisitorMut for Renames {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let (compare_op, right, within, negated) = match expr {
            Expr::AnyOp { compare_op, right, .. } => (compare_op, right, BinaryOperator::Eq, false),
            Expr::AllOp { compare_op, right, .. } => (compare_op, right, BinaryOperator::NotEq, true),
            _ => return ControlFlow::Continue(()),
        };
        let Expr::Subquery(subquery) = right.as_mut() else { return ControlFlow::Continue(()) };
        if *compare_op != within {
            name(subquery);
            return ControlFlow::Continue(());
        }
        if let Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } = take(expr)
            && let Expr::Subquery(subquery) = *right
        {
            *expr = Expr::InSubquery { expr: left, subquery, negated };
        }
        ControlFlow::Continue(())
    }
}

/// Gives the column of `query` a name that no other column has.
fn name(query: &mut Query) {
    const NAME: &str = "$compared";
    // A correlated query must stay at its level, so it is not wrapped in another one.
    if let SetExpr::Select(select) = query.body.as_mut()
        && let [item] = select.projection.as_mut_slice()
        && let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
    {
        let expr = take(expr);
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', NAME) };
        return;
    }
    let form = format!(r#"SELECT "{NAME}" FROM (SELECT 1) AS "{NAME}s" ("{NAME}")"#);
    let form = Parser::new(&GenericDialect {}).try_with_sql(&form).and_then(|mut parser| parser.parse_query());
    let Ok(mut form) = form else { return };
    if let SetExpr::Select(select) = form.body.as_mut()
        && let Some(from) = select.from.first_mut()
        && let TableFactor::Derived { subquery, .. } = &mut from.relation
    {
        std::mem::swap(subquery.as_mut(), query);
        *query = *form;
    }
}
