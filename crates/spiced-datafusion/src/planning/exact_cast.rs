//! Casts to the type of a column that is written. For bulk rows, whose types a program chose, no value changes: a
//! value that the type cannot hold, or that would be rounded or truncated, is an error. INSERT and UPDATE round to a
//! float, to the scale of a decimal and to the unit of a time, as PostgreSQL does, and nothing else.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::FormatOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};
use spiced_engine::ErrorKind;

use crate::error::refusal;

/// Casts `value` from `from` to `to`, the type of the column `name`.
///
/// # Errors
/// Fails if the types are of different kinds.
pub(crate) fn exact_cast(value: Expr, from: &DataType, to: &DataType, name: &str) -> Result<Expr> {
    checked_cast(value, from, to, name, Rounds::Never)
}

/// Casts `value`, which INSERT or UPDATE assigns to the column `name` of type `to`.
///
/// # Errors
/// Fails if the types are of different kinds.
pub(crate) fn assigned_cast(value: Expr, from: &DataType, to: &DataType, name: &str) -> Result<Expr> {
    checked_cast(value, from, to, name, Rounds::InKind)
}

/// Whether a cast may round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rounds {
    Never,
    /// To a float, to a decimal, and between times.
    InKind,
}

fn checked_cast(value: Expr, from: &DataType, to: &DataType, name: &str, rounds: Rounds) -> Result<Expr> {
    if from == to || *from == DataType::Null {
        return Ok(cast(value, to.clone()));
    }
    if !is_same_kind(from, to) {
        let why = format!(
            "the column `{name}` is a {to}, and the rows give it as {from}; cast it to {to} where the rows are made"
        );
        return Err(refusal(ErrorKind::InvalidStatement, why));
    }
    let signature = Signature::any(1, Volatility::Immutable);
    let function = ScalarUDF::from(ExactCast { signature, to: to.clone(), name: name.to_owned(), rounds });
    Ok(function.call(vec![value]))
}

/// Returns whether a number stays a number and a time stays a time. Text is parsed as any type, and every type can be
/// cast to text.
fn is_same_kind(from: &DataType, to: &DataType) -> bool {
    let is_number = |data_type: &DataType| data_type.is_numeric();
    let is_time = |data_type: &DataType| data_type.is_temporal();
    let is_truth = |data_type: &DataType| *data_type == DataType::Boolean;
    match from {
        DataType::Dictionary(_, values) => is_same_kind(values, to),
        from if is_number(from) => !is_time(to) && !is_truth(to),
        from if is_time(from) => !is_number(to) && !is_truth(to),
        from if is_truth(from) => !is_number(to) && !is_time(to),
        _ => true,
    }
}

