//! Reads values from PostgreSQL's binary format, column by column.

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::builder::{
    BinaryBuilder, BooleanBuilder, NullBufferBuilder, PrimitiveBuilder, StringBuilder,
};
use datafusion::arrow::array::{Array, ArrayRef, ListArray};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, DecimalType, FieldRef, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use fallible_iterator::FallibleIterator;
use postgres_protocol::types as wire;
use tokio_postgres::types::{FromSql, Type};

use super::types::{Kind, Reading, item};

/// From 1970-01-01 to 2000-01-01, the PostgreSQL epoch.
const DAYS: i32 = 10_957;
const MICROSECONDS: i64 = 946_684_800_000_000;

const INFINITE: &str = "holds `infinity`, which Arrow has not; leave such rows out, or make it text in a view";

impl Reading {
    /// Creates the builder of an array of such values.
    pub(super) fn filler(&self) -> Box<dyn Filler> {
        self.kind.filler()
    }
}

impl Kind {
    /// Creates the builder for values of this kind.
    pub(super) fn filler(&self) -> Box<dyn Filler> {
        match self {
            Self::Bool => Box::new(Bools(BooleanBuilder::new())),
            Self::Int2 => primitive::<Int16Type>(self, wire::int2_from_sql),
            Self::Int4 => primitive::<Int32Type>(self, wire::int4_from_sql),
            Self::Int8 => primitive::<Int64Type>(self, wire::int8_from_sql),
            Self::Oid => primitive::<Int64Type>(self, |raw| wire::oid_from_sql(raw).map(i64::from)),
            Self::Float4 => primitive::<Float32Type>(self, wire::float4_from_sql),
            Self::Float8 => primitive::<Float64Type>(self, wire::float8_from_sql),
            Self::Numeric(precision, scale) => {
                let (precision, scale) = (*precision, *scale);
                primitive::<Decimal128Type>(self, move |raw| numeric(raw, precision, scale))
            }
            Self::Text | Self::Char | Self::AsText => {
                Box::new(Texts { builder: StringBuilder::new(), read: plain_text })
            }
            Self::Jsonb => Box::new(Texts { builder: StringBuilder::new(), read: jsonb }),
            Self::Uuid => Box::new(Texts { builder: StringBuilder::new(), read: uuid }),
            Self::Bytea => Box::new(Bytes(BinaryBuilder::new())),
            Self::Date => primitive::<Date32Type>(self, |raw| {
                let days = wire::date_from_sql(raw)?;
                // The minimum and the maximum represent infinity.
                let finite = days != i32::MAX && days != i32::MIN;
                days.checked_add(DAYS).filter(|_| finite).ok_or_else(|| INFINITE.into())
            }),
            Self::Time => primitive::<Time64MicrosecondType>(self, wire::time_from_sql),
            Self::Timestamp { .. } => primitive::<TimestampMicrosecondType>(self, |raw| {
                let at = wire::timestamp_from_sql(raw)?;
                let finite = at != i64::MAX && at != i64::MIN;
                at.checked_add(MICROSECONDS).filter(|_| finite).ok_or_else(|| INFINITE.into())
            }),
            Self::Interval => primitive::<IntervalMonthDayNanoType>(self, interval),
            Self::List(element) => Box::new(Lists {
                field: item(element),
                values: element.filler(),
                ends: vec![0],
                nulls: NullBufferBuilder::new(0),
            }),
        }
    }
}

type Read<T> = Result<T, Box<dyn Error + Sync + Send>>;

/// Builds one column from values in PostgreSQL's binary format.
pub(super) trait Filler: Send {
    fn push(&mut self, raw: Option<&[u8]>) -> Read<()>;
    fn finish(&mut self) -> ArrayRef;
}

struct Primitives<T: ArrowPrimitiveType, F> {
    builder: PrimitiveBuilder<T>,
    read: F,
}

fn primitive<T: ArrowPrimitiveType>(
    kind: &Kind,
    read: impl Fn(&[u8]) -> Read<T::Native> + Send + 'static,
) -> Box<dyn Filler> {
    Box::new(Primitives { builder: PrimitiveBuilder::<T>::new().with_data_type(kind.data_type()), read })
}

