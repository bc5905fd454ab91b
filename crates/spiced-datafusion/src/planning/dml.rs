//! UPDATE, DELETE and TRUNCATE run as a query that selects the affected rows by the row ids of their table, with the
//! new values. The result goes to the table, which changes all of these rows or none. A condition therefore means the
//! same as in a SELECT, whatever it contains.
//!
//! DataFusion instead gives a table the filters of its optimized plan, which have lost `WHERE false` and subqueries.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::expr::{Alias, Cast};
use datafusion::logical_expr::{
    DmlStatement, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, Statement, SubqueryAlias,
    TableSource, TableType, WriteOp,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    Delete, FromTable, Statement as Ast, TableFactor, TableWithJoins, Update, Visitor,
};
use spiced_engine::{EngineError, ErrorKind};

use crate::connectors;
use crate::error::refusal;
use crate::planning::exact_cast::assigned_cast;
use crate::planning::number_comparisons::written;
use crate::sql::visit::visit;
use crate::tables::updatable::is_left_out;

/// Rejects what the planner would ignore: a change that restricts itself to a part of its table's rows or to joined
/// rows outside of `WHERE`.
///
/// # Errors
/// Fails if the statement is such a change.
pub(crate) fn check(statement: &Parsed) -> std::result::Result<(), EngineError> {
    match visit(statement, &mut PlainTargets) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(target) => {
            let why = format!(
                "UPDATE and DELETE take the name of a table alone, and this is `{target}`; say the rest in WHERE"
            );
            Err(EngineError::new(ErrorKind::Unsupported, why))
        }
    }
}

struct PlainTargets;

impl Visitor for PlainTargets {
    type Break = String;

    fn pre_visit_statement(&mut self, statement: &Ast) -> ControlFlow<String> {
        let targets = match statement {
            Ast::Update(Update { table, .. }) => std::slice::from_ref(table),
            Ast::Delete(Delete {
                from: FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from), ..
            }) => from,
            _ => &[],
        };
        match targets.iter().find(|target| !is_plain(target)) {
            Some(target) => ControlFlow::Break(target.to_string()),
            None => ControlFlow::Continue(()),
        }
    }
}

fn is_plain(target: &TableWithJoins) -> bool {
    match &target.relation {
        TableFactor::Table {
            name: _,
            alias,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } => {
            let names_columns = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
            let hints = with_hints.len() + partitions.len() + index_hints.len();
            target.joins.is_empty() && !names_columns && hints == 0
        }
        _ => false,
    }
}

/// Replans the changes in `plan` in this way.
///
/// # Errors
/// Fails if a table or a statement does not support it.
pub(crate) fn plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let planned = plan.transform_down(|node| {
        Ok(match node {
            LogicalPlan::Dml(dml) if !matches!(dml.op, WriteOp::Insert(_)) => {
                Transformed::new(LogicalPlan::Dml(change(&dml)?), true, TreeNodeRecursion::Stop)
            }
            LogicalPlan::Dml(dml) => {
                let dml = assigns(dml)?;
                let narrowed = insert(&dml)?;
                Transformed::new(LogicalPlan::Dml(narrowed.unwrap_or(dml)), true, TreeNodeRecursion::Stop)
            }
            // Other nodes do not contain a nested statement.
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::Statement(Statement::Prepare(_)) => {
                Transformed::no(node)
            }
            node => Transformed::new(node, false, TreeNodeRecursion::Stop),
        })
    })?;
    Ok(planned.data)
}

