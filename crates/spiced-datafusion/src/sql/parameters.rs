//! The parameters of a statement, and the assignment of values to them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use spiced_engine::{EngineError, Parameters};

use crate::error::{engine_error, invalid};
use crate::sql::typed_parameters::Values;

/// Returns the parameters of `plan`: `$1`, `$2`, `$10`, then named ones in alphabetical order. `$1::bigint` is a
/// `bigint`, as in PostgreSQL: some clients convert values to the reported type. The type is a hint: a value of another
/// type is accepted unchanged. A type that is unknown, or that differs between two places, is `Null`.
pub(crate) fn of(plan: &LogicalPlan) -> Result<Schema> {
    if matches!(plan, LogicalPlan::Statement(_)) {
        // EXECUTE supplies the parameters within PREPARE.
        return Ok(Schema::empty());
    }
    let mut found: BTreeMap<Key, Option<DataType>> = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Some((id, seen)) = parameter(expr) {
                    let known = found.entry(Key(id.clone())).or_insert_with(|| seen.clone());
                    match (known.as_ref(), seen) {
                        (Some(known_type), Some(seen)) if *known_type != seen => *known = Some(DataType::Null),
                        (None, Some(seen)) => *known = Some(seen),
                        _ => {}
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let fields =
        found.into_iter().map(|(Key(id), data_type)| Field::new(id, data_type.unwrap_or(DataType::Null), true));
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// Returns the parameter in `expr`, and its type if the expression determines it. A `TRY_CAST` does not: a value that
/// does not fit becomes NULL there, and would be refused at binding.
fn parameter(expr: &Expr) -> Option<(&String, Option<DataType>)> {
    let typed = |placeholder: &Placeholder| placeholder.field.as_ref().map(|field| field.data_type().clone());
    match expr {
        Expr::Placeholder(placeholder) => Some((&placeholder.id, typed(placeholder))),
        Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
            Expr::Placeholder(placeholder) => {
                Some((&placeholder.id, typed(placeholder).or_else(|| Some(field.data_type().clone()))))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Returns the values in `given` for the parameters in `wanted`, unconverted: the statement decides how to convert each
/// value, as it does for a literal.
///
/// # Errors
/// Fails if a parameter has no value, or a value has no parameter.
pub(crate) fn values(wanted: &Schema, given: &Parameters) -> Result<Values, EngineError> {
    let Some(batch) = given.batch().filter(|batch| batch.num_columns() > 0) else {
        return match wanted.fields().len() {
            0 => Ok(Values::default()),
            _ => Err(missing(wanted.fields().iter().map(|field| field.name().as_str()))),
        };
    };
    if wanted.fields().is_empty() {
        return Err(invalid(format!("the statement has no parameters, and {} came with it", batch.num_columns())));
    }
    let columns = assign(batch, wanted)?;
    let value = |(field, column): (&Arc<Field>, usize)| {
        let value = match ScalarValue::try_from_array(batch.column(column), 0).map_err(engine_error)? {
            // flightsql-dbapi sends every value as a union; the value inside it is used.
            ScalarValue::Union(Some((_, value)), ..) => *value,
            value => value,
        };
        Ok((field.name().clone(), value))
    };
    wanted.fields().iter().zip(columns).map(value).collect()
}

/// Returns the column of `batch` for each wanted parameter, by name or by order.
///
/// Columns are matched by name if a column is called `$…`, if a non-numeric name is that of a parameter, or if every
/// column has the name of a parameter. Otherwise they are matched by order: drivers number their columns from 0.
fn assign(batch: &RecordBatch, wanted: &Schema) -> Result<Vec<usize>, EngineError> {
    let schema = batch.schema();
    let given: Vec<&str> = schema.fields().iter().map(|field| bare(field.name())).collect();
    let is_wanted = |name: &str| wanted.fields().iter().any(|field| bare(field.name()) == name);
    let is_number = |name: &str| name.bytes().all(|b| b.is_ascii_digit());
    let named = schema.fields().iter().any(|field| field.name().starts_with('$'))
        || given.iter().any(|name| is_wanted(name) && !is_number(name))
        || (given.len() == wanted.fields().len() && given.iter().all(|name| is_wanted(name)));
    let surplus = |names: Vec<&str>| {
        invalid(format!("the statement has no parameter for {}; it has {}", quoted(names), of_those(wanted)))
    };
    if !named {
        return match given.len().cmp(&wanted.fields().len()) {
            Ordering::Equal => Ok((0..given.len()).collect()),
            Ordering::Less => Err(missing(wanted.fields()[given.len()..].iter().map(|field| field.name().as_str()))),
            Ordering::Greater => {
                Err(surplus(schema.fields()[wanted.fields().len()..].iter().map(|f| f.name().as_str()).collect()))
            }
        };
    }
    let place = |field: &Arc<Field>| given.iter().position(|name| *name == bare(field.name()));
    let without: Vec<&str> = wanted.fields().iter().filter(|f| place(f).is_none()).map(|f| f.name().as_str()).collect();
    if !without.is_empty() {
        return Err(missing(without.into_iter()));
    }
    for (at, name) in given.iter().enumerate() {
        if given[..at].contains(name) {
            return Err(invalid(format!("the parameter `{name}` has two values")));
        }
    }
    let extra: Vec<&str> = given.iter().filter(|name| !is_wanted(name)).copied().collect();
    if !extra.is_empty() {
        return Err(surplus(extra));
    }
    Ok(wanted.fields().iter().filter_map(place).collect())
}

fn bare(name: &str) -> &str {
    name.strip_prefix('$').unwrap_or(name)
}

fn missing<'a>(names: impl Iterator<Item = &'a str>) -> EngineError {
    invalid(format!("no value for {}", quoted(names.collect())))
}

fn of_those(wanted: &Schema) -> String {
    quoted(wanted.fields().iter().map(|field| field.name().as_str()).collect())
}

fn quoted(names: Vec<&str>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The name of a parameter; numbers sort first, by value.
#[derive(Debug, PartialEq, Eq)]
struct Key(String);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |key: &Self| bare(&key.0).parse::<u64>().unwrap_or(u64::MAX);
        rank(self).cmp(&rank(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
