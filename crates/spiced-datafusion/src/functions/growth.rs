//! The result size of each function relative to its arguments. A test checks that every registered function is listed
//! here, so that a new one is classified before it can be called.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ColumnarValue;
use regex::Regex;

use super::sizes::{self, Lists, Numbers, Texts};

/// The upper bound on the size of a scalar function's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// A value of fixed size, or no new value: each row has at most 256 bytes. The arguments are read as they are.
    Fixed,
    /// Like [`Fixed`](Self::Fixed), but constants are written out for every row first.
    Spread,
    /// This multiple of the size of all arguments, with constants written out for every row.
    Times(u64),
    /// The text, repeated.
    Repeat,
    /// The text, padded to a length.
    Pad,
    /// Each match in the text is replaced.
    Replace,
    /// Each match of a pattern in the text is replaced by a text that may name its groups.
    RegexpReplace,
    /// The text once for each group of the pattern.
    RegexpMatch,
    /// The items of a list as texts, joined by a separator.
    Join,
    /// A time, formatted by a given format.
    Format,
    /// The value, repeated.
    ArrayRepeat,
    /// The list, padded to a length.
    ArrayResize,
    /// A range of numbers or times.
    Series,
    /// Zipped lists, all as long as the longest.
    Zip,
    /// Items of a list are replaced.
    ArrayReplace,
    /// A number, but the work is the product of both lengths.
    Product,
    /// A value of another type; the planner writes it as a cast. Only its type is checked.
    Cast,
}

use Growth::{
    ArrayRepeat, ArrayReplace, ArrayResize, Cast, Fixed, Format, Join, Pad, Product, RegexpMatch, RegexpReplace,
    Repeat, Replace, Series, Spread, Times, Zip,
};

/// All scalar functions by name.
const SCALAR: &[(&[&str], Growth)] = &[
    (
        &[
            "abs",
            "acos",
            "acosh",
            "asin",
            "asinh",
            "atan",
            "atan2",
            "atanh",
            "cbrt",
            "ceil",
            "cos",
            "cosh",
            "cot",
            "degrees",
            "exp",
            "factorial",
            "floor",
            "gcd",
            "isnan",
            "iszero",
            "lcm",
            "ln",
            "log",
            "log10",
            "log2",
            "nanvl",
            "pi",
            "power",
            "radians",
            "random",
            "round",
            "signum",
            "sin",
            "sinh",
            "sqrt",
            "tan",
            "tanh",
            "trunc",
        ],
        Fixed,
    ),
    (
        &[
            "current_date",
            "current_time",
            "date_bin",
            "date_part",
            "date_trunc",
            "from_unixtime",
            "make_date",
            "make_time",
            "now",
            "to_date",
            "to_local_time",
            "to_time",
            "to_timestamp",
            "to_timestamp_micros",
            "to_timestamp_millis",
            "to_timestamp_nanos",
            "to_timestamp_seconds",
            "to_unixtime",
        ],
        Fixed,
    ),
    (
        &[
            "arrow_field",
            "arrow_metadata",
            "arrow_typeof",
            "ascii",
            "bit_length",
            "character_length",
            "chr",
            "contains",
            "digest",
            "ends_with",
            "file_row_index",
            "find_in_set",
            "input_file_name",
            "md5",
            "octet_length",
            "sha224",
            "sha256",
            "sha384",
            "sha512",
            "starts_with",
            "to_hex",
            "union_tag",
            "uuid",
            "version",
        ],
        Fixed,
    ),
    (&["array_dims", "array_ndims", "cardinality", "empty"], Fixed),
    (
        &[
            "array_distance",
            "cosine_distance",
            "inner_product",
            "strpos",
            "regexp_count",
            "regexp_instr",
            "regexp_like",
            "similar_to",
            "array_has",
            "array_has_all",
            "array_has_any",
            "array_position",
            "array_length",
            "array_sum",
            "array_product",
            "array_avg",
            "map_contains_key",
        ],
        Spread,
    ),
    (&["levenshtein"], Product),
    // Parts of texts, and concatenations. A letter has up to three times the bytes in the other case.
    (&["btrim", "left", "ltrim", "right", "rtrim", "split_part", "substr", "substr_index"], Times(1)),
    (&["concat", "concat_ws", "overlay", "reverse"], Times(2)),
    (&["initcap", "lower", "upper"], Times(3)),
    (&["translate"], Times(4)),
    (&["decode", "encode"], Times(2)),
    (&["repeat"], Repeat),
    (&["lpad", "rpad"], Pad),
    (&["replace"], Replace),
    (&["regexp_replace"], RegexpReplace),
    (&["regexp_match"], RegexpMatch),
    (&["to_char"], Format),
    // One of the arguments, or all arguments in one value.
    (
        &[
            "coalesce",
            "get_field",
            "greatest",
            "least",
            "named_struct",
            "nullif",
            "nvl",
            "nvl2",
            "struct",
            "union_extract",
            "with_metadata",
        ],
        Times(1),
    ),
    (&["arrow_cast", "arrow_try_cast", "cast_to_type", "try_cast_to_type"], Cast),
    // Lists that hold the contents of the arguments.
    (
        &[
            "array_any_value",
            "array_append",
            "array_compact",
            "array_concat",
            "array_distinct",
            "array_element",
            "array_except",
            "array_first",
            "array_intersect",
            "array_max",
            "array_min",
            "array_pop_back",
            "array_pop_front",
            "array_positions",
            "array_prepend",
            "array_remove",
            "array_remove_all",
            "array_remove_n",
            "array_reverse",
            "array_slice",
            "array_sort",
            "array_union",
            "flatten",
            "make_array",
            "map",
            "map_entries",
            "map_extract",
            "map_keys",
            "map_values",
        ],
        Times(2),
    ),
    (&["array_add", "array_normalize", "array_scale", "array_subtract"], Times(2)),
    // Each letter may be an item, with its offset.
    (&["string_to_array"], Times(24)),
    (&["array_to_string"], Join),
    (&["array_repeat"], ArrayRepeat),
    (&["array_resize"], ArrayResize),
    (&["range", "generate_series"], Series),
    (&["arrays_zip"], Zip),
    (&["array_replace", "array_replace_all", "array_replace_n"], ArrayReplace),
];

