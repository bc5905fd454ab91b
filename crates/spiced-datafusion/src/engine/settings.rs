//! Which settings `SET` may change: those that shape the caller's own results. Settings that limit the caller (memory,
//! spill space, depth, parallelism) or name paths on the host are left to the operator.

use spiced_engine::{EngineError, ErrorKind};

/// Settings that accept any value, by prefix.
const FREE: &[&str] = &[
    "datafusion.explain.",
    "datafusion.format.",
    "datafusion.optimizer.",
    "datafusion.sql_parser.dialect",
    "datafusion.sql_parser.enable_ident_normalization",
    "datafusion.sql_parser.parse_float_as_decimal",
    "datafusion.sql_parser.default_null_ordering",
    "datafusion.sql_parser.map_string_types_to_utf8view",
    "datafusion.sql_parser.support_varchar_with_length",
    "datafusion.execution.time_zone",
    "datafusion.execution.enable_ansi_mode",
    "datafusion.execution.collect_statistics",
    "datafusion.catalog.default_catalog",
    "datafusion.catalog.default_schema",
    "datafusion.catalog.has_header",
];

/// Settings that accept a number up to a bound.
const BOUNDED: &[(&str, u64)] =
    &[("datafusion.execution.batch_size", 65_536), ("datafusion.execution.target_partitions", 256)];

/// Checks whether `variable` may be set to `value`; `None` means `RESET`.
///
/// # Errors
/// Fails if the setting or the value is not permitted.
pub(crate) fn check(variable: &str, value: Option<&str>) -> Result<(), EngineError> {
    let variable = variable.to_ascii_lowercase();
    if FREE.iter().any(|free| if free.ends_with('.') { variable.starts_with(free) } else { variable == *free }) {
        return Ok(());
    }
    let denied = |why: String| Err(EngineError::new(ErrorKind::Denied, why));
    match (BOUNDED.iter().find(|(name, _)| *name == variable), value) {
        (Some(_), None) => Ok(()),
        (Some((_, most)), Some(value)) => match value.trim().parse::<u64>() {
            Ok(number) if (1..=*most).contains(&number) => Ok(()),
            _ => denied(format!("`{variable}` may be set from 1 to {most}")),
        },
        (None, _) => denied(format!("`{variable}` is not for a session to set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bounds_the_caller_stays() {
        for (variable, value, allowed) in [
            ("datafusion.execution.time_zone", Some("+01:00"), true),
            ("datafusion.optimizer.prefer_hash_join", Some("false"), true),
            ("datafusion.execution.batch_size", Some("100"), true),
            ("datafusion.execution.batch_size", None, true),
            ("datafusion.execution.batch_size", Some("0"), false),
            ("datafusion.execution.batch_size", Some("1000000000"), false),
            ("datafusion.execution.target_partitions", Some("99999999"), false),
            ("datafusion.runtime.memory_limit", Some("100G"), false),
            ("datafusion.runtime.memory_limit", None, false),
            ("DataFusion.Runtime.temp_directory", Some("/etc"), false),
            ("datafusion.sql_parser.recursion_limit", Some("1000000"), false),
            ("datafusion.catalog.location", Some("/etc"), false),
            ("datafusion.execution.time_zone_of_mine", Some("x"), false),
            ("nonsense", Some("x"), false),
        ] {
            assert_eq!(check(variable, value).is_ok(), allowed, "{variable}");
        }
    }
}
