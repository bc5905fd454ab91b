//! The parameters of a statement: which there are, and which value is for which.

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
use crate::typed_parameters::Values;

/// The parameters of `plan`: `$1`, `$2`, `$10`, then those with names by the alphabet. `$1::bigint` is
/// a `bigint`, as PostgreSQL has it: some clients turn what they are given to the type they are told. It is a hint: a
/// value of another type is taken as it is.
/// A type that is not known, or that two places see differently, is `Null`.
pub(crate) fn of(plan: &LogicalPlan) -> Result<Schema> {
    if matches!(plan, LogicalPlan::Statement(_)) {
        // Those within PREPARE are for EXECUTE to give.
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

/// The parameter that stands here, and its type where this place tells it. A `TRY_CAST` tells none: what
/// does not fit is its null, and would be a refusal at binding.
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

/// The values that `given` has for the parameters that are `wanted`, each as it came: what a place in the statement
/// would like it to be is for the statement to say, as it is of a literal.
///
/// # Errors
/// A parameter has no value, or a value no parameter.
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
            // flightsql-dbapi sends every value as one of a union; what is meant is the value in it.
            ScalarValue::Union(Some((_, value)), ..) => *value,
            value => value,
        };
        Ok((field.name().clone(), value))
    };
    wanted.fields().iter().zip(columns).map(value).collect()
}

/// Which column of `batch` each wanted parameter gets: by name or by order.
///
/// By name where a column is called `$…`, where a name that is no number is a parameter's, or where
/// every column is called as a parameter is. Else by order: drivers number their columns from 0.
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

/// The name of a parameter, numbers first and by size.
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