/// Returns the class of the scalar function `name`; `None` if it is unclassified.
pub(super) fn of(name: &str) -> Option<Growth> {
    SCALAR.iter().find(|(names, _)| names.contains(&name)).map(|(_, growth)| *growth)
}

/// The class assumed for an unclassified function.
pub(super) const UNKNOWN: Growth = Times(4);

/// The bytes of a fixed-size value, including the overhead of a list or a text.
const SIZED: u64 = 16;
/// The maximum length of a number or a time as text.
const MAX_NUMBER: u64 = 96;
/// The maximum output of one format letter: `%c` is a whole date.
const FORM: u64 = 20;
/// The number of steps of work that count as one byte.
const STEPS: u64 = 64;

/// The estimated size of a call's result, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Estimate {
    /// The size of its largest value.
    pub(super) value: u64,
    /// The total size.
    pub(super) total: u64,
}

impl Estimate {
    fn of(total: u64) -> Self {
        Self { value: 0, total }
    }

    fn add(&mut self, value: u64) {
        self.value = self.value.max(value);
        self.total = self.total.saturating_add(value).saturating_add(SIZED);
    }

    fn each(rows: usize, of_row: impl FnMut(usize) -> u64) -> Self {
        let mut sum = Self::default();
        (0..rows).map(of_row).for_each(|value| sum.add(value));
        sum
    }
}

