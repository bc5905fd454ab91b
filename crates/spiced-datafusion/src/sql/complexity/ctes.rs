//! The number of tables in a plan after common table expressions are expanded, and the number of columns side by side.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    GroupByExpr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, Visitor,
};
use spiced_engine::EngineError;

use super::{MAX_COLUMNS, MAX_NODES};
use crate::error::invalid;
use crate::sql::visit::visit;

/// Checks how large the plan of `statement` would be with each common table expression inlined where it is referenced,
/// as the planner does. A chain in which each expression references the previous one twice doubles the plan at every
/// step. The planner cannot be interrupted, so it must not start.
///
/// # Errors
/// Fails if the plan would be too large.
pub(crate) fn check(statement: &Statement) -> Result<(), EngineError> {
    match visit(statement, &mut CteWeights::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(Excess::Tables) => Err(invalid(format!(
            "the common table expressions of the statement, put in where they are named, are more than {MAX_NODES} tables"
        ))),
        ControlFlow::Break(Excess::Columns) => {
            Err(invalid(format!("a SELECT of the statement lists or joins more than {MAX_COLUMNS} columns")))
        }
    }
}

/// The quantity that exceeds its limit.
enum Excess {
    Tables,
    Columns,
}

/// Counts the tables that a query reads, with common table expressions inlined.
#[derive(Default)]
struct CteWeights {
    /// The weight of each query that is being visited.
    open: Vec<usize>,
    /// The bodies of common table expressions, which are visited before their references.
    bodies: HashMap<*const Query, String>,
    /// The weight of the heaviest expression with a name. Which expression a name refers to depends on scopes, quotes
    /// and settings, and the planner resolves it; an upper bound does not need to.
    heaviest: HashMap<String, usize>,
    /// The largest column count of the expressions with a name, as far as the text shows it.
    widest: HashMap<String, usize>,
    /// The weight of all bodies: each is planned, whether it is referenced or not.
    planned: usize,
}

/// Maps all names that the planner could treat as equal to the same key.
fn folded<'a>(parts: impl Iterator<Item = &'a Ident>) -> String {
    parts.map(|part| part.value.to_lowercase()).collect::<Vec<_>>().join(".")
}

