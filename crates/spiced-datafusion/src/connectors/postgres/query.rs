//! Pushes down joins and aggregates of tables on one server, and the first rows of a sort. They become a single
//! statement if every part has the same meaning there. Only the rows of the result are transferred, not those of the
//! tables.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, LogicalPlanBuilder, Projection, Sort, TableScan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::super::outdated::Outdated;
use super::connect::Pool;
use super::expression::{Columns, Value, aligned, condition, value};
use super::table::PostgresTable;
use super::types::{Kind, MAX_DIGITS};

/// The maximum length of a generated statement, in bytes.
const MAX_TEXT: usize = 256 * 1024;

/// PostgreSQL limits the result of a statement to 1,664 columns.
const MAX_COLUMNS: usize = 1_600;

/// Replaces the parts of a plan that PostgreSQL can compute by one statement. Runs after all other rules, which push
/// filters and columns down to the tables.
#[derive(Debug)]
pub(super) struct WholeQueries;

impl OptimizerRule for WholeQueries {
    fn name(&self) -> &str {
        "postgres_whole_queries"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        whole(plan)
    }
}

fn whole(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let (plan, query) = gather(plan)?;
    match query.filter(|query| query.is_worth_it) {
        Some(query) => Ok(Transformed::yes(query.plan(&plan.data)?)),
        None => Ok(plan),
    }
}

/// Returns `plan` and an equivalent statement, or `plan` with statements in it if it has no equivalent as a whole.
fn gather(plan: LogicalPlan) -> Result<(Transformed<LogicalPlan>, Option<Query>)> {
    if let LogicalPlan::TableScan(scan) = &plan {
        let query = Query::scan(scan);
        return Ok((Transformed::no(plan), query));
    }
    let mut queries = Vec::new();
    let below = plan.map_subqueries(whole)?.transform_data(|plan| {
        plan.map_children(|child| {
            let (child, query) = gather(child)?;
            queries.push(query);
            Ok(child)
        })
    })?;
    let query = match (&below.data, &queries[..]) {
        (LogicalPlan::SubqueryAlias(_), [Some(input)]) => Some(input.clone()),
        (LogicalPlan::Projection(projection), [Some(input)]) => input.projected(projection),
        (LogicalPlan::Filter(filter), [Some(input)]) => input.filtered(&filter.predicate, filter.input.schema()),
        (LogicalPlan::Aggregate(aggregate), [Some(input)]) => input.aggregated(aggregate),
        (LogicalPlan::Join(join), [Some(left), Some(right)]) => Query::joined(join, left, right),
        _ => None,
    };
    if let Some(query) = query.filter(Query::is_short) {
        return Ok((below, Some(query)));
    }
    if let (LogicalPlan::Sort(sort), [Some(input)]) = (&below.data, &mut queries[..])
        && let Some(first) = input.first(sort)
    {
        *input = first;
    }
    if !queries.iter().flatten().any(|query| query.is_worth_it) {
        return Ok((below, None));
    }
    let mut queries = queries.into_iter();
    let put = below.transform_data(|plan| {
        plan.map_children(|child| match queries.next().flatten() {
            Some(query) if query.is_worth_it => Ok(Transformed::yes(query.plan(&child)?)),
            _ => Ok(Transformed::no(child)),
        })
    })?;
    Ok((put, None))
}

/// A statement under construction: `SELECT columns FROM from WHERE conditions`.
#[derive(Debug, Clone)]
struct Query {
    pool: Pool,
    /// One value for each column of the plan that it replaces.
    columns: Vec<Value>,
    from: Rows,
    conditions: Vec<String>,
    /// Whether it does more than a scan can.
    is_worth_it: bool,
    outdated: Outdated,
}

/// The source of a statement's rows.
#[derive(Debug, Clone)]
enum Rows {
    /// A table, or joined tables.
    Of(String),
    /// A subquery, named `q`.
    Closed(String),
}