/// Returns the maximum size of the result of a function of the class `growth` over `args`, for `rows` rows.
///
/// A cheap estimate is made first, and a more careful one only if it exceeds `enough`.
pub(super) fn estimate(growth: Growth, args: &[ColumnarValue], rows: usize, enough: u64) -> Estimate {
    // A function of constants is called once, whatever the number of rows.
    let rows = if args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) { 1 } else { rows };
    let spread =
        |args: &[ColumnarValue]| args.iter().fold(0_u64, |sum, arg| sum.saturating_add(sizes::of_value(arg, rows)));
    match (growth, args) {
        (Fixed | Cast, _) => Estimate::default(),
        (Spread, args) if rows > 1 => {
            let constants = args.iter().filter(|arg| matches!(arg, ColumnarValue::Scalar(_)));
            Estimate::of(constants.map(|arg| sizes::of_value(arg, rows)).fold(0, u64::saturating_add))
        }
        (Spread, _) => Estimate::default(),
        (Times(times), args) => {
            let total = spread(args).saturating_mul(times);
            let value = if rows == 1 { total } else { 0 };
            Estimate { value, total: total.saturating_add(SIZED * rows as u64) }
        }
        (Repeat, [text, times]) => match (Texts::of(text), Numbers::of(times)) {
            (Some(text), Some(times)) => Estimate::each(rows, |row| {
                text.len(row).saturating_mul(times.at(row).and_then(|times| u64::try_from(times).ok()).unwrap_or(0))
            }),
            _ => Estimate::of(spread(args)),
        },
        (Pad, [text, length, fill @ ..]) => pad(text, length, fill.first(), rows),
        (Replace, [text, from, to]) => replace(text, from, to, rows, enough),
        (RegexpReplace, [text, pattern, to, flags @ ..]) => {
            regexp_replace(text, pattern, to, flags.first(), rows, enough)
        }
        (RegexpMatch, [text, pattern, ..]) => match (Texts::of(text), Texts::of(pattern)) {
            (Some(text), Some(pattern)) => Estimate::each(rows, |row| {
                let groups = pattern.at(row).map_or(0, |it| it.matches('(').count()) as u64;
                text.len(row).saturating_mul(groups.max(1)).saturating_add(groups * SIZED)
            }),
            _ => Estimate::of(spread(args)),
        },
        (Join, [list, between, null @ ..]) => {
            let (lists, leaves) = (sizes::of_value(list, rows), Lists::of(list).leaves(rows));
            let longest = |text: Option<&ColumnarValue>| {
                let texts = text.and_then(Texts::of);
                texts.map_or(0, |texts| (0..rows).map(|row| texts.len(row)).max().unwrap_or(0))
            };
            let item = longest(Some(between)).saturating_add(longest(null.first())).saturating_add(MAX_NUMBER);
            let total = lists.saturating_add(leaves.saturating_mul(item));
            Estimate { value: if rows == 1 { total } else { 0 }, total }
        }
        (Format, [_, form]) => match Texts::of(form) {
            Some(form) => Estimate::each(rows, |row| form.len(row).saturating_mul(FORM).saturating_add(MAX_NUMBER)),
            None => Estimate::of(MAX_NUMBER * rows as u64),
        },
        (ArrayRepeat, [value, times]) => match Numbers::of(times) {
            Some(times) => Estimate::each(rows, |row| {
                // Each item also has an index in a list of indices.
                let (leaves, bytes) = row_of(value, row);
                let once = bytes.saturating_add(SIZED).saturating_add(leaves.saturating_mul(8));
                once.saturating_mul(times.at(row).and_then(|times| u64::try_from(times).ok()).unwrap_or(0))
            }),
            None => Estimate::of(spread(args)),
        },
        (ArrayResize, [list, length, fill @ ..]) => match Numbers::of(length) {
            Some(length) => {
                let lists = Lists::of(list);
                Estimate::each(rows, |row| {
                    let (items, bytes) = lists.at(row);
                    let wanted = length.at(row).and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
                    let fill = fill.first().map_or(0, |fill| row_of(fill, row).1);
                    let more = wanted.saturating_sub(items).saturating_mul(fill.saturating_add(SIZED));
                    bytes.saturating_add(more)
                })
            }
            None => Estimate::of(spread(args)),
        },
        (Series, args) => series(args, rows),
        (Zip, args) => {
            let lists: Vec<Lists<'_>> = args.iter().map(Lists::of).collect();
            Estimate::each(rows, |row| {
                let each = lists.iter().map(|list| list.at(row));
                let (longest, bytes) =
                    each.fold((0, 0_u64), |(most, sum), (items, bytes)| (most.max(items), sum.saturating_add(bytes)));
                bytes.saturating_add(longest.saturating_mul(lists.len() as u64).saturating_mul(SIZED))
            })
        }
        (ArrayReplace, [list, _, to, ..]) => {
            let lists = Lists::of(list);
            Estimate::each(rows, |row| {
                let (items, bytes) = lists.at(row);
                bytes.saturating_add(items.saturating_mul(row_of(to, row).1))
            })
        }
        (Product, [one, other]) => match (Texts::of(one), Texts::of(other)) {
            (Some(one), Some(other)) => Estimate::each(rows, |row| one.len(row).saturating_mul(other.len(row)) / STEPS),
            _ => Estimate::of(spread(args)),
        },
        // The number of arguments is wrong, which the function itself reports.
        _ => Estimate::of(spread(args)),
    }
}

