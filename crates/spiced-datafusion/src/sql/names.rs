//! Columns of the same name: `SELECT value, value`, `SELECT 1, 1`, `SELECT count(*), count(*)`.
//!
//! DataFusion refuses a list of columns with a repeated name; PostgreSQL accepts it. Such a list is planned with
//! distinct names, and the result gets the original names back.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Ident, OrderByKind, Query, Select, SelectItem, SetExpr, Statement as SqlStatement, VisitorMut,
};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::functions::at_time_zone;
use crate::functions::similar_to;
use crate::sql::any;
use crate::sql::insert_sources;
use crate::sql::number_literals;
use crate::sql::table_arguments;
use crate::sql::visit::visit_mut;

/// The prefix of column names during planning.
const ALIAS: &str = "__column_";

/// Maps the names of columns in a plan to their names in the result.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(HashMap<String, String>);

/// Plans `statement`.
///
/// # Errors
/// Fails if the statement cannot be planned as written.
pub(crate) fn plan<'a>(
    statement: &'a Statement,
    state: &'a SessionState,
) -> BoxFuture<'a, Result<(LogicalPlan, Names)>> {
    // The query of an INSERT is planned by this function, too.
    Box::pin(async move {
        let (mut statement, mut state) = (statement.clone(), state.clone());
        at_time_zone::rewrite(&mut statement);
        any::rewrite(&mut statement);
        similar_to::rewrite(&mut statement);
        number_literals::rewrite(&mut statement)?;
        table_arguments::compute(&mut statement, &state).await?;
        // A `timestamptz` has a time zone: that of the session, or UTC.
        state.config_mut().options_mut().execution.time_zone.get_or_insert_with(|| "UTC".to_owned());
        insert_sources::separate(&mut statement, &mut state, |query, state| {
            async move { plan(query, state).await.map(|(rows, _)| rows) }.boxed()
        })
        .await?;
        let error = match state.statement_to_plan(statement.clone()).await {
            Ok(plan) => return Ok((plan, Names::default())),
            Err(error) => error,
        };
        let mut distinct = Distinct::default();
        let mut renamed = statement;
        spell_out(&mut renamed, &state).await;
        // The visitor never breaks.
        let _ = visit_mut(&mut renamed, &mut distinct);
        if distinct.count == 0 {
            return Err(error);
        }
        // If planning still fails, the error of the original statement is reported.
        let Ok(plan) = state.statement_to_plan(renamed).await else { return Err(error) };
        if matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Copy(_)) {
            // A table cannot have two columns of the same name.
            return Err(error);
        }
        let names = Names(distinct.names(&plan)?);
        Ok((plan, names))
    })
}

/// Expands the wildcards of the outermost list into columns: `SELECT *, *`.
async fn spell_out(statement: &mut Statement, state: &SessionState) {
    let Statement::Statement(whole) = statement else { return };
    let SqlStatement::Query(query) = whole.as_mut() else { return };
    let mut alone = query.clone();
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let is_wildcard = |item: &&SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    // A single wildcard repeats no name.
    if select.projection.len() < 2 || select.projection.iter().filter(is_wildcard).count() == 0 {
        return;
    }
    (alone.order_by, alone.limit_clause, alone.fetch) = (None, None, None);
    let mut items = Vec::new();
    for item in &select.projection {
        if !is_wildcard(&item) {
            items.push(item.clone());
            continue;
        }
        if let SetExpr::Select(alone) = alone.body.as_mut() {
            alone.projection = vec![item.clone()];
            (alone.distinct, alone.having, alone.qualify) = (None, None, None);
        }
        let alone = Statement::Statement(Box::new(SqlStatement::Query(alone.clone())));
        // An item that cannot be planned alone cannot be planned with others; planning the whole reports the error.
        let Ok(plan) = state.statement_to_plan(alone).await else { return };
        items.extend(plan.schema().iter().map(|(table, field)| {
            let mut names = table.map(|table| table.to_vec()).unwrap_or_default();
            names.push(field.name().clone());
            let mut names: Vec<Ident> = names.into_iter().map(|name| Ident::with_quote('"', name)).collect();
            SelectItem::UnnamedExpr(match names.len() {
                1 => SqlExpr::Identifier(names.remove(0)),
                _ => SqlExpr::CompoundIdentifier(names),
            })
        }));
    }
    select.projection = items;
}

impl Names {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `schema` with the names that its columns have in the result.
    pub(crate) fn restore(&self, schema: SchemaRef) -> SchemaRef {
        if self.0.is_empty() {
            return schema;
        }
        let fields = schema.fields().iter().map(|field| match self.0.get(field.name()) {
            Some(name) => Arc::new(Field::clone(field).with_name(name)),
            None => field.clone(),
        });
        Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
    }
}

/// Gives each column of a list a unique name.
#[derive(Default)]
struct Distinct {
    count: usize,
    /// The replaced aliases, keyed by their replacements.
    aliases: HashMap<String, String>,
}

impl Distinct {
    fn alias(&mut self) -> Ident {
        self.count += 1;
        Ident::with_quote('"', format!("{ALIAS}{}", self.count))
    }

    /// Maps each generated name to the original one.
    fn names(mut self, plan: &LogicalPlan) -> Result<HashMap<String, String>> {
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                if let Expr::Alias(alias) = expr
                    && alias.name.starts_with(ALIAS)
                {
                    let name = || alias.expr.qualified_name().1;
                    self.aliases.entry(alias.name.clone()).or_insert_with(name);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(self.aliases)
    }
}

impl VisitorMut for Distinct {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let is_wildcard =
            |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        // A wildcard may expand to any name.
        let any = select.projection.iter().any(is_wildcard);
        let mut taken = HashSet::new();
        for item in &mut select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let keeps = !any && column(expr).is_some_and(|name| taken.insert(normal(name)));
                    if !keeps {
                        let (expr, alias) = (expr.clone(), self.alias());
                        *item = SelectItem::ExprWithAlias { expr, alias };
                    }
                }
                SelectItem::ExprWithAlias { alias, .. } => {
                    let name = normal(alias);
                    if any || !taken.insert(name.clone()) {
                        let ours = self.alias();
                        self.aliases.insert(ours.value.clone(), name);
                        *alias = ours;
                    }
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    /// `ORDER BY id` orders by the result column that PostgreSQL calls `id`, such as `CAST(id AS text)`.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let (SetExpr::Select(select), Some(order)) = (query.body.as_ref(), &mut query.order_by) else {
            return ControlFlow::Continue(());
        };
        let OrderByKind::Expressions(keys) = &mut order.kind else { return ControlFlow::Continue(()) };
        for key in keys {
            let SqlExpr::Identifier(name) = &key.expr else { continue };
            let mut called = select.projection.iter().filter_map(|item| match item {
                SelectItem::ExprWithAlias { expr: SqlExpr::Cast { expr, .. }, alias }
                    if alias.value.starts_with(ALIAS) =>
                {
                    column(expr).filter(|column| normal(column) == normal(name)).map(|_| alias)
                }
                _ => None,
            });
            if let (Some(alias), None) = (called.next(), called.next()) {
                key.expr = SqlExpr::Identifier(alias.clone());
            }
        }
        ControlFlow::Continue(())
    }
}

/// Returns the name of the column that `expr` is.
fn column(expr: &SqlExpr) -> Option<&Ident> {
    match expr {
        SqlExpr::Identifier(name) => Some(name),
        SqlExpr::CompoundIdentifier(names) => names.last(),
        _ => None,
    }
}

/// Normalizes the name as the planner does.
fn normal(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}
