//! `AT TIME ZONE` with PostgreSQL's semantics: it converts an instant to the local time of the zone, and a local time
//! of the zone to the instant. A local time that a clock change skips is read with the offset from before the change; a
//! local time that occurs twice means the second occurrence (PostgreSQL, "Date/Time Functions and Operators", `AT TIME
//! ZONE`; `DetermineTimeZoneOffset`).
//!
//! DataFusion plans both directions as one cast, which treats an instant as a local time.

use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, PrimitiveArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident, VisitorMut};

use crate::sql::visit::{call, take, visit_mut};

const NAME: &str = "at_time_zone";

/// Returns the function that [`rewrite`] inserts.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(AtTimeZone { signature: Signature::any(2, Volatility::Immutable) }))
}

/// Replaces the operator with the function in `statement`.
pub(crate) fn rewrite(statement: &mut Statement) {
    struct Calls;
    impl VisitorMut for Calls {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<()> {
            if let SqlExpr::AtTimeZone { timestamp, time_zone } = expr {
                *expr = call(Ident::new(NAME), [take(timestamp), take(time_zone)]);
            }
            ControlFlow::Continue(())
        }
    }
    // The visitor never breaks.
    let _ = visit_mut(statement, &mut Calls);
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    signature: Signature,
}

/// The unit and zone with which the first argument is read: text as DataFusion reads it, a date as its midnight.
fn taken(data_type: &DataType) -> Result<(TimeUnit, Option<Arc<str>>)> {
    Ok(match data_type {
        DataType::Timestamp(unit, zone) => (*unit, zone.clone()),
        DataType::Date32 | DataType::Date64 => (TimeUnit::Microsecond, None),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => (TimeUnit::Nanosecond, None),
        other => return exec_err!("AT TIME ZONE takes a timestamp, and this is {other}"),
    })
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        exec_err!("the type of `{NAME}` depends on its arguments")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let data_type = match taken(args.arg_fields[0].data_type())? {
            (unit, Some(_)) => DataType::Timestamp(unit, None),
            (unit, None) => {
                // The result is an instant; if the zone is a constant, the result is displayed in that zone.
                let zone = args.scalar_arguments[1].and_then(|zone| zone.try_as_str().flatten()).unwrap_or("UTC");
                DataType::Timestamp(unit, Some(zone.into()))
            }
        };
        Ok(Arc::new(Field::new(NAME, data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (unit, from) = taken(&args.args[0].data_type())?;
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let times = cast(&args.args[0].to_array(rows)?, &DataType::Timestamp(unit, from.clone()))?;
        let times = cast(&times, &DataType::Int64)?;
        let times: &Int64Array = times.as_primitive();
        let moved = match &args.args[1] {
            ColumnarValue::Scalar(zone) => match zone.try_as_str() {
                Some(Some(zone)) => {
                    let zone = read(zone)?;
                    times
                        .iter()
                        .map(|time| time.map(|time| shift(time, unit, zone, from.is_some())).transpose())
                        .collect()
                }
                Some(None) => Ok(Int64Array::new_null(rows)),
                None if zone.is_null() => Ok(Int64Array::new_null(rows)),
                None => return exec_err!("AT TIME ZONE takes the name of a zone, and this is {}", zone.data_type()),
            },
            ColumnarValue::Array(zones) => {
                let zones = cast(zones, &DataType::Utf8)?;
                let zones = zones.as_string::<i32>();
                let one = |(time, zone): (Option<i64>, Option<&str>)| match (time, zone) {
                    (Some(time), Some(zone)) => shift(time, unit, read(zone)?, from.is_some()).map(Some),
                    _ => Ok(None),
                };
                times.iter().zip(zones).map(one).collect::<Result<PrimitiveArray<Int64Type>>>()
            }
        };
        let moved: ArrayRef = Arc::new(moved?);
        let moved = cast(&moved, &DataType::Timestamp(unit, None))?;
        // The value stays the same and gets the zone in which it is displayed.
        let moved = match args.return_field.data_type() {
            DataType::Timestamp(_, None) => moved,
            to => {
                let utc = cast(&moved, &DataType::Timestamp(unit, Some("+00:00".into())))?;
                cast(&utc, to)?
            }
        };
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&moved, 0)?)),
            false => Ok(ColumnarValue::Array(moved)),
        }
    }
}

fn read(zone: &str) -> Result<Tz> {
    match zone.trim().parse() {
        Ok(zone) => Ok(zone),
        Err(_) => exec_err!("there is no time zone `{zone}`"),
    }
}

/// Converts an instant to the local time of `zone`, encoded as if it were UTC; otherwise converts in the opposite
/// direction.
fn shift(time: i64, unit: TimeUnit, zone: Tz, is_instant: bool) -> Result<i64> {
    let (per_second, beyond) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    let nanoseconds = u32::try_from(time.rem_euclid(per_second) * beyond).unwrap_or_default();
    let moved = DateTime::from_timestamp(time.div_euclid(per_second), nanoseconds).and_then(|at| {
        let at = at.naive_utc();
        let offset = match is_instant {
            true => i64::from(zone.offset_from_utc_datetime(&at).fix().local_minus_utc()),
            false => -on_clocks(at, zone)?,
        };
        time.checked_add(offset.checked_mul(per_second)?)
    });
    match moved {
        Some(moved) => Ok(moved),
        None => exec_err!("a time is beyond the calendar, and has no place in a time zone"),
    }
}

/// Returns the offset of `zone` from UTC, in seconds, at the local time `time`.
fn on_clocks(time: NaiveDateTime, zone: Tz) -> Option<i64> {
    /// No clock has ever been put forward by more than a day.
    const STEPS: i32 = 50;
    (0..STEPS).find_map(|step| {
        let before = time.checked_sub_signed(TimeDelta::minutes(30 * i64::from(step)))?;
        match zone.offset_from_local_datetime(&before) {
            LocalResult::Single(offset) => Some(i64::from(offset.fix().local_minus_utc())),
            LocalResult::Ambiguous(_, second) => Some(i64::from(second.fix().local_minus_utc())),
            LocalResult::None => None,
        }
    })
}
