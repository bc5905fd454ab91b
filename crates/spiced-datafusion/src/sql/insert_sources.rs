//! What an INSERT or an UPDATE is given, apart from what the planner makes of it.
//!
//! DataFusion casts the rows of every `VALUES` in an INSERT to the types of the table's columns, at any depth: `INSERT
//! INTO t SELECT x * 2 FROM (VALUES (33.7)) v(x)` would double 33. Such a query is therefore planned on its own. A cast
//! that the statement contains must be kept apart from the planner's, which is checked ([`crate::planning::dml`]): it
//! becomes the argument of a function that returns it.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, internal_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr as PlanExpr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SetExpr, Statement as SqlStatement, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::sql::visit::{call, take};

const AS_WRITTEN: &str = "as_written";
const SOURCE: &str = "spiced_insert_source";

/// Plans the query of an INSERT.
pub(crate) type Plan = for<'a> fn(&'a Statement, &'a SessionState) -> BoxFuture<'a, Result<LogicalPlan>>;

/// Rewrites `statement` in this way; what it then refers to is put into `state`.
///
/// # Errors
/// Fails if the query of an INSERT cannot be planned.
pub(crate) fn separate<'a>(
    statement: &'a mut Statement,
    state: &'a mut SessionState,
    plan: Plan,
) -> BoxFuture<'a, Result<()>> {
    // Planning the query of an INSERT comes here again.
    separated(statement, state, plan).boxed()
}

async fn separated(statement: &mut Statement, state: &mut SessionState, plan: Plan) -> Result<()> {
    let whole = match statement {
        Statement::Statement(whole) => whole.as_mut(),
        Statement::Explain(explain) => match explain.statement.as_mut() {
            Statement::Statement(whole) => whole.as_mut(),
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    match whole {
        SqlStatement::Insert(insert) => {
            let Some(query) = insert.source.as_mut() else { return Ok(()) };
            if let SetExpr::Values(values) = query.body.as_mut() {
                return mark(values.rows.iter_mut().flat_map(|row| row.content.iter_mut()), state);
            }
            if query.visit(&mut HasValues).is_continue() {
                return Ok(());
            }
            let source = Statement::Statement(Box::new(SqlStatement::Query(query.clone())));
            let rows = plan(&source, state).await?;
            state.register_udtf(SOURCE, Arc::new(Source(rows)));
            let form = format!("SELECT * FROM {SOURCE}()");
            let form = Parser::new(&GenericDialect {}).try_with_sql(&form).and_then(|mut it| it.parse_query());
            match form {
                Ok(form) => *query = form,
                Err(error) => return internal_err!("{error}"),
            }
            Ok(())
        }
        SqlStatement::Update(update) => {
            mark(update.assignments.iter_mut().map(|assignment| &mut assignment.value), state)
        }
        _ => Ok(()),
    }
}

/// Marks the values that are casts.
fn mark<'a>(values: impl Iterator<Item = &'a mut Expr>, state: &mut SessionState) -> Result<()> {
    fn is_cast(value: &Expr) -> bool {
        match value {
            Expr::Nested(inner) => is_cast(inner),
            Expr::Cast { .. } => true,
            _ => false,
        }
    }
    let mut is_used = false;
    for value in values.filter(|value| is_cast(value)) {
        *value = call(Ident::new(AS_WRITTEN), [take(value)]);
        is_used = true;
    }
    if is_used {
        let signature = Signature::any(1, Volatility::Immutable);
        state.register_udf(Arc::new(ScalarUDF::from(AsWritten { signature })))?;
    }
    Ok(())
}

struct HasValues;

impl Visitor for HasValues {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if matches!(query.body.as_ref(), SetExpr::Values(_)) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// The query of an INSERT, as a table.
#[derive(Debug)]
struct Source(LogicalPlan);

impl TableFunctionImpl for Source {
    fn call_with_args(&self, _: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(ViewTable::new(self.0.clone(), None)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsWritten {
    signature: Signature,
}

impl ScalarUDFImpl for AsWritten {
    fn name(&self) -> &str {
        AS_WRITTEN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, of: &[DataType]) -> Result<DataType> {
        Ok(of[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(args.arg_fields[0].clone())
    }

    fn simplify(&self, mut args: Vec<PlanExpr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match args.pop() {
            Some(value) => Ok(ExprSimplifyResult::Simplified(value)),
            None => Ok(ExprSimplifyResult::Original(args)),
        }
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.pop() {
            Some(value) => Ok(value),
            None => internal_err!("`{AS_WRITTEN}` has one argument"),
        }
    }
}