impl<T: ArrowPrimitiveType, F: Fn(&[u8]) -> Read<T::Native> + Send> Filler for Primitives<T, F> {
    fn push(&mut self, raw: Option<&[u8]>) -> Read<()> {
        let value = raw.map(&self.read).transpose()?;
        self.builder.append_option(value);
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

struct Bools(BooleanBuilder);

impl Filler for Bools {
    fn push(&mut self, raw: Option<&[u8]>) -> Read<()> {
        self.0.append_option(raw.map(wire::bool_from_sql).transpose()?);
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

struct Bytes(BinaryBuilder);

impl Filler for Bytes {
    fn push(&mut self, raw: Option<&[u8]>) -> Read<()> {
        self.0.append_option(raw);
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

struct Texts {
    builder: StringBuilder,
    read: fn(&[u8], &mut StringBuilder) -> Read<()>,
}

impl Filler for Texts {
    fn push(&mut self, raw: Option<&[u8]>) -> Read<()> {
        match raw {
            Some(raw) => (self.read)(raw, &mut self.builder),
            None => {
                self.builder.append_null();
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

fn plain_text(raw: &[u8], into: &mut StringBuilder) -> Read<()> {
    into.append_value(std::str::from_utf8(raw)?);
    Ok(())
}

fn jsonb(raw: &[u8], into: &mut StringBuilder) -> Read<()> {
    match raw.split_first() {
        Some((1, text)) => plain_text(text, into),
        _ => Err("has a form of jsonb that is not known here".into()),
    }
}

fn uuid(raw: &[u8], into: &mut StringBuilder) -> Read<()> {
    for (at, byte) in wire::uuid_from_sql(raw)?.into_iter().enumerate() {
        let dash = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
        write!(into, "{dash}{byte:02x}")?;
    }
    into.append_value("");
    Ok(())
}

fn interval(raw: &[u8]) -> Read<IntervalMonthDayNano> {
    let (time, raw) = raw.split_first_chunk::<8>().ok_or(CUT)?;
    let (days, raw) = raw.split_first_chunk::<4>().ok_or(CUT)?;
    let months = raw.first_chunk::<4>().ok_or(CUT)?;
    let nanoseconds = i64::from_be_bytes(*time).checked_mul(1000).ok_or("holds an interval that Arrow has not")?;
    Ok(IntervalMonthDayNano::new(i32::from_be_bytes(*months), i32::from_be_bytes(*days), nanoseconds))
}

const CUT: &str = "holds a value that is cut off";

/// Reads a `numeric`: base-10,000 digits, the weight of the first, a sign, and a display scale.
fn numeric(raw: &[u8], precision: u8, scale: i8) -> Read<i128> {
    const NEGATIVE: u16 = 0x4000;
    const BEYOND: &str = "holds a number that is too large for the column's precision";
    let mut words = raw.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    let mut next = || words.next().ok_or(CUT);
    let (count, weight, sign, _) = (next()?, next()? as i16, next()?, next()?);
    if sign != 0 && sign != NEGATIVE {
        return Err(
            "holds `NaN` or `infinity`, which a decimal has not; leave such rows out, or make it text in a view".into(),
        );
    }
    let mut value = 0_i128;
    for _ in 0..count {
        let digit = i128::from(next()?);
        value = value.checked_mul(10_000).and_then(|value| value.checked_add(digit)).ok_or(BEYOND)?;
    }
    let shift = 4 * (i32::from(weight) - i32::from(count) + 1) + i32::from(scale);
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    let value = if value == 0 {
        0
    } else if shift >= 0 {
        power.and_then(|power| value.checked_mul(power)).ok_or(BEYOND)?
    } else {
        match power {
            Some(power) if value % power == 0 => value / power,
            _ => {
                return Err(format!(
                    "holds a number with more than {scale} decimals; give the column a scale, numeric(38, 20) say, there or in a view"
                )
                .into());
            }
        }
    };
    if !Decimal128Type::is_valid_decimal_precision(value, precision) {
        return Err(BEYOND.into());
    }
    Ok(if sign == NEGATIVE { -value } else { value })
}

struct Lists {
    field: FieldRef,
    values: Box<dyn Filler>,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Filler for Lists {
    fn push(&mut self, raw: Option<&[u8]>) -> Read<()> {
        let mut end = self.ends.last().copied().unwrap_or(0);
        match raw {
            None => self.nulls.append_null(),
            Some(raw) => {
                let array = wire::array_from_sql(raw)?;
                if array.dimensions().count()? > 1 {
                    return Err("holds an array of several dimensions; make it text, or unnest it, in a view".into());
                }
                let mut values = array.values();
                while let Some(value) = values.next()? {
                    self.values.push(value)?;
                    end = end.checked_add(1).ok_or("holds arrays that are too long for one batch")?;
                }
                self.nulls.append_non_null();
            }
        }
        self.ends.push(end);
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        let nulls = std::mem::replace(&mut self.nulls, NullBufferBuilder::new(0)).finish();
        let list = ListArray::new(self.field.clone(), offsets, self.values.finish(), nulls);
        debug_assert!(list.offsets().len() == list.len() + 1);
        Arc::new(list)
    }
}

/// A value as received.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Read<Self> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn numbers() {
        for (words, scale, expected) in [
            (vec![0, 0, 0, 0], 2, 0),
            (vec![2, 0, 0, 2, 12, 3400], 2, 1234),
            (vec![2, 0, 0x4000, 2, 12, 3400], 4, -123_400),
            (vec![1, 2, 0, 0, 1], 0, 100_000_000),
            (vec![1, 0xffff, 0, 4, 50], 4, 50),
        ] {
            assert_eq!(numeric(&raw(&words), 20, scale).unwrap(), expected, "{words:?}");
        }
        let fails = |words: &[u16], scale| numeric(&raw(words), 20, scale).unwrap_err().to_string();
        assert!(fails(&[2, 0, 0, 2, 12, 3400], 1).contains("more than 1 decimals"));
        assert!(fails(&[0, 0, 0xc000, 0], 1).contains("NaN"));
        assert!(fails(&[1, 20, 0, 0, 1], 0).contains("too large"));
        assert!(fails(&[1, 5, 0, 0, 1], 0).contains("too large"));
        assert!(fails(&[3, 0, 0, 0, 1], 0).contains("cut off"));
    }
}
