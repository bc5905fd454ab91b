//! `sum` of integers, decimals and durations: exact, or an error. DataFusion's own `sum` wraps on overflow.
//!
//! Sums are kept in a type that is wide enough for any number of rows. Only the result must fit the declared type, so
//! neither intermediate sums nor the order of the rows matter.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, PrimitiveArray};
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type,
    Field, FieldRef, Int64Type, UInt64Type,
};
use datafusion::arrow::util::display::FormatOptions;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator};

use super::formula::overflow;

/// The number of digits that a sum has in addition to those of its values, enough for any possible number of rows.
const MORE_DIGITS: u8 = 10;

/// Returns the type in which sums with the result type `result` are kept; `None` if the function needs no help.
fn wide(result: &DataType) -> Option<DataType> {
    match result {
        DataType::Int64 | DataType::UInt64 | DataType::Duration(_) => {
            Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
        }
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => {
            Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale))
        }
        // With fewer digits, the values have ten fewer than the result.
        DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale) | DataType::Decimal256(_, scale) => {
            Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale))
        }
        _ => None,
    }
}

fn field(result: &FieldRef) -> Option<FieldRef> {
    let data_type = wide(result.data_type())?;
    Some(Arc::new(Field::clone(result).with_data_type(data_type)))
}

/// Returns the state fields of `sum`.
pub(super) fn state_fields(sum: &dyn AggregateUDFImpl, args: &StateFieldsArgs<'_>) -> Option<Result<Vec<FieldRef>>> {
    let StateFieldsArgs { name, input_fields, return_field, ordering_fields, is_distinct } = args;
    let return_field = field(return_field)?;
    let is_distinct = *is_distinct;
    Some(sum.state_fields(StateFieldsArgs { name, input_fields, return_field, ordering_fields, is_distinct }))
}

/// Returns `args` with the result in the wide type.
fn widened<'a>(args: &AccumulatorArgs<'a>) -> Option<AccumulatorArgs<'a>> {
    Some(AccumulatorArgs { return_field: field(&args.return_field)?, ..args.clone() })
}

/// Returns the accumulator of one group.
pub(super) fn accumulator(
    sum: &dyn AggregateUDFImpl,
    args: &AccumulatorArgs<'_>,
) -> Option<Result<Box<dyn Accumulator>>> {
    let inner = widened(args).map(|args| sum.accumulator(args))?;
    let adds = if args.is_distinct { Adds::Each } else { Adds::Together };
    Some(inner.map(|inner| Box::new(Wide::new(inner, args, adds)) as Box<dyn Accumulator>))
}

/// Returns the accumulator of a sliding frame.
pub(super) fn sliding(sum: &dyn AggregateUDFImpl, args: &AccumulatorArgs<'_>) -> Option<Result<Box<dyn Accumulator>>> {
    if args.is_distinct {
        return None;
    }
    let inner = widened(args).map(|args| sum.create_sliding_accumulator(args))?;
    Some(inner.map(|inner| Box::new(Wide::new(inner, args, Adds::Each)) as Box<dyn Accumulator>))
}

/// Returns the accumulator of many groups.
pub(super) fn groups(
    sum: &dyn AggregateUDFImpl,
    args: &AccumulatorArgs<'_>,
) -> Option<Result<Box<dyn GroupsAccumulator>>> {
    let inner = widened(args).map(|args| sum.create_groups_accumulator(args))?;
    Some(inner.map(|inner| Box::new(Wide::new(inner, args, Adds::Each)) as Box<dyn GroupsAccumulator>))
}

/// Whether the values of a batch may be added up before they are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adds {
    Each,
    Together,
}

#[derive(Debug)]
struct Wide<A: ?Sized> {
    wide: DataType,
    result: DataType,
    adds: Adds,
    inner: Box<A>,
}

impl<A: ?Sized> Wide<A> {
    fn new(inner: Box<A>, args: &AccumulatorArgs<'_>, adds: Adds) -> Self {
        let result = args.return_field.data_type().clone();
        let wide = wide(&result).unwrap_or(DataType::Null);
        Self { wide, result, adds, inner }
    }

    /// Converts `values` to the wide type.
    fn widen(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let values = &values[0];
        let is_together = self.adds == Adds::Together;
        let widened: ArrayRef = match values.data_type() {
            DataType::Int64 => of_integers(values.as_primitive::<Int64Type>(), is_together),
            DataType::UInt64 => of_integers(values.as_primitive::<UInt64Type>(), is_together),
            DataType::Duration(_) => {
                of_integers(cast(values, &DataType::Int64)?.as_primitive::<Int64Type>(), is_together)
            }
            DataType::Decimal256(precision, _) if precision + MORE_DIGITS > DECIMAL256_MAX_PRECISION => {
                // There is no wider type; values with more digits count as an overflow.
                let most = DECIMAL256_MAX_PRECISION - MORE_DIGITS;
                values
                    .as_primitive::<Decimal256Type>()
                    .validate_decimal_precision(most)
                    .map_err(|_| overflow("`sum`", &self.result))?;
                cast(values, &self.wide)?
            }
            _ => cast(values, &self.wide)?,
        };
        Ok(vec![widened])
    }

    fn narrow(&self, sums: &ArrayRef) -> Result<ArrayRef> {
        const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };
        let narrow = |sums: &ArrayRef, to| cast_with_options(sums, to, &STRICT);
        let narrowed = match &self.result {
            DataType::Duration(_) => narrow(sums, &DataType::Int64).and_then(|sums| narrow(&sums, &self.result)),
            result => narrow(sums, result),
        };
        // The cast's own message contains the value.
        narrowed.map_err(|_| overflow("`sum`", &self.result))
    }
}

fn of_integers<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, is_together: bool) -> ArrayRef
where
    i128: From<T::Native>,
{
    let wide: Decimal128Array = match is_together {
        false => values.unary::<_, Decimal128Type>(i128::from),
        true if values.null_count() == values.len() => Decimal128Array::new_null(1),
        true if values.null_count() == 0 => {
            Decimal128Array::from(vec![values.values().iter().map(|value| i128::from(*value)).sum::<i128>()])
        }
        true => Decimal128Array::from(vec![values.iter().flatten().map(i128::from).sum::<i128>()]),
    };
    // The type represents all decimals with that many digits and no fraction.
    Arc::new(wide.with_data_type(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)))
}

impl Accumulator for Wide<dyn Accumulator> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = self.widen(values)?;
        self.inner.update_batch(&values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&self.narrow(&sum)?, 0)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = self.widen(values)?;
        self.inner.retract_batch(&values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

impl GroupsAccumulator for Wide<dyn GroupsAccumulator> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = self.widen(values)?;
        self.inner.update_batch(&values, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = self.inner.evaluate(emit_to)?;
        self.narrow(&sums)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(states, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&self.widen(values)?, opt_filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