impl Query {
    fn scan(scan: &TableScan) -> Option<Self> {
        let provider = source_as_provider(&scan.source).ok()?;
        let table = provider.downcast_ref::<PostgresTable>()?;
        let (pool, relation) = table.whole()?;
        // In ORDER BY, a bare name would refer to an output column if a column is named `c0`.
        let columns: Vec<Value> = match &scan.projection {
            Some(projection) => projection.iter().map(|at| table.column("t.", *at)).collect(),
            None => (0..table.width()).map(|at| table.column("t.", at)).collect(),
        };
        let named = |column: &Column| table.named("t.", column);
        let conditions = scan.filters.iter().map(|filter| Some(condition(filter, &named)?.sql));
        let conditions = conditions.collect::<Option<_>>()?;
        let query = Self {
            pool: pool.clone(),
            columns,
            from: Rows::Of(format!("{} AS t", relation.quoted())),
            conditions,
            is_worth_it: false,
            outdated: table.outdated().clone(),
        };
        Some(match scan.fetch {
            Some(rows) => query.closed(&format!(" LIMIT {rows}")),
            None => query,
        })
    }

    fn is_short(&self) -> bool {
        let (Rows::Of(from) | Rows::Closed(from)) = &self.from;
        let parts = self.columns.iter().map(|column| &column.sql).chain(&self.conditions).chain([from]);
        parts.map(String::len).sum::<usize>() <= MAX_TEXT && self.columns.len() <= MAX_COLUMNS
    }

    /// Returns the whole statement; its columns are named `c0`, `c1` and so on.
    fn sql(&self, behind: &str) -> String {
        let from = match &self.from {
            Rows::Of(from) => from.clone(),
            Rows::Closed(sql) if behind.is_empty() && self.is_as_closed() => return sql.clone(),
            Rows::Closed(sql) => format!("({sql}) AS q"),
        };
        let columns = self.columns.iter().enumerate().map(|(at, column)| format!("{} AS c{at}", column.typed()));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let filter = if self.conditions.is_empty() { "" } else { " WHERE " };
        format!("SELECT {columns} FROM {from}{filter}{}{behind}", self.conditions.join(" AND "))
    }

    /// Whether the subquery has the same result as this statement.
    fn is_as_closed(&self) -> bool {
        self.conditions.is_empty()
            && self.columns.iter().enumerate().all(|(at, column)| column.sql == format!("q.c{at}"))
    }

    /// Returns the columns of [`Query::sql`], as a subquery named `name`.
    fn columns_of(&self, name: &str) -> Vec<Value> {
        let columns = self.columns.iter().enumerate();
        columns.map(|(at, column)| Value::new(format!("{name}.c{at}"), column.reading.clone())).collect()
    }

    /// Turns the statement into a subquery.
    fn closed(self, behind: &str) -> Self {
        let (from, columns) = (Rows::Closed(self.sql(behind)), self.columns_of("q"));
        Self { columns, from, conditions: Vec::new(), ..self }
    }

    fn projected(&self, projection: &Projection) -> Option<Self> {
        let schema = projection.input.schema();
        let columns = values(&projection.expr, &self.by(schema))?;
        reads_as(&columns, &projection.schema).then(|| Self { columns, ..self.clone() })
    }

    fn filtered(&self, filter: &Expr, schema: &DFSchemaRef) -> Option<Self> {
        let filter = condition(filter, &self.by(schema))?.exactly()?;
        let conditions = [&self.conditions[..], &[filter]].concat();
        Some(Self { conditions, ..self.clone() })
    }

    fn aggregated(&self, aggregate: &Aggregate) -> Option<Self> {
        let schema = aggregate.input.schema();
        let by = self.by(schema);
        let mut columns: Vec<Value> = values(&aggregate.group_expr, &by)?.into_iter().map(Value::comparable).collect();
        if !columns.iter().all(tells_apart) {
            return None;
        }
        let groups = (1..=columns.len()).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
        for expr in &aggregate.aggr_expr {
            columns.push(aggregated(expr, &by)?);
        }
        if columns.is_empty() || !reads_as(&columns, &aggregate.schema) {
            return None;
        }
        let behind = if groups.is_empty() { groups } else { format!(" GROUP BY {groups}") };
        Some(Self { columns, is_worth_it: true, ..self.clone() }.closed(&behind))
    }

