//! Sizes of values by content, regardless of memory that they share.

use datafusion::arrow::array::{
    Array, AsArray, BinaryViewArray, GenericListArray, Int64Array, LargeStringArray, OffsetSizeTrait, RecordBatch,
    StringArray, StringViewArray,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Int64Type, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ColumnarValue;

/// Returns the bytes of all values of `array`, as if each were written out.
pub(super) fn of_array(array: &dyn Array) -> u64 {
    let rows = array.len() as u64;
    match array.data_type() {
        DataType::Utf8 => rows * 4 + between(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => rows * 8 + between(array.as_string::<i64>().value_offsets()),
        DataType::Binary => rows * 4 + between(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => rows * 8 + between(array.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => rows * 16 + views(array.as_string_view().views()),
        DataType::BinaryView => rows * 16 + binary_views(array.as_binary_view()),
        DataType::List(_) => rows * 4 + of_list(array.as_list::<i32>()),
        DataType::LargeList(_) => rows * 8 + of_list(array.as_list::<i64>()),
        DataType::FixedSizeList(_, size) => {
            let (list, size) = (array.as_fixed_size_list(), usize::try_from(*size).unwrap_or(0));
            let (start, length) = (list.value_offset(0), list.len().saturating_mul(size));
            of_array(&list.values().slice(usize::try_from(start).unwrap_or(0), length))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (first, last) = ends(map.value_offsets());
            rows * 4 + of_array(&map.entries().slice(first, last - first))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| of_array(column.as_ref())).sum(),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let values = dictionary.values();
            if values.is_empty() {
                return rows * 8;
            }
            let each: Vec<u64> = (0..values.len()).map(|at| of_row(values.as_ref(), at)).collect();
            dictionary.normalized_keys().into_iter().map(|key| each.get(key).copied().unwrap_or(0)).sum()
        }
        other => match other.primitive_width() {
            Some(width) => rows * width as u64,
            None => array.get_array_memory_size() as u64,
        },
    }
}

/// Returns the bytes of all values of `batch`.
pub(super) fn of_batch(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| of_array(column.as_ref())).fold(0, u64::saturating_add)
}

/// Returns an upper bound of the bytes of the widest row of `batch`, which must have rows.
pub(super) fn widest_row(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| widest(column.as_ref())).fold(0, u64::saturating_add)
}

/// Returns the bytes of the largest value of `array`.
pub(super) fn widest(array: &dyn Array) -> u64 {
    match array.data_type() {
        DataType::Utf8 => 4 + longest(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => 8 + longest(array.as_string::<i64>().value_offsets()),
        DataType::Binary => 4 + longest(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => 8 + longest(array.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => 16 + longest_view(array.as_string_view().views()),
        DataType::BinaryView => 16 + longest_view(array.as_binary_view().views()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| widest(column.as_ref())).sum(),
        DataType::Dictionary(..) => {
            let values = array.as_any_dictionary().values();
            8 + if values.is_empty() { 0 } else { widest(values.as_ref()) }
        }
        DataType::List(item) if item.data_type().primitive_width().is_some() => {
            let width = item.data_type().primitive_width().unwrap_or(0) as u64;
            4 + longest(array.as_list::<i32>().value_offsets()).saturating_mul(width)
        }
        other => match other.primitive_width() {
            Some(width) => width as u64,
            None => (0..array.len()).map(|row| of_row(array, row)).max().unwrap_or(0),
        },
    }
}

fn longest<O: OffsetSizeTrait>(offsets: &[O]) -> u64 {
    offsets.windows(2).map(|ends| (ends[1].as_usize() - ends[0].as_usize()) as u64).max().unwrap_or(0)
}

fn longest_view(views: &[u128]) -> u64 {
    views.iter().map(|view| u64::from(*view as u32)).max().unwrap_or(0)
}

/// Returns the bytes of the value at `row`.
pub(super) fn of_row(array: &dyn Array, row: usize) -> u64 {
    of_array(&array.slice(row, 1))
}

fn of_list<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> u64 {
    let (first, last) = ends(list.value_offsets());
    of_array(&list.values().slice(first, last - first))
}

fn ends<O: OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => (first.as_usize(), last.as_usize()),
        _ => (0, 0),
    }
}

fn between<O: OffsetSizeTrait>(offsets: &[O]) -> u64 {
    let (first, last) = ends(offsets);
    (last - first) as u64
}

/// Returns the total length of `views`. A view begins with the length of its value.
fn views(views: &[u128]) -> u64 {
    views.iter().map(|view| u64::from(*view as u32)).sum()
}

fn binary_views(array: &BinaryViewArray) -> u64 {
    views(array.views())
}

/// Returns the bytes of `value`.
pub(super) fn of_scalar(value: &ScalarValue) -> u64 {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
            text.as_ref().map_or(0, String::len) as u64
        }
        ScalarValue::Binary(bytes)
        | ScalarValue::LargeBinary(bytes)
        | ScalarValue::BinaryView(bytes)
        | ScalarValue::FixedSizeBinary(_, bytes) => bytes.as_ref().map_or(0, Vec::len) as u64,
        ScalarValue::List(list) => of_array(list.as_ref()),
        ScalarValue::LargeList(list) => of_array(list.as_ref()),
        ScalarValue::FixedSizeList(list) => of_array(list.as_ref()),
        ScalarValue::Struct(fields) => of_array(fields.as_ref()),
        ScalarValue::Map(map) => of_array(map.as_ref()),
        ScalarValue::Dictionary(_, value) => of_scalar(value),
        other => other.data_type().primitive_width().unwrap_or_else(|| other.size()) as u64,
    }
}