fn change(dml: &DmlStatement) -> Result<DmlStatement> {
    let name = &dml.table_name;
    let verb = match dml.op {
        WriteOp::Update => "UPDATE",
        WriteOp::Delete => "DELETE",
        WriteOp::Truncate => "TRUNCATE",
        WriteOp::MergeInto(_) => {
            return Err(refusal(
                ErrorKind::Unsupported,
                "there is no MERGE here; UPDATE, DELETE and INSERT do the same",
            ));
        }
        _ => return Err(refusal(ErrorKind::Unsupported, format!("there is no {} here", dml.op))),
    };
    let table = source_as_provider(&dml.target)?;
    let Some(changeable) = connectors::changeable(table.as_ref()) else {
        let why = format!("`{name}` takes no {verb}: tables in memory and those of PostgreSQL do");
        return Err(refusal(ErrorKind::Unsupported, why));
    };
    let target = Target { table: name, source: provider_as_source(changeable.addressed()?) };
    let width = table.schema().fields().len();
    let ((rows, qualifier), values) = match (&dml.op, dml.input.as_ref()) {
        (WriteOp::Update, LogicalPlan::Projection(projection)) => {
            let found = target.rows(&projection.input)?;
            let values = assignments(projection, &found.1)?;
            if values.is_empty() {
                let why = format!("this UPDATE of `{name}` gives each column the value that it has");
                return Err(refusal(ErrorKind::InvalidStatement, why));
            }
            (found, values)
        }
        (WriteOp::Truncate, _) => ((target.scan()?, name.clone()), Vec::new()),
        (WriteOp::Delete, input) => (target.rows(input)?, Vec::new()),
        (_, input) => return Err(DataFusionError::Internal(format!("an UPDATE that is a {}", input.display()))),
    };
    let addresses = target.source.schema();
    let addresses = addresses.fields()[width..].iter();
    let addresses = addresses.map(|field| Expr::Column(Column::new(Some(qualifier.clone()), field.name())));
    let (columns, values): (Vec<usize>, Vec<Expr>) = values.into_iter().unzip();
    let input = LogicalPlanBuilder::from(rows).project(addresses.chain(values))?.build()?;
    let sink = changeable.change(&columns, input.schema().inner().clone())?;
    let into = provider_as_source(Arc::new(Into { sink }));
    Ok(DmlStatement::new(name.clone(), into, WriteOp::Insert(InsertOp::Overwrite), Arc::new(input)))
}

/// Returns an INSERT whose values reach the columns unchanged, or rounded as [`assigned_cast`] rounds.
fn assigns(mut dml: DmlStatement) -> Result<DmlStatement> {
    let LogicalPlan::Projection(projection) = dml.input.as_ref() else { return Ok(dml) };
    let mut projection = projection.clone();
    for value in &mut projection.expr {
        let name = value.schema_name().to_string();
        *value = assigned(std::mem::take(value), projection.input.schema(), &name)?;
    }
    if let LogicalPlan::Values(values) = projection.input.as_ref() {
        let mut values = values.clone();
        let none = DFSchema::empty();
        // The columns of the list, by the columns of the table that they go to.
        let mut names = vec![String::new(); values.schema.fields().len()];
        for value in &projection.expr {
            if let Expr::Alias(Alias { expr, name, .. }) = value
                && let Expr::Column(column) = expr.as_ref()
                && let Some(at) = values.schema.maybe_index_of_column(column)
            {
                names[at].clone_from(name);
            }
        }
        for row in &mut values.values {
            for (value, name) in row.iter_mut().zip(&names) {
                *value = assigned(std::mem::take(value), &none, name)?;
            }
        }
        projection.input = Arc::new(LogicalPlan::Values(values));
    }
    dml.input = Arc::new(LogicalPlan::Projection(projection));
    Ok(dml)
}

/// Replaces the planner's cast of a value for the column `name`.
fn assigned(value: Expr, schema: &DFSchema, name: &str) -> Result<Expr> {
    match value {
        value if is_left_out(&value) => Ok(value),
        Expr::Alias(alias) => {
            let Alias { expr, relation, name: alias, .. } = alias;
            Ok(assigned(*expr, schema, name)?.alias_qualified(relation, alias))
        }
        // The type of a parameter is not known before its value.
        Expr::Cast(Cast { mut expr, field }) => {
            if field.data_type().is_decimal()
                && let Some(decimal) = written(&expr)
            {
                *expr = decimal;
            }
            match expr.get_type(schema) {
                Ok(from) => assigned_cast(*expr, &from, field.data_type(), name),
                Err(_) => Ok(Expr::Cast(Cast { expr, field })),
            }
        }
        other => Ok(other),
    }
}