    fn joined(join: &Join, left: &Self, right: &Self) -> Option<Self> {
        if !left.pool.is_of_one_server(&right.pool)
            || join.null_equality != NullEquality::NullEqualsNothing
            || join.null_aware
            // A cross join returns more rows than its tables have.
            || join.on.is_empty()
        {
            return None;
        }
        let (columns_left, columns_right) = (left.columns_of("l"), right.columns_of("r"));
        let (of_left, of_right) = (join.left.schema(), join.right.schema());
        let in_left = |column: &Column| Some(columns_left[place(column, &[of_left])?].clone());
        let in_right = |column: &Column| Some(columns_right[place(column, &[of_right])?].clone());
        let in_both = |column: &Column| {
            let at = place(column, &[of_left, of_right])?;
            columns_left.get(at).or_else(|| columns_right.get(at - columns_left.len())).cloned()
        };
        let mut on = Vec::with_capacity(join.on.len() + 1);
        for (ours, theirs) in &join.on {
            let (ours, theirs) = aligned(value(ours, &in_left)?, value(theirs, &in_right)?);
            if !tells_apart(&ours) || ours.reading.data_type() != theirs.reading.data_type() || !tells_apart(&theirs) {
                return None;
            }
            on.push(format!("{} = {}", ours.sql, theirs.sql));
        }
        if let Some(filter) = &join.filter {
            on.push(condition(filter, &in_both)?.exactly()?);
        }
        let on = on.join(" AND ");
        let (l, r) = (format!("({}) AS l", left.sql("")), format!("({}) AS r", right.sql("")));
        let query = |columns: Vec<Value>, from: String, conditions: Vec<String>| {
            let (pool, from, outdated) = (left.pool.clone(), Rows::Of(from), left.outdated.and(&right.outdated));
            Some(Self { pool, columns, from, conditions, is_worth_it: true, outdated })
        };
        let both = || columns_left.iter().chain(&columns_right).cloned().collect();
        match join.join_type {
            JoinType::Inner => query(both(), format!("{l} JOIN {r} ON {on}"), Vec::new()),
            JoinType::Left => query(both(), format!("{l} LEFT JOIN {r} ON {on}"), Vec::new()),
            JoinType::Right => query(both(), format!("{l} RIGHT JOIN {r} ON {on}"), Vec::new()),
            JoinType::LeftSemi => query(columns_left.clone(), l, vec![format!("EXISTS (SELECT FROM {r} WHERE {on})")]),
            // With conditions other than on keys, PostgreSQL estimates almost no rows and plans a nested loop for the
            // joins that follow.
            JoinType::LeftAnti if join.filter.is_none() => {
                query(columns_left.clone(), l, vec![format!("NOT EXISTS (SELECT FROM {r} WHERE {on})")])
            }
            _ => None,
        }
    }

    /// Returns the first rows of a sort, if it has a limit.
    fn first(&self, sort: &Sort) -> Option<Self> {
        let rows = sort.fetch?;
        let mut order = Vec::with_capacity(sort.expr.len());
        for key in &sort.expr {
            let value = value(&key.expr, &self.by(sort.input.schema()))?;
            if !value.kind()?.is_ordered() {
                return None;
            }
            let direction = if key.asc { "ASC" } else { "DESC" };
            let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
            order.push(format!("{} {direction} NULLS {nulls}", value.typed()));
        }
        let behind = format!(" ORDER BY {} LIMIT {rows}", order.join(", "));
        Some(Self { is_worth_it: true, ..self.clone() }.closed(&behind))
    }

    fn by(&self, schema: &DFSchemaRef) -> impl Fn(&Column) -> Option<Value> {
        |column| Some(self.columns[place(column, &[schema])?].clone())
    }

    /// Returns a plan that is equivalent to `plan` and uses the statement.
    fn plan(self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let names = (0..self.columns.len()).map(|at| format!("c{at}"));
        let fields = names.clone().zip(plan.schema().fields()).zip(&self.columns);
        let fields =
            fields.map(|((name, field), column)| Field::new(name, column.reading.data_type(), field.is_nullable()));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let readings = self.columns.iter().map(|column| column.reading.clone()).collect();
        let table = PostgresTable::of_query(self.pool.clone(), self.sql(""), schema, readings, self.outdated.clone());
        let columns = names.zip(plan.schema().iter()).map(|(name, (qualifier, field))| {
            Expr::Column(Column::from_name(name)).alias_qualified(qualifier.cloned(), field.name())
        });
        LogicalPlanBuilder::scan("postgresql", provider_as_source(Arc::new(table)), None)?.project(columns)?.build()
    }
}