impl Visitor for CteWeights {
    type Break = Excess;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Excess> {
        self.open.push(1);
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.bodies.insert(&raw const *cte.query, folded(std::iter::once(&cte.alias.name)));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Excess> {
        let name = folded(relation.0.iter().filter_map(|part| part.as_ident()));
        let weight = self.heaviest.get(&name).copied().unwrap_or(1);
        self.add(weight)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Excess> {
        let groups = match &select.group_by {
            GroupByExpr::Expressions(expressions, _) => expressions.len(),
            GroupByExpr::All(_) => 0,
        };
        // Each of these becomes a field with its own name at every step of the plan, as does each column of the joined
        // tables.
        let joined = self.width_of_all(&select.from);
        if select.projection.len().max(groups).max(joined) > MAX_COLUMNS {
            return ControlFlow::Break(Excess::Columns);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Excess> {
        let weight = self.open.pop().unwrap_or(1);
        let Some(name) = self.bodies.remove(&(&raw const *query)) else { return self.add(weight) };
        let width = self.width(&query.body);
        let widest = self.widest.entry(name.clone()).or_default();
        *widest = width.max(*widest);
        let heaviest = self.heaviest.entry(name).or_default();
        *heaviest = weight.max(*heaviest);
        self.planned = self.planned.saturating_add(weight);
        if self.planned > MAX_NODES { ControlFlow::Break(Excess::Tables) } else { ControlFlow::Continue(()) }
    }
}

impl CteWeights {
    /// Counts the columns of a query. A table's columns are not in the text; the table counts as one column.
    fn width(&self, body: &SetExpr) -> usize {
        match body {
            SetExpr::Select(select) => {
                // Computed once: a list can have many wildcards at each of many levels.
                let joined = self.width_of_all(&select.from);
                let mut has_qualified = false;
                let listed = select.projection.iter().map(|item| match item {
                    SelectItem::Wildcard(_) => joined,
                    // All qualified wildcards together have at most as many columns as the joined tables.
                    SelectItem::QualifiedWildcard(..) if has_qualified => 0,
                    SelectItem::QualifiedWildcard(..) => {
                        has_qualified = true;
                        joined
                    }
                    _ => 1,
                });
                listed.fold(0, usize::saturating_add)
            }
            SetExpr::Query(query) => self.width(&query.body),
            SetExpr::SetOperation { left, .. } => self.width(left),
            SetExpr::Values(values) => values.rows.first().map_or(1, |row| row.len()),
            _ => 1,
        }
    }

    fn width_of_all(&self, tables: &[TableWithJoins]) -> usize {
        let factors = tables
            .iter()
            .flat_map(|table| std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)));
        let width = |factor: &TableFactor| match factor {
            TableFactor::Table { name, .. } => {
                let name = folded(name.0.iter().filter_map(|part| part.as_ident()));
                self.widest.get(&name).copied().unwrap_or(1)
            }
            TableFactor::Derived { subquery, .. } => self.width(&subquery.body),
            TableFactor::NestedJoin { table_with_joins, .. } => {
                self.width_of_all(std::slice::from_ref(table_with_joins.as_ref()))
            }
            _ => 1,
        };
        factors.map(width).fold(0, usize::saturating_add)
    }

    fn add(&mut self, weight: usize) -> ControlFlow<Excess> {
        let Some(open) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        *open = open.saturating_add(weight);
        if *open > MAX_NODES { ControlFlow::Break(Excess::Tables) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    fn admitted(sql: &str) -> bool {
        let parsed = crate::sql::statement::parse(sql, &SessionContext::new().state());
        parsed.inspect_err(|error| assert!(error.to_string().contains("common table"), "{error}")).is_ok()
    }

    /// Returns `steps` common table expressions, each of which references the previous one twice. The closure adds an
    /// expression that could shadow one.
    fn doubling(steps: usize, beside: impl Fn(usize) -> String) -> String {
        let step = |n: usize| format!("a{n} AS (SELECT l.x FROM a{0} l, a{0} r){1}", n - 1, beside(n));
        let steps: Vec<_> = (1..=steps).map(step).collect();
        format!("WITH a0 AS (SELECT 1 AS x){}, {} SELECT * FROM a{}", beside(0), steps.join(", "), steps.len())
    }

    #[test]
    fn columns_side_by_side_are_counted() {
        let admitted = |sql: &str| crate::sql::statement::parse(sql, &SessionContext::new().state()).is_ok();
        let listed = (0..1000).map(|n| format!("1 c{n}")).collect::<Vec<_>>().join(", ");
        let beside = |of: usize, what: &str| (0..of).map(|n| format!("{what} t{n}")).collect::<Vec<_>>().join(", ");
        for (of, expected) in [(4, true), (90, false)] {
            let with = format!("WITH a AS (SELECT {listed})");
            assert_eq!(admitted(&format!("{with} SELECT * FROM {}", beside(of, "a"))), expected);
            assert_eq!(
                admitted(&format!("{with}, b AS (SELECT x.* FROM a x) SELECT 1 FROM {}", beside(of, "b"))),
                expected
            );
            assert_eq!(admitted(&format!("SELECT 1 FROM {}", beside(of, &format!("(SELECT {listed})")))), expected);
            assert_eq!(admitted(&format!("SELECT 1 WHERE 1 IN ({with} SELECT 1 FROM {})", beside(of, "a"))), expected);
        }
    }

    #[test]
    fn what_doubles_is_refused_whatever_hides_it() {
        assert!(admitted(&doubling(5, |_| String::new())));
        let hidden: [fn(usize) -> String; 5] = [
            |_| String::new(),
            |n| format!(", \"A{n}\" AS (SELECT 1 AS x)"),
            |n| format!(", \"a{n} \" AS (SELECT 1 AS x)"),
            |n| format!(", b{n} AS (WITH a{n} AS (SELECT 1 AS x) SELECT * FROM a{n})"),
            |n| format!(", `A{n}` AS (SELECT 1 AS x)"),
        ];
        for (which, beside) in hidden.into_iter().enumerate() {
            assert!(!admitted(&doubling(20, beside)), "{which}");
        }
    }
}