/// Returns an INSERT without the omitted columns, or `None` if there are no columns for the table to fill in.
fn insert(dml: &DmlStatement) -> Result<Option<DmlStatement>> {
    let LogicalPlan::Projection(projection) = dml.input.as_ref() else { return Ok(None) };
    if !projection.expr.iter().any(is_left_out) {
        return Ok(None);
    }
    let (columns, values): (Vec<usize>, Vec<Expr>) =
        projection.expr.iter().cloned().enumerate().filter(|(_, value)| !is_left_out(value)).unzip();
    let table = source_as_provider(&dml.target)?;
    let sink = match connectors::changeable(table.as_ref()) {
        Some(changeable) => changeable.insert(&columns)?,
        None => None,
    };
    let Some(sink) = sink else { return Ok(None) };
    let input = LogicalPlanBuilder::from(projection.input.as_ref().clone()).project(values)?.build()?;
    let into = provider_as_source(Arc::new(Into { sink }));
    Ok(Some(DmlStatement::new(dml.table_name.clone(), into, dml.op.clone(), Arc::new(input))))
}

/// Returns the columns to which an UPDATE's projection assigns a new value: the index and the value of each.
fn assignments(projection: &Projection, target: &TableReference) -> Result<Vec<(usize, Expr)>> {
    let keeps = |value: &Expr| match value {
        Expr::Alias(alias) => match alias.expr.as_ref() {
            Expr::Column(column) => column.name == alias.name && column.relation.as_ref() == Some(target),
            _ => false,
        },
        _ => false,
    };
    let changed = projection.expr.iter().enumerate().filter(|(_, value)| !keeps(value));
    let schema = projection.input.schema();
    changed.map(|(at, value)| Ok((at, assigned(value.clone(), schema, value.qualified_name().1.as_str())?))).collect()
}

/// The table of a statement, and the source of its rows with their row ids.
struct Target<'a> {
    table: &'a TableReference,
    source: Arc<dyn TableSource>,
}

impl Target<'_> {
    fn scan(&self) -> Result<LogicalPlan> {
        LogicalPlanBuilder::scan(self.table.clone(), self.source.clone(), None)?.build()
    }

    /// Adds the row ids to `plan`, and returns their qualifier too.
    fn rows(&self, plan: &LogicalPlan) -> Result<(LogicalPlan, TableReference)> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.table_name == *self.table => Ok((self.scan()?, self.table.clone())),
            LogicalPlan::SubqueryAlias(named) => {
                let (rows, _) = self.rows(&named.input)?;
                let named = SubqueryAlias::try_new(Arc::new(rows), named.alias.clone())?;
                let qualifier = named.alias.clone();
                Ok((LogicalPlan::SubqueryAlias(named), qualifier))
            }
            LogicalPlan::Filter(_) | LogicalPlan::Limit(_) => {
                let [input] = plan.inputs()[..] else {
                    return Err(DataFusionError::Internal("it has one input".to_owned()));
                };
                let (rows, qualifier) = self.rows(input)?;
                Ok((plan.with_new_exprs(plan.expressions(), vec![rows])?, qualifier))
            }
            other => {
                let why = format!("`{}` is not changed by a statement of this form ({})", self.table, other.display());
                Err(refusal(ErrorKind::Unsupported, why))
            }
        }
    }
}

/// The destination of the selected rows.
struct Into {
    sink: Arc<dyn DataSink>,
}

#[async_trait]
impl TableProvider for Into {
    fn schema(&self) -> SchemaRef {
        self.sink.schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(DataFusionError::Internal("rows that are changed are not read from where they go".to_owned()))
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        _op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(DataSinkExec::new(input, self.sink.clone(), None)))
    }
}

impl fmt::Debug for Into {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Into").finish_non_exhaustive()
    }
}
