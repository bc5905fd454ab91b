//! `memory:` data sets: empty at start, filled by `INSERT` if they are writable, and lost at exit.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::Constraint;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;
use futures::FutureExt;
use spiced_engine::Key;

use crate::connectors::source::Loading;
use crate::connectors::source::{Connector, Opened, Request, Source};
use crate::engine::start_error::SpecPart;
use crate::error::reason;
use crate::tables::memory_table::MemoryTable;
use crate::tables::updatable::UpdatableTable;

pub(super) const CONNECTOR: Connector = Connector {
    name: "memory",
    writable: true,
    columns: true,
    open,
    changeable: |table| table.downcast_ref::<MemoryTable>().map(|table| table as &dyn UpdatableTable),
    keys: |tables, keys| {
        for (table, keys) in tables.iter().zip(keys) {
            keys.primary = keys.primary.take().or_else(|| declared(table.as_ref()));
        }
    },
    ..Connector::READER
};

fn open(request: Request<'_>) -> Opened {
    let mut wrong = Vec::new();
    if !request.rest.is_empty() {
        wrong.push(SpecPart::From.error("nothing stands after `memory:`; the name of the data set is its name"));
    }
    if request.spec.columns.is_empty() {
        wrong.push(SpecPart::Columns.error("a `memory:` data set needs at least one"));
    }
    let mut fields: Vec<Field> = Vec::new();
    for column in &request.spec.columns {
        if column.name.is_empty() {
            wrong.push(SpecPart::Columns.error("a column has no name"));
        } else if fields.iter().any(|field| *field.name() == column.name) {
            wrong.push(SpecPart::Columns.error(format!("`{}` is there twice", column.name)));
        }
        match data_type(&column.sql_type, request.state) {
            Ok(data_type) => fields.push(Field::new(&column.name, data_type, column.nullable)),
            Err(why) => wrong.push(SpecPart::Columns.error(format!(
                "the type of `{}`, `{}`, is none that SQL knows here: {why}",
                column.name, column.sql_type
            ))),
        }
    }
    if wrong.is_empty() { Ok(Arc::new(Memory { schema: Arc::new(Schema::new(fields)) })) } else { Err(wrong) }
}

struct Memory {
    schema: SchemaRef,
}

impl Source for Memory {
    fn load<'a>(&'a self, state: &'a SessionState) -> Loading<'a> {
        Box::pin(async move {
            let table = MemoryTable::new(self.schema.clone(), &state.runtime_env().memory_pool);
            Ok(Arc::new(table) as Arc<dyn TableProvider>)
        })
    }
}

/// Returns the key from `CREATE TABLE`.
fn declared(table: &dyn TableProvider) -> Option<Key> {
    let in_memory = table.downcast_ref::<MemoryTable>()?;
    let columns = in_memory.declared().iter().find_map(|constraint| match constraint {
        Constraint::PrimaryKey(columns) => Some(columns),
        Constraint::Unique(_) => None,
    })?;
    let schema = table.schema();
    Some(Key { name: None, columns: columns.iter().map(|at| schema.field(*at).name().clone()).collect() })
}

/// Why a text is no type.
#[derive(Debug, thiserror::Error)]
enum TypeError {
    #[error(transparent)]
    Syntax(#[from] ParserError),
    #[error("{0} is left over")]
    LeftOver(String),
    #[error("{}", reason(.0))]
    Unknown(#[from] DataFusionError),
}

/// Returns the type that SQL means by `text`. The planner resolves it, so that it is the same as in `CAST`.
fn data_type(text: &str, state: &SessionState) -> Result<DataType, TypeError> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(text)?;
    // The text is inserted into a statement below, so all of it must be a type.
    parser.parse_data_type()?;
    if parser.peek_token().token != Token::EOF {
        return Err(TypeError::LeftOver(parser.peek_token().to_string()));
    }
    let plan = state
        .create_logical_plan(&format!("SELECT CAST(NULL AS {text})"))
        .now_or_never()
        .expect("a plan that names no table waits for nothing")?;
    Ok(plan.schema().field(0).data_type().clone())
}