/// Returns the number of items in one row of `value`, and their bytes.
fn row_of(value: &ColumnarValue, row: usize) -> (u64, u64) {
    match value {
        ColumnarValue::Array(array) => (Lists::of(value).at(row).0, sizes::of_row(array.as_ref(), row)),
        ColumnarValue::Scalar(scalar) => (Lists::of(value).at(row).0, sizes::of_scalar(scalar)),
    }
}

/// Up to this length, the functions allocate the space for every row regardless of its contents.
const SET_ASIDE: u64 = 16_384;

fn pad(text: &ColumnarValue, length: &ColumnarValue, fill: Option<&ColumnarValue>, rows: usize) -> Estimate {
    let (Some(text), Some(length)) = (Texts::of(text), Numbers::of(length)) else {
        return Estimate::default();
    };
    let blank = ColumnarValue::Scalar(ScalarValue::Utf8(Some(" ".to_owned())));
    let Some(fill) = Texts::of(fill.unwrap_or(&blank)) else { return Estimate::default() };
    Estimate::each(rows, |row| {
        let wanted = length.at(row).and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
        let fill = fill.at(row).unwrap_or("");
        let letter = if fill.is_ascii() { 1 } else { 4 };
        let filled = if fill.is_empty() && wanted > SET_ASIDE { 0 } else { wanted.saturating_mul(letter) };
        text.len(row).saturating_add(filled)
    })
}

fn replace(text: &ColumnarValue, from: &ColumnarValue, to: &ColumnarValue, rows: usize, enough: u64) -> Estimate {
    let (Some(text), Some(from), Some(to)) = (Texts::of(text), Texts::of(from), Texts::of(to)) else {
        return Estimate::default();
    };
    let with = |matches: &dyn Fn(&str, &str) -> u64| {
        Estimate::each(rows, |row| {
            let (text, from) = (text.at(row).unwrap_or(""), from.at(row).unwrap_or(""));
            matches(text, from).saturating_mul(to.len(row)).saturating_add(text.len() as u64)
        })
    };
    let most = with(&|text, from| text.len() as u64 / from.len().max(1) as u64 + 1);
    if most.total <= enough { most } else { with(&|text, from| text.matches(from).count() as u64) }
}

