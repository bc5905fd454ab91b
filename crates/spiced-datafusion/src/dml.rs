//! UPDATE, DELETE and TRUNCATE: a query for the rows that they are about, by the addresses that their table gives them,
//! and for their new values; what it finds goes to the table, which changes these rows or none. So a condition means what
//! it means in a SELECT, whatever is in it.
//!
//! DataFusion's own way hands a table the filters of its optimized plan, where `WHERE false` and subqueries are lost.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{
    DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, Projection, Statement, SubqueryAlias, TableSource, TableType,
    WriteOp,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    Delete, FromTable, Statement as Ast, TableFactor, TableWithJoins, Update, Visitor,
};
use spiced_engine::{EngineError, ErrorKind};

use crate::connectors;
use crate::error::refusal;
use crate::statement::visit;

/// A table that can tell its rows apart.
pub(crate) trait UpdatableTable: TableProvider {
    /// The table with the addresses of its rows: further columns, behind its own.
    fn addressed(&self) -> Result<Arc<dyn TableProvider>>;

    /// Takes addresses, and behind them new values of `columns`, whose rows it changes; where there are no columns, it
    /// deletes the rows. All of them, or none where one is not there any more as it was; it counts them.
    ///
    /// # Errors
    /// It cannot change these columns.
    fn change(&self, columns: &[usize], given: SchemaRef) -> Result<Arc<dyn DataSink>>;

    /// Takes rows that have `columns` alone, and fills in the rest itself: a default, a sequence's next number, what is
    /// generated. `None` where it cannot.
    ///
    /// # Errors
    /// It takes no rows.
    fn insert(&self, _columns: &[usize]) -> Result<Option<Arc<dyn DataSink>>> {
        Ok(None)
    }
}

/// What stands for a column that an INSERT leaves out, as a [`UpdatableTable`] table's default for it: the table itself fills it
/// in.
pub(crate) fn left_out() -> Expr {
    let mark = [(LEFT_OUT.to_owned(), String::new())];
    Expr::Literal(ScalarValue::Null, Some(FieldMetadata::from(BTreeMap::from(mark))))
}

/// The mark of [`left_out`].
const LEFT_OUT: &str = "spiced.left_out";

fn is_left_out(value: &Expr) -> bool {
    match value {
        Expr::Alias(alias) => is_left_out(&alias.expr),
        Expr::Cast(cast) => is_left_out(&cast.expr),
        Expr::Literal(ScalarValue::Null, Some(metadata)) => metadata.inner().contains_key(LEFT_OUT),
        _ => false,
    }
}

/// The name of a column of addresses, which no column of `schema` has.
pub(crate) fn row_id_column(name: &str, schema: &Schema) -> String {
    let mut name = name.to_owned();
    while schema.column_with_name(&name).is_some() {
        name.push('_');
    }
    name
}

/// Checks what the planner would pass over: a change that says it is of a part of its table's rows, or of joined ones.
///
/// # Errors
/// It is.
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

/// `plan` with the changes in it planned so.
///
/// # Errors
/// A table, or a statement, of a kind that is not changed so.
pub(crate) fn plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let planned = plan.transform_down(|node| {
        Ok(match node {
            LogicalPlan::Dml(dml) if !matches!(dml.op, WriteOp::Insert(_)) => {
                Transformed::new(LogicalPlan::Dml(change(&dml)?), true, TreeNodeRecursion::Stop)
            }
            LogicalPlan::Dml(dml) => {
                let narrowed = insert(&dml)?;
                let changed = narrowed.is_some();
                Transformed::new(LogicalPlan::Dml(narrowed.unwrap_or(dml)), changed, TreeNodeRecursion::Stop)
            }
            // A statement is not found within another one elsewhere.
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
            let values = assigned(projection, &found.1);
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

/// An INSERT without the columns that it leaves out; `None` where there is none that the table fills in.
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

/// What an UPDATE's projection gives another value: the column's place, and the value.
fn assigned(projection: &Projection, target: &TableReference) -> Vec<(usize, Expr)> {
    let keeps = |value: &Expr| match value {
        Expr::Alias(alias) => match alias.expr.as_ref() {
            Expr::Column(column) => column.name == alias.name && column.relation.as_ref() == Some(target),
            _ => false,
        },
        _ => false,
    };
    projection.expr.iter().enumerate().filter(|(_, value)| !keeps(value)).map(|(at, v)| (at, v.clone())).collect()
}

/// The table of a statement, and what gives its rows with their addresses.
struct Target<'a> {
    table: &'a TableReference,
    source: Arc<dyn TableSource>,
}

impl Target<'_> {
    fn scan(&self) -> Result<LogicalPlan> {
        LogicalPlanBuilder::scan(self.table.clone(), self.source.clone(), None)?.build()
    }

    /// `plan` with the addresses, and what qualifies them.
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

/// Where the rows go that were found.
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