/// Returns whether INSERT and UPDATE may round from one of these types to the other.
fn rounds_in_kind(from: &DataType, to: &DataType) -> bool {
    let is_decimal = |data_type: &DataType| data_type.is_decimal();
    match to {
        to if to.is_floating() => is_decimal(from),
        to if is_decimal(to) => is_decimal(from) || from.is_floating(),
        to => from.is_temporal() && to.is_temporal(),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactCast {
    signature: Signature,
    to: DataType,
    name: String,
    rounds: Rounds,
}

impl ScalarUDFImpl for ExactCast {
    fn name(&self) -> &str {
        "exact_cast"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let to = self.cast(&arrays[0])?;
        Ok(ColumnarValue::Array(to))
    }
}

impl ExactCast {
    fn cast(&self, given: &ArrayRef) -> Result<ArrayRef> {
        const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };
        let from = given.data_type();
        let is_compared = |data_type: &DataType| data_type.is_numeric() || data_type.is_temporal();
        let cast = match self.arrow_cast(given, &STRICT) {
            Err(_) if is_compared(from) && is_compared(&self.to) => return Err(self.unfit()),
            cast => cast?,
        };
        let stays = match (from, &self.to) {
            // A float is rounded to the nearest narrower float, but must not become infinite.
            (DataType::Float64, DataType::Float32) => {
                let (wide, narrow) = (given.as_primitive::<Float64Type>(), cast.as_primitive::<Float32Type>());
                wide.iter().zip(narrow).all(|(wide, narrow)| {
                    wide.is_none_or(|wide| !wide.is_finite()) || narrow.is_none_or(f32::is_finite)
                })
            }
            (from, to) if self.rounds == Rounds::InKind && rounds_in_kind(from, to) => match cast.data_type() {
                DataType::Float32 => cast.as_primitive::<Float32Type>().iter().flatten().all(f32::is_finite),
                _ => true,
            },
            (from, to) if is_compared(from) && is_compared(to) => {
                // A value that differs after the cast back has been changed.
                let back = cast_with_options(&cast, from, &CastOptions { safe: true, ..STRICT })?;
                not_distinct(&Arc::clone(&back), given)?.true_count() == given.len()
            }
            // A text is read as infinity if the number in it is too large.
            (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, to) if to.is_floating() => {
                let (texts, floats) = (
                    cast_with_options(given, &DataType::Utf8, &STRICT)?,
                    cast_with_options(&cast, &DataType::Float64, &STRICT)?,
                );
                let (texts, floats) = (texts.as_string::<i32>(), floats.as_primitive::<Float64Type>());
                texts.iter().zip(floats).all(|(text, float)| {
                    float.is_none_or(|float| !float.is_infinite())
                        || text.is_none_or(|text| !text.contains(|letter: char| letter.is_ascii_digit()))
                })
            }
            _ => true,
        };
        if stays { Ok(cast) } else { Err(self.unfit()) }
    }

    /// Casts as Arrow does, but with the float that is nearest to a decimal.
    fn arrow_cast(&self, given: &ArrayRef, options: &CastOptions<'_>) -> std::result::Result<ArrayRef, ArrowError> {
        match given.data_type().is_decimal() && self.to.is_floating() {
            true => cast_with_options(&cast_with_options(given, &DataType::Utf8, options)?, &self.to, options),
            false => cast_with_options(given, &self.to, options),
        }
    }

    fn unfit(&self) -> DataFusionError {
        let why = format!(
            "a value of the column `{}` does not fit {} without a change; round it, or cast it, where the rows are made",
            self.name, self.to
        );
        refusal(ErrorKind::InvalidStatement, why)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampNanosecondArray,
    };
    use datafusion::arrow::datatypes::DataType::{
        Boolean, Date32, Decimal128, Float32, Float64, Int16, Int32, Int64, Timestamp, Utf8,
    };
    use datafusion::arrow::datatypes::TimeUnit::{Microsecond, Nanosecond};
    use datafusion::logical_expr::col;

    use super::*;

    fn floats(values: &[f64]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn decimals(value: i128) -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(10, 1).unwrap())
    }

    fn times(value: i64) -> ArrayRef {
        Arc::new(TimestampNanosecondArray::from(vec![Some(value), None]))
    }

    fn texts(value: &str) -> ArrayRef {
        Arc::new(StringArray::from(vec![value]))
    }

    fn integers(value: i64) -> ArrayRef {
        Arc::new(Int64Array::from(vec![value]))
    }

    #[test]
    fn an_assignment_rounds_in_kind_alone() {
        for (given, to, fits) in [
            (floats(&[33.7]), Int32, false),
            (floats(&[33.0]), Int32, true),
            (floats(&[1e39]), Float32, false),
            (floats(&[0.1]), Float32, true),
            (floats(&[1.005]), Decimal128(5, 2), true),
            (floats(&[1e10]), Decimal128(5, 2), false),
            (decimals(15), Int64, false),
            (decimals(15), Float64, true),
            (decimals(15), Decimal128(5, 0), true),
            (integers((1 << 53) + 1), Float64, false),
            (integers(1 << 20), Int16, false),
            (times(1_001), Timestamp(Microsecond, None), true),
            (times(1), Date32, true),
            (texts("7"), Int32, true),
            (texts("1e39"), Float32, false),
            (texts("-inf"), Float32, true),
        ] {
            let name = "c".to_owned();
            let signature = Signature::any(1, Volatility::Immutable);
            let cast = ExactCast { signature, to: to.clone(), name, rounds: Rounds::InKind };
            let seen = cast.cast(&given);
            assert_eq!(seen.is_ok(), fits, "{given:?} as {to}: {seen:?}");
        }
    }

    #[test]
    fn no_value_is_changed() {
        for (given, to, fits) in [
            (floats(&[2.0, 3.0]), Int32, true),
            (floats(&[2.0, 2.5]), Int32, false),
            (floats(&[f64::NAN]), Int32, false),
            (floats(&[0.1]), Float32, true),
            (floats(&[1e39]), Float32, false),
            (floats(&[f64::INFINITY]), Float32, true),
            (floats(&[0.1]), Decimal128(10, 2), true),
            (floats(&[0.125]), Decimal128(10, 2), false),
            (decimals(20), Int64, true),
            (decimals(15), Int64, false),
            (integers(1 << 53), Float64, true),
            (integers((1 << 53) + 1), Float64, false),
            (integers(1 << 20), Int16, false),
            (times(1_000), Timestamp(Microsecond, None), true),
            (times(1_001), Timestamp(Microsecond, None), false),
            (times(86_400_000_000_000), Date32, true),
            (times(1), Date32, false),
            (Arc::new(Date32Array::from(vec![1])), Timestamp(Nanosecond, None), true),
            (texts("007"), Int32, true),
            (texts("x"), Int32, false),
            (integers(1), Utf8, true),
        ] {
            let name = "c".to_owned();
            let cast = ExactCast {
                signature: Signature::any(1, Volatility::Immutable),
                to: to.clone(),
                name,
                rounds: Rounds::Never,
            };
            let seen = cast.cast(&given);
            assert_eq!(seen.is_ok(), fits, "{given:?} as {to}: {seen:?}");
        }
        for (from, to, fits) in [
            (Boolean, Int32, false),
            (Date32, Int32, false),
            (Int64, Timestamp(Microsecond, None), false),
            (Int64, Boolean, false),
            (Utf8, Boolean, true),
            (Boolean, Utf8, true),
            (Int32, Int64, true),
            (BooleanArray::from(vec![true]).data_type().clone(), Boolean, true),
        ] {
            assert_eq!(exact_cast(col("c"), &from, &to, "c").is_ok(), fits, "{from} as {to}");
        }
    }
}