fn regexp_replace(
    text: &ColumnarValue,
    pattern: &ColumnarValue,
    to: &ColumnarValue,
    flags: Option<&ColumnarValue>,
    rows: usize,
    enough: u64,
) -> Estimate {
    let (Some(text), Some(pattern), Some(to)) = (Texts::of(text), Texts::of(pattern), Texts::of(to)) else {
        return Estimate::default();
    };
    let flags = flags.and_then(Texts::of);
    let flags = |row| flags.as_ref().and_then(|flags| flags.at(row)).unwrap_or("");
    let with = |matches: &mut dyn FnMut(&str, usize) -> u64| {
        Estimate::each(rows, |row| {
            let (text, to) = (text.at(row).unwrap_or(""), to.at(row).unwrap_or(""));
            let matches = if flags(row).contains('g') { matches(text, row) } else { 1 };
            // Matches do not overlap, so each reference to a group adds the text at most once.
            let mentions = to.bytes().filter(|letter| matches!(letter, b'$' | b'\\')).count() as u64;
            let (length, to) = (text.len() as u64, to.len() as u64);
            length.saturating_add(matches.saturating_mul(to)).saturating_add(mentions.saturating_mul(length))
        })
    };
    let most = with(&mut |text, _| text.len() as u64 + 1);
    if most.total <= enough {
        return most;
    }
    let mut last: Option<(String, Option<Regex>)> = None;
    with(&mut |text, row| {
        let flags: String = flags(row).chars().filter(|flag| *flag != 'g').collect();
        let pattern = pattern.at(row).unwrap_or("");
        let pattern = if flags.is_empty() { pattern.to_owned() } else { format!("(?{flags}){pattern}") };
        if last.as_ref().is_none_or(|(known, _)| *known != pattern) {
            let regex = Regex::new(&pattern).ok();
            last = Some((pattern, regex));
        }
        // The function itself reports an invalid pattern.
        last.as_ref().and_then(|(_, regex)| regex.as_ref()).map_or(0, |regex| regex.find_iter(text).count() as u64)
    })
}

fn series(args: &[ColumnarValue], rows: usize) -> Estimate {
    let bounds = match args {
        [stop] => (None, stop, None),
        [start, stop] => (Some(start), stop, None),
        [start, stop, step] => (Some(start), stop, Some(step)),
        _ => return Estimate::default(),
    };
    let (start, stop, step) = bounds;
    let start = start.map_or(Some(Numbers::Same(Some(0))), Numbers::of);
    let (Some(start), Some(stop)) = (start, Numbers::of(stop)) else { return Estimate::default() };
    let unit = args.first().map_or(1, |arg| unit(&arg.data_type()));
    Estimate::each(rows, |row| {
        let (Some(start), Some(stop)) = (start.at(row), stop.at(row)) else { return 0 };
        let step = match step {
            None => Some(1),
            Some(step) => steps(step, row),
        };
        let length = u128::from(start.abs_diff(stop)).saturating_mul(unit);
        // A reversed range is empty; a zero step is an error.
        let forwards = stop >= start;
        let step = match step {
            Some(step) if step == 0 || (step > 0) != forwards => return SIZED,
            Some(step) => step,
            None => 1,
        };
        let items = (length / step.unsigned_abs()).saturating_add(1);
        u64::try_from(items.saturating_mul(8)).unwrap_or(u64::MAX)
    })
}

/// Returns the nanoseconds in one unit of a time type; 1 for a number.
fn unit(of: &DataType) -> u128 {
    match of {
        DataType::Date32 => 86_400_000_000_000,
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        _ => 1,
    }
}

/// Returns the step at `row`, in nanoseconds for an interval. Months count as their shortest length, so that the number
/// of items is not underestimated. Returns `None` if the parts of an interval have different signs: its size and
/// direction are then unknown.
fn steps(step: &ColumnarValue, row: usize) -> Option<i128> {
    const DAY: i128 = 86_400_000_000_000;
    let number = || Some(Numbers::of(step).and_then(|step| step.at(row)).map_or(0, i128::from));
    let interval = match step {
        ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(interval)) => *interval,
        ColumnarValue::Scalar(_) => return number(),
        ColumnarValue::Array(array) => match array.as_primitive_opt::<IntervalMonthDayNanoType>() {
            Some(array) => array.is_valid(row).then(|| array.value(row)),
            None => return number(),
        },
    };
    let Some(interval) = interval else { return Some(0) };
    let parts =
        [i128::from(interval.months) * 28 * DAY, i128::from(interval.days) * DAY, i128::from(interval.nanoseconds)];
    let both_ways = parts.iter().any(|part| *part > 0) && parts.iter().any(|part| *part < 0);
    (!both_ways).then(|| parts.iter().sum())
}