/// Returns the bytes of a function's argument, over all of its `rows`.
pub(super) fn of_value(value: &ColumnarValue, rows: usize) -> u64 {
    match value {
        ColumnarValue::Array(array) => of_array(array.as_ref()),
        ColumnarValue::Scalar(scalar) => of_scalar(scalar).saturating_mul(rows as u64),
    }
}

/// Texts, one a row.
pub(super) enum Texts<'a> {
    Same(Option<&'a str>),
    Utf8(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
}

impl<'a> Texts<'a> {
    /// Returns `None` if the values are not texts.
    pub(super) fn of(value: &'a ColumnarValue) -> Option<Self> {
        match value {
            ColumnarValue::Array(array) => match array.data_type() {
                DataType::Utf8 => Some(Self::Utf8(array.as_string())),
                DataType::LargeUtf8 => Some(Self::Large(array.as_string())),
                DataType::Utf8View => Some(Self::View(array.as_string_view())),
                _ => None,
            },
            ColumnarValue::Scalar(scalar) => scalar.try_as_str().map(Self::Same),
        }
    }

    pub(super) fn at(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Same(text) => *text,
            Self::Utf8(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Large(array) => array.is_valid(row).then(|| array.value(row)),
            Self::View(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }

    /// Returns the bytes of the text at `row`; zero if the row has no text.
    pub(super) fn len(&self, row: usize) -> u64 {
        self.at(row).map_or(0, str::len) as u64
    }
}

/// Whole numbers, one a row.
pub(super) enum Numbers {
    Same(Option<i64>),
    Each(Int64Array),
}

impl Numbers {
    /// Returns `None` if the values are not whole numbers.
    pub(super) fn of(value: &ColumnarValue) -> Option<Self> {
        match value {
            ColumnarValue::Array(array) => whole(array.as_ref()).map(Self::Each),
            ColumnarValue::Scalar(scalar) => {
                let array = scalar.to_array().ok()?;
                let array = whole(array.as_ref())?;
                Some(Self::Same(array.is_valid(0).then(|| array.value(0))))
            }
        }
    }

    pub(super) fn at(&self, row: usize) -> Option<i64> {
        match self {
            Self::Same(number) => *number,
            Self::Each(numbers) => numbers.is_valid(row).then(|| numbers.value(row)),
        }
    }
}

fn whole(array: &dyn Array) -> Option<Int64Array> {
    match array.data_type() {
        DataType::UInt64 => {
            let numbers = array.as_primitive::<UInt64Type>();
            Some(numbers.iter().map(|number| number.map(|it| i64::try_from(it).unwrap_or(i64::MAX))).collect())
        }
        DataType::Null => Some(Int64Array::new_null(array.len())),
        of if of.is_numeric() || of.is_temporal() => {
            let options = CastOptions { safe: true, ..CastOptions::default() };
            let numbers = cast_with_options(array, &DataType::Int64, &options).ok()?;
            Some(numbers.as_primitive::<Int64Type>().clone())
        }
        _ => None,
    }
}

/// The lists of a value, one a row, with their numbers of items and of bytes.
pub(super) struct Lists<'a> {
    values: &'a ColumnarValue,
    same: Option<(u64, u64)>,
}

impl<'a> Lists<'a> {
    pub(super) fn of(values: &'a ColumnarValue) -> Self {
        let same = match values {
            ColumnarValue::Scalar(scalar) => Some(match scalar {
                ScalarValue::List(list) => items(list.as_ref(), 0),
                ScalarValue::LargeList(list) => items(list.as_ref(), 0),
                ScalarValue::FixedSizeList(list) => items(list.as_ref(), 0),
                ScalarValue::Null => (0, 0),
                other => (1, of_scalar(other)),
            }),
            ColumnarValue::Array(_) => None,
        };
        Self { values, same }
    }

    /// Returns the number of items of the list at `row`, and their bytes.
    pub(super) fn at(&self, row: usize) -> (u64, u64) {
        match (self.same, self.values) {
            (Some(same), _) => same,
            (None, ColumnarValue::Array(array)) => items(array.as_ref(), row),
            (None, ColumnarValue::Scalar(_)) => (0, 0),
        }
    }

    /// Returns the number of leaves of all lists: nested lists count by their contents.
    pub(super) fn leaves(&self, rows: usize) -> u64 {
        match self.values {
            ColumnarValue::Array(array) => leaves(array.as_ref()),
            ColumnarValue::Scalar(scalar) => {
                let once = match scalar {
                    ScalarValue::List(list) => leaves(list.as_ref()),
                    ScalarValue::LargeList(list) => leaves(list.as_ref()),
                    ScalarValue::FixedSizeList(list) => leaves(list.as_ref()),
                    _ => 1,
                };
                once.saturating_mul(rows as u64)
            }
        }
    }
}

fn items(array: &dyn Array, row: usize) -> (u64, u64) {
    if array.is_null(row) {
        return (0, 0);
    }
    let list = match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(row),
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => array.as_fixed_size_list().value(row),
        _ => return (1, of_row(array, row)),
    };
    (list.len() as u64, of_array(list.as_ref()))
}

fn leaves(array: &dyn Array) -> u64 {
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (first, last) = ends(list.value_offsets());
            leaves(&list.values().slice(first, last - first))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let (first, last) = ends(list.value_offsets());
            leaves(&list.values().slice(first, last - first))
        }
        DataType::FixedSizeList(..) => leaves(array.as_fixed_size_list().values()),
        _ => array.len() as u64,
    }
}