/// Returns the position of a column in the concatenated schemas, if it is unambiguous.
fn place(column: &Column, schemas: &[&DFSchemaRef]) -> Option<usize> {
    let fields = || schemas.iter().flat_map(|schema| schema.iter());
    let exact = fields().position(|(qualifier, field)| {
        let is_of_it = match (qualifier, &column.relation) {
            (Some(qualifier), Some(relation)) => qualifier.resolved_eq(relation),
            (qualifier, relation) => qualifier.is_none() && relation.is_none(),
        };
        is_of_it && *field.name() == column.name
    });
    exact.or_else(|| {
        let mut named = fields().enumerate().filter(|(_, (_, field))| *field.name() == column.name);
        let (at, _) = named.next().filter(|_| column.relation.is_none())?;
        named.next().is_none().then_some(at)
    })
}

fn values(exprs: &[Expr], columns: Columns<'_>) -> Option<Vec<Value>> {
    exprs.iter().map(|expr| value(expr, columns)).collect()
}

/// Whether the columns have the types of the plan.
fn reads_as(columns: &[Value], schema: &DFSchemaRef) -> bool {
    columns.iter().zip(schema.fields()).all(|(column, field)| column.reading.data_type() == *field.data_type())
}

/// Whether equality of such values is the same in both engines.
fn tells_apart(value: &Value) -> bool {
    value.kind().is_some_and(|kind| !matches!(kind, Kind::Float4 | Kind::Float8))
}

/// Returns an aggregate whose result is the same: exactly, or as far as the order of floating-point additions permits.
fn aggregated(expr: &Expr, columns: Columns<'_>) -> Option<Value> {
    let call = match expr {
        Expr::Alias(alias) => return aggregated(&alias.expr, columns),
        Expr::AggregateFunction(call) => call,
        _ => return None,
    };
    let AggregateFunction { func, params } = call;
    let ([over], [], None) = (&params.args[..], &params.order_by[..], &params.null_treatment) else { return None };
    let distinct = if params.distinct { "DISTINCT " } else { "" };
    let filter = match &params.filter {
        Some(filter) => format!(" FILTER (WHERE {})", condition(filter, columns)?.exactly()?),
        None => String::new(),
    };
    let of = value(over, columns)?.comparable();
    let kind = of.kind()?.clone();
    if params.distinct && !tells_apart(&of) {
        return None;
    }
    let arg = of.typed();
    let call = |name: &str| format!("{name}({distinct}{arg}){filter}");
    let (sql, kind) = match (func.name(), kind) {
        ("count", _) => (call("count"), Kind::Int8),
        (name @ ("min" | "max"), kind) if kind.is_ordered() && kind.name().is_some() => (call(name), kind),
        (name @ ("bool_and" | "bool_or"), Kind::Bool) => (call(name), Kind::Bool),
        ("sum", Kind::Int2 | Kind::Int4 | Kind::Int8) => (format!("{}::int8", call("sum")), Kind::Int8),
        // Adding 0 turns a sum of -0 into 0. PostgreSQL's `avg` is not used: it also sums squares, which overflow
        // sooner.
        ("sum", Kind::Float8) => (format!("({} + '0'::float8)", call("sum")), Kind::Float8),
        ("avg", Kind::Float8) => {
            (format!("(({} + '0'::float8) / nullif({}, 0))", call("sum"), call("count")), Kind::Float8)
        }
        ("sum", Kind::Numeric(precision, scale)) => {
            (call("sum"), Kind::Numeric(precision.saturating_add(10).min(MAX_DIGITS), scale))
        }
        ("avg", Kind::Numeric(precision, scale)) if scale.unsigned_abs() <= MAX_DIGITS - 4 => {
            // Truncated after the last digit, as in DataFusion; PostgreSQL would choose a number of digits and round.
            let scale = scale + 4;
            let width = usize::try_from(scale).ok()?;
            let quotient = format!("div({} * 1{:0>width$}, nullif({}, 0))", call("sum"), "", call("count"));
            (
                format!("({quotient} * 0.{:0>width$})", 1),
                Kind::Numeric(precision.saturating_add(4).min(MAX_DIGITS), scale),
            )
        }
        _ => return None,
    };
    Some(Value::native(sql, kind))
}
