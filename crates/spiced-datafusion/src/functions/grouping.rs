//! Limits on `CUBE`, `ROLLUP` and `GROUPING SETS`: each group of columns is a separate query, and the planner writes
//! them all out.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, GroupByWithModifier, Query, Select, SetExpr, Visitor};
use spiced_engine::EngineError;

use crate::error::invalid;
use crate::sql::visit::visit;

/// The maximum number of column groups in one `GROUP BY`.
const MAX_SETS: u64 = 1_024;
/// The maximum number of columns in all groups of one `GROUP BY`.
const MAX_COLUMNS: u64 = 64 << 10;

/// Counts the column groups of each `GROUP BY` before they are written out.
///
/// # Errors
/// Fails if there are too many.
pub(crate) fn check(statement: &Statement) -> Result<(), EngineError> {
    match visit(statement, &mut Counts) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(sets) => Err(invalid(format!(
            "a GROUP BY of the statement stands for {} groups of columns; the most is {MAX_SETS}, \
             with {MAX_COLUMNS} columns in all",
            if sets == u64::MAX { "countless".to_owned() } else { sets.to_string() }
        ))),
    }
}

struct Counts;

impl Visitor for Counts {
    type Break = u64;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<u64> {
        of_body(&query.body)
    }
}

/// Checks the body of a query. Nested queries are visited separately.
fn of_body(body: &SetExpr) -> ControlFlow<u64> {
    match body {
        SetExpr::Select(select) => of_select(select),
        SetExpr::SetOperation { left, right, .. } => {
            of_body(left)?;
            of_body(right)
        }
        _ => ControlFlow::Continue(()),
    }
}

fn of_select(select: &Select) -> ControlFlow<u64> {
    let (expressions, modifiers) = match &select.group_by {
        GroupByExpr::Expressions(expressions, modifiers) => (expressions.as_slice(), modifiers),
        GroupByExpr::All(modifiers) => (&[][..], modifiers),
    };
    let mut sets = expressions.iter().map(of_expression).fold(1, u64::saturating_mul);
    let columns = match &select.group_by {
        // The columns have not been counted yet.
        GroupByExpr::All(_) => select.projection.len(),
        GroupByExpr::Expressions(expressions, _) => expressions.len(),
    };
    for modifier in modifiers {
        sets = sets.saturating_mul(match modifier {
            GroupByWithModifier::Cube => power(columns),
            GroupByWithModifier::Rollup => columns as u64 + 1,
            GroupByWithModifier::Totals => 2,
            GroupByWithModifier::GroupingSets(expression) => of_expression(expression),
        });
    }
    let each = expressions.iter().map(width).fold(0, u64::saturating_add).max(columns as u64);
    let is_many = sets > MAX_SETS || (sets > 1 && sets.saturating_mul(each) > MAX_COLUMNS);
    if is_many { ControlFlow::Break(sets) } else { ControlFlow::Continue(()) }
}

fn of_expression(expression: &Expr) -> u64 {
    match expression {
        Expr::Cube(sets) => power(sets.len()),
        Expr::Rollup(sets) => sets.len() as u64 + 1,
        Expr::GroupingSets(sets) => {
            // A plain set counts as one group; a `CUBE` in it counts as all of its groups.
            let each = sets.iter().map(|set| set.iter().map(of_expression).fold(1, u64::saturating_mul));
            each.fold(0, u64::saturating_add).max(1)
        }
        Expr::Nested(inner) => of_expression(inner),
        _ => 1,
    }
}

/// Returns the number of columns in the largest group.
fn width(expression: &Expr) -> u64 {
    match expression {
        Expr::Cube(sets) | Expr::Rollup(sets) => sets.iter().map(Vec::len).sum::<usize>() as u64,
        Expr::GroupingSets(sets) => sets.iter().map(Vec::len).max().unwrap_or(0) as u64,
        _ => 1,
    }
}

fn power(columns: usize) -> u64 {
    u32::try_from(columns).ok().and_then(|columns| 1_u64.checked_shl(columns)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn what_stands_for_many_is_refused() {
        let columns = |n: usize| (0..n).map(|at| format!("v+{at}")).collect::<Vec<_>>().join(",");
        for (group_by, admitted) in [
            (format!("CUBE({})", columns(10)), true),
            (format!("CUBE({})", columns(11)), false),
            (format!("CUBE({})", columns(40)), false),
            (format!("CUBE({})", columns(70)), false),
            (format!("ROLLUP({})", columns(200)), true),
            (format!("ROLLUP({})", columns(1_000)), false),
            (format!("CUBE({}), CUBE({})", columns(6), columns(6)), false),
            (format!("ROLLUP({}), ROLLUP({}), v", columns(40), columns(40)), false),
            (format!("GROUPING SETS({})", vec!["(v)"; 1_025].join(",")), false),
            (format!("GROUPING SETS(({}), ())", columns(500)), true),
            (columns(2_000), true),
        ] {
            for sql in [
                format!("SELECT count(*) FROM t GROUP BY {group_by}"),
                format!("SELECT 1 UNION ALL SELECT count(*) FROM t GROUP BY {group_by}"),
                format!("SELECT (SELECT count(*) FROM t GROUP BY {group_by})"),
                format!("WITH x AS (SELECT count(*) FROM t GROUP BY {group_by}) SELECT * FROM x"),
                format!("CREATE VIEW x AS SELECT count(*) FROM t GROUP BY {group_by}"),
                format!("EXPLAIN SELECT count(*) FROM t GROUP BY {group_by}"),
            ] {
                let mut parsed = DFParser::parse_sql(&sql).unwrap();
                assert_eq!(check(&parsed.pop_front().unwrap()).is_ok(), admitted, "{}", &sql[..60]);
            }
        }
    }
}
