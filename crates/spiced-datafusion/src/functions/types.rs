//! Limits on types whose values are very large, or that nest too deeply.

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::error::{DataFusionError, Result};
use spiced_engine::ErrorKind;

use super::bounds::readable;
use crate::error::refusal;

/// The maximum size of a type's values in bytes, apart from their content; a null takes as much.
const WIDEST: u64 = 64 << 10;
/// The maximum nesting depth of a type.
const MAX_DEPTH: usize = 100;
/// The maximum length of a type's name, in bytes.
const MAX_NAME: usize = 4 << 10;

/// Checks a type that a statement names.
///
/// # Errors
/// Fails if each value of the type would be very large, or if the type nests too deeply.
pub(super) fn check(of: &DataType) -> Result<()> {
    let width = width(of, 0)?;
    if width <= WIDEST { Ok(()) } else { Err(too_wide(width)) }
}

/// Returns the size of each value in bytes, whatever its content.
fn width(of: &DataType, depth: usize) -> Result<u64> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    let of_field = |field: &Field| width(field.data_type(), depth + 1);
    Ok(match of {
        DataType::FixedSizeBinary(size) => u64::try_from(*size).unwrap_or(0),
        DataType::FixedSizeList(item, size) => of_field(item)?.max(1).saturating_mul(u64::try_from(*size).unwrap_or(0)),
        DataType::Struct(fields) => {
            let mut sum = 0_u64;
            for field in fields {
                sum = sum.saturating_add(of_field(field)?);
            }
            sum
        }
        DataType::Union(fields, _) => {
            let mut sum = 0_u64;
            for (_, field) in fields.iter() {
                sum = sum.saturating_add(of_field(field)?);
            }
            sum
        }
        // The content of these types comes with the values, but each item may be a null.
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::Map(item, _) => match of_field(item)? {
            item if item > WIDEST => item,
            _ => 16,
        },
        DataType::Dictionary(key, value) => {
            width(value, depth + 1)?;
            width(key, depth + 1)?
        }
        DataType::RunEndEncoded(_, values) => of_field(values)?,
        other => other.primitive_width().unwrap_or(16) as u64,
    })
}

/// Checks the name of a type before it is parsed, because the parser is recursive.
///
/// # Errors
/// Fails if the name is too long or nests too deeply.
pub(super) fn check_name(name: &str) -> Result<()> {
    let mut depth = 0_usize;
    for letter in name.bytes() {
        match letter {
            b'(' | b'<' | b'[' => depth += 1,
            b')' | b'>' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
    }
    if name.len() > MAX_NAME {
        let why = format!("the name of a type has {} bytes; the most is {MAX_NAME}", name.len());
        return Err(refusal(ErrorKind::InvalidStatement, why));
    }
    Ok(())
}

fn too_wide(width: u64) -> DataFusionError {
    let [width, most] = [width, WIDEST].map(readable);
    refusal(ErrorKind::InvalidStatement, format!("each value of the type would have {width}; the most is {most}"))
}

fn too_deep() -> DataFusionError {
    refusal(ErrorKind::InvalidStatement, format!("the type nests more than {MAX_DEPTH} levels deep"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn list(item: DataType, size: i32) -> DataType {
        DataType::FixedSizeList(Arc::new(Field::new_list_field(item, true)), size)
    }

    #[test]
    fn wide_types_are_refused() {
        for of in [
            DataType::FixedSizeBinary(i32::MAX),
            DataType::FixedSizeBinary(65_537),
            list(DataType::Int64, i32::MAX),
            list(list(DataType::Int64, i32::MAX), i32::MAX),
            list(list(DataType::Int8, 1_000), 1_000),
            list(DataType::Null, i32::MAX),
            DataType::List(Arc::new(Field::new_list_field(list(DataType::Int64, i32::MAX), true))),
            DataType::Struct(vec![Field::new("a", DataType::FixedSizeBinary(60_000), true); 2].into()),
        ] {
            assert!(check(&of).is_err(), "{of}");
        }
        for of in [DataType::Int64, DataType::FixedSizeBinary(65_536), list(DataType::Float32, 4_096)] {
            assert!(check(&of).is_ok(), "{of}");
        }
    }

    #[test]
    fn deep_types_and_long_names_are_refused() {
        let deep = (0..200).fold(DataType::Int64, |of, _| DataType::List(Arc::new(Field::new_list_field(of, true))));
        assert!(check(&deep).is_err());
        let nested = |n: usize| format!("{}Int64{}", "List(".repeat(n), ")".repeat(n));
        assert!(check_name(&nested(50)).is_ok() && check_name(&nested(101)).is_err());
        assert!(check_name(&"x".repeat(5_000)).is_err());
        assert!(check_name("Struct(\"a\": Int64, \"b\": List(Utf8))").is_ok());
    }
}