/// All aggregate functions, and whether their state for a group grows with the rows of the group. Those that grow
/// report it by `Accumulator::size`, and the total memory limit bounds them.
#[cfg(test)]
const AGGREGATE: &[(&[&str], bool)] = &[
    (
        &[
            "approx_distinct",
            "approx_median",
            "approx_percentile_cont",
            "approx_percentile_cont_with_weight",
            "avg",
            "bit_and",
            "bit_or",
            "bit_xor",
            "bool_and",
            "bool_or",
            "corr",
            "count",
            "covar_pop",
            "covar_samp",
            "grouping",
            "regr_avgx",
            "regr_avgy",
            "regr_count",
            "regr_intercept",
            "regr_r2",
            "regr_slope",
            "regr_sxx",
            "regr_sxy",
            "regr_syy",
            "stddev",
            "stddev_pop",
            "sum",
            "var",
            "var_pop",
        ],
        false,
    ),
    (&["any_value", "first_value", "last_value", "max", "min"], false),
    (&["array_agg", "median", "nth_value", "percentile_cont", "string_agg"], true),
];

/// All window functions: each produces one value per row, from that row or from another one.
#[cfg(test)]
const WINDOW: &[&str] = &[
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// All table functions: each produces its rows batch by batch, on demand.
#[cfg(test)]
const TABLE: &[&str] = &["generate_series", "range"];

/// All higher-order functions: each calls its function arguments with the items of a list.
#[cfg(test)]
const HIGHER_ORDER: &[&str] = &["array_any_match", "array_filter", "array_first", "array_transform"];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array, LargeStringArray, StringArray};
    use datafusion::prelude::SessionContext;

    use super::*;

    #[test]
    fn every_function_has_a_class() {
        let state = SessionContext::new().state();
        let missing = |known: &dyn Fn(&str) -> bool, names: Vec<&str>| {
            names.into_iter().filter(|name| !known(name)).map(str::to_owned).collect::<Vec<_>>()
        };
        let scalar = state.scalar_functions().values().map(|function| function.name()).collect();
        assert_eq!(missing(&|name| of(name).is_some(), scalar), [""; 0], "scalar functions");
        let aggregate = state.aggregate_functions().values().map(|function| function.name()).collect();
        let is_known = |name: &str| AGGREGATE.iter().any(|(names, _)| names.contains(&name));
        assert_eq!(missing(&is_known, aggregate), [""; 0], "aggregate functions");
        let window = state.window_functions().values().map(|function| function.name()).collect();
        assert_eq!(missing(&|name| WINDOW.contains(&name), window), [""; 0], "window functions");
        let table = state.table_functions().keys().map(String::as_str).collect();
        assert_eq!(missing(&|name| TABLE.contains(&name), table), [""; 0], "table functions");
        let higher = state.higher_order_functions().values().map(|function| function.name()).collect();
        assert_eq!(missing(&|name| HIGHER_ORDER.contains(&name), higher), [""; 0], "functions of functions");
    }

    fn text(text: &str) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Utf8(Some(text.to_owned())))
    }

    fn number(number: i64) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(number)))
    }

    fn list(items: i64) -> ColumnarValue {
        let items: Vec<ScalarValue> = (0..items).map(|item| ScalarValue::Int64(Some(item))).collect();
        ColumnarValue::Scalar(ScalarValue::List(ScalarValue::new_list_nullable(&items, &DataType::Int64)))
    }

    #[test]
    fn what_calls_would_make() {
        let step = |months, days, nanoseconds| {
            let interval = datafusion::arrow::datatypes::IntervalMonthDayNano::new(months, days, nanoseconds);
            ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(interval)))
        };
        let time = |seconds: i64| ColumnarValue::Scalar(ScalarValue::TimestampSecond(Some(seconds), None));
        let million = 1_000_000;
        for (growth, args, least, most) in [
            (Repeat, vec![text("abc"), number(million)], 3_000_000, 3_000_000),
            (Repeat, vec![text("abc"), number(i64::MAX)], u64::MAX, u64::MAX),
            (Repeat, vec![text("abc"), number(-1)], 0, 0),
            (Pad, vec![text("abc"), number(million)], 1_000_000, 1_000_003),
            (Pad, vec![text("abc"), number(million), text("ü")], 4_000_000, 4_000_003),
            (Pad, vec![text("abc"), number(million), text("")], 3, 3),
            (Pad, vec![text("abc"), number(-3)], 3, 3),
            (Replace, vec![text("aaaa"), text("a"), text("0123456789")], 40, 60),
            (RegexpReplace, vec![text("aaaa"), text("a"), text("0123456789"), text("g")], 40, 60),
            (RegexpReplace, vec![text("aaaa"), text("(.*)"), text("\\1\\1\\1")], 12, 24),
            (RegexpMatch, vec![text("aaaa"), text("((((.*))))")], 16, 100),
            (ArrayRepeat, vec![list(10), number(million)], 80_000_000, 300_000_000),
            (ArrayResize, vec![list(10), number(million)], 8_000_000, 20_000_000),
            (ArrayResize, vec![list(10), number(-1)], 80, 100),
            (Series, vec![number(million)], 8_000_000, 8_000_010),
            (Series, vec![number(0), number(million), number(1_000)], 8_000, 8_010),
            (Series, vec![number(0), number(million), number(-1)], 0, 16),
            (Series, vec![number(i64::MIN), number(i64::MAX)], u64::MAX, u64::MAX),
            (Series, vec![time(0), time(86_400), step(0, 0, 1)], 691_200_000_000_008, 691_200_000_000_010),
            (Series, vec![time(0), time(86_400), step(0, 1, 0)], 8, 16),
            (Series, vec![time(0), time(86_400), step(1, -31, 1)], 691_200_000_000_000, u64::MAX),
            (Join, vec![list(10), text("0123456789")], 100, 2_000),
            (Zip, vec![list(10), list(1)], 80, 500),
            (ArrayReplace, vec![list(10), number(1), text(&"x".repeat(100))], 1_000, 1_100),
            (Product, vec![text(&"x".repeat(1_000)), text(&"x".repeat(1_000))], 10_000, 20_000),
            (Times(2), vec![text("abc"), text("def")], 12, 12),
        ] {
            let made = estimate(growth, &args, 1, u64::MAX);
            assert!((least..=most).contains(&made.value), "{growth:?} {args:?}: {made:?}");
        }
    }

    #[test]
    fn a_close_look_where_the_first_is_too_much() {
        let (from, to) = (text("b"), text(&"0".repeat(1_000)));
        let long = text(&format!("b{}", "a".repeat(1_000)));
        for growth in [Replace, RegexpReplace] {
            let mut args = vec![long.clone(), from.clone(), to.clone()];
            if growth == RegexpReplace {
                args.push(text("g"));
            }
            assert!(estimate(growth, &args, 1, u64::MAX).value > 1_000_000, "{growth:?}");
            assert!(estimate(growth, &args, 1, 10_000).value < 10_000, "{growth:?}");
        }
    }

    #[test]
    fn constants_count_for_every_row() {
        let rows: ArrayRef = Arc::new(StringArray::from(vec!["a"; 1_000]));
        let large: ArrayRef = Arc::new(LargeStringArray::from(vec!["a"; 1_000]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![10; 1_000]));
        let constant = text(&"x".repeat(1_000));
        let beside = [ColumnarValue::Array(rows.clone()), constant.clone()];
        assert!(estimate(Times(1), &beside, 1_000, u64::MAX).total > 1_000_000);
        assert_eq!(estimate(Spread, &beside, 1_000, u64::MAX).total, 1_000_000);
        assert_eq!(estimate(Fixed, &beside, 1_000, u64::MAX).total, 0);
        for rows in [rows, large] {
            let made = estimate(Repeat, &[ColumnarValue::Array(rows), ColumnarValue::Array(counts.clone())], 1_000, 0);
            assert_eq!((made.value, made.total), (10, 26_000));
        }
        assert_eq!(estimate(Repeat, &[constant, ColumnarValue::Array(counts)], 1_000, 0).total, 10_016_000);
    }
}
