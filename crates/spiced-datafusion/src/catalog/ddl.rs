//! `CREATE` and `DROP`. Tables are created here, because the memory of DataFusion's own tables is not accounted for;
//! DataFusion runs the rest.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{CreateMemoryTable, DdlStatement, LogicalPlan};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use spiced_engine::{EngineError, ErrorKind};

use crate::error::{engine_error, invalid};
use crate::tables::memory_table::MemoryTable;

/// Runs `ddl`. Catalogs are shared, so the effect is visible to all sessions.
pub(crate) async fn run(ddl: DdlStatement, state: SessionState) -> Result<(), EngineError> {
    match ddl {
        DdlStatement::CreateMemoryTable(create) => create_table(create, &state).await,
        DdlStatement::CreateIndex(_) => Err(EngineError::new(ErrorKind::Unsupported, "this engine has no indexes")),
        DdlStatement::CreateFunction(_) | DdlStatement::DropFunction(_) => {
            Err(EngineError::new(ErrorKind::Unsupported, "the functions of this engine are built in"))
        }
        ddl => {
            let context = SessionContext::new_with_state(state);
            context.execute_logical_plan(LogicalPlan::Ddl(ddl)).await.map(|_| ()).map_err(engine_error)
        }
    }
}

/// Runs `CREATE TABLE`, with columns or with `AS` and a query.
async fn create_table(create: CreateMemoryTable, state: &SessionState) -> Result<(), EngineError> {
    let CreateMemoryTable { name, constraints, input, if_not_exists, or_replace, column_defaults, temporary } = create;
    if temporary {
        return Err(EngineError::new(ErrorKind::Unsupported, "this engine has no temporary tables"));
    }
    if if_not_exists && or_replace {
        return Err(invalid("`IF NOT EXISTS` and `OR REPLACE` exclude each other"));
    }
    let schema_provider = state.schema_for_ref(name.clone()).map_err(engine_error)?;
    let table = name.table();
    let exists = || schema_provider.table_exist(table);
    if exists() && !or_replace {
        return if if_not_exists { Ok(()) } else { Err(invalid(format!("the table `{name}` already exists"))) };
    }

    let schema = input.schema().inner().clone();
    let mut columns = HashSet::new();
    if let Some(twice) = schema.fields().iter().find(|field| !columns.insert(field.name().as_str())) {
        return Err(invalid(format!("the column `{}` would be there twice; give one of them an alias", twice.name())));
    }
    let made =
        MemoryTable::new(crate::planning::output_schema::plain_schema(&schema), &state.runtime_env().memory_pool)
            .with_definition(constraints, column_defaults.into_iter().collect());
    let physical = state.create_physical_plan(&input).await.map_err(engine_error)?;
    let rows = execute_stream(physical, state.task_ctx()).map_err(engine_error)?;
    made.append(rows).await.map_err(engine_error)?;

    if or_replace && exists() {
        schema_provider.deregister_table(table).map_err(engine_error)?;
    }
    schema_provider.register_table(table.to_owned(), Arc::new(made)).map(|_| ()).map_err(engine_error)
}
