//! Maps PostgreSQL types to Arrow types. Types without a counterpart are sent as text.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use tokio_postgres::types::{Kind as PgKind, Type};

/// The maximum number of digits of a 128-bit Arrow decimal.
pub(super) const MAX_DIGITS: u8 = 38;
/// A `numeric` without precision: 28 digits before the point and 10 after it.
const WIDE: (u8, i8) = (MAX_DIGITS, 10);
/// How a column is requested and read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) kind: Kind,
    sameness: Sameness,
    has_own_rules: bool,
    is_case_insensitive: bool,
}

/// How PostgreSQL compares the texts of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collation {
    /// By the default collation of the database, or not at all.
    Default,
    /// By another collation: PostgreSQL does not compare two different ones with each other.
    Other,
    /// In a server encoding that cannot represent all texts.
    Lax,
    /// By a collation in which different texts can be equal.
    Nondeterministic,
}

/// In which form values are compared and ordered in PostgreSQL as they are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sameness {
    AsItIs,
    /// Compared with a constant, as is; compared with other values, as text in the default collation.
    ByConstant,
    /// As text, which is their type here.
    AsText,
    Nowhere,
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric(u8, i8),
    Text,
    /// `char(n)`: read as text, without its trailing blanks.
    Char,
    Jsonb,
    Bytea,
    Date,
    Time,
    Timestamp {
        utc: bool,
    },
    Interval,
    Uuid,
    List(Box<Kind>),
    /// Requested with `::text`.
    AsText,
}

impl Reading {
    /// Returns the reading of a column of type `pg`, with its type modifier.
    pub(super) fn of(pg: &Type, modifier: i32, collation: Collation) -> Self {
        let kind = Kind::of(pg, modifier);
        let is_lax = matches!(collation, Collation::Lax | Collation::Nondeterministic);
        let has_own_rules =
            has_own_rules(pg) || (collation == Collation::Nondeterministic && matches!(kind, Kind::Text | Kind::Char));
        let sameness = match &kind {
            kind if is_lax && kind.data_type() == DataType::Utf8 => Sameness::Nowhere,
            // Enum labels, JSON texts and names (which truncate the value that they are compared with) are sent
            // unchanged, but compared differently.
            Kind::Text if ![Type::TEXT, Type::VARCHAR].contains(pg) => Sameness::AsText,
            Kind::Text if collation == Collation::Other => Sameness::ByConstant,
            Kind::Char if collation == Collation::Other => Sameness::AsText,
            Kind::Jsonb | Kind::AsText => Sameness::AsText,
            // The numbers of an oid are unsigned, and a bigint that is compared with it becomes an oid.
            Kind::List(_) | Kind::Bytea | Kind::Time | Kind::Interval | Kind::Oid => Sameness::Nowhere,
            _ => Sameness::AsItIs,
        };
        Self { kind, sameness, has_own_rules, is_case_insensitive: is_citext(pg) }
    }

    /// Returns the reading of a part of a row id, as text.
    pub(super) fn address() -> Self {
        Self { kind: Kind::Text, sameness: Sameness::Nowhere, has_own_rules: false, is_case_insensitive: false }
    }

    /// Returns the reading of a value that has the same meaning in both engines.
    pub(super) fn native(kind: Kind) -> Self {
        Self { kind, sameness: Sameness::AsItIs, has_own_rules: false, is_case_insensitive: false }
    }

    /// Whether a value has the same meaning in PostgreSQL.
    pub(super) fn is_native(&self) -> bool {
        self.sameness == Sameness::AsItIs
    }

    /// Whether its text has the same meaning.
    pub(super) fn is_native_as_text(&self) -> bool {
        matches!(self.sameness, Sameness::AsText | Sameness::ByConstant)
    }

    /// Whether a value has the same meaning when it is compared with a constant.
    pub(super) fn is_native_by_constant(&self) -> bool {
        self.sameness == Sameness::ByConstant
    }

    /// Whether PostgreSQL compares the type by rules other than those of text: comparisons with a constant are pushed
    /// down.
    pub(super) fn has_own_rules(&self) -> bool {
        self.has_own_rules
    }

    /// Whether `LIKE` ignores case in PostgreSQL.
    pub(super) fn is_case_insensitive(&self) -> bool {
        self.is_case_insensitive
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn data_type(&self) -> DataType {
        self.kind.data_type()
    }

    /// Whether the statement requests the column's text.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.kind, Kind::AsText | Kind::Char)
    }

    /// Whether a column of a result can still be read in this way. The whole type of a table's own column must match;
    /// of a computed column, PostgreSQL does not report the number of digits.
    pub(super) fn reads(&self, pg: &Type, modifier: i32, is_own: bool) -> bool {
        let kind = Kind::of(pg, modifier);
        match (&self.kind, &kind) {
            (Kind::Text | Kind::Char | Kind::AsText, Kind::Text | Kind::Char | Kind::AsText) => true,
            (Kind::Numeric(..), Kind::Numeric(..)) if !is_own => true,
            (known, now) => known == now,
        }
    }
}

fn is_citext(pg: &Type) -> bool {
    match pg.kind() {
        PgKind::Domain(inner) => is_citext(inner),
        _ => pg.name() == "citext",
    }
}

/// Whether a type is text here but PostgreSQL compares it with a constant by type-specific rules: case is ignored
/// (`citext`), a value has several notations (`inet`, `macaddr`, `jsonb`, ranges), or the order differs (enums,
/// `money`). Types without comparison operators, such as `json`, `xml` and `point`, remain text.
fn has_own_rules(pg: &Type) -> bool {
    match pg.kind() {
        PgKind::Enum(_) | PgKind::Range(_) | PgKind::Multirange(_) => return true,
        PgKind::Domain(inner) => return has_own_rules(inner),
        PgKind::Simple => {}
        _ => return false,
    }
    let built_in = [
        Type::INET,
        Type::CIDR,
        Type::MACADDR,
        Type::MACADDR8,
        Type::MONEY,
        Type::BIT,
        Type::VARBIT,
        Type::TIMETZ,
        Type::JSONB,
        Type::PG_LSN,
    ];
    built_in.contains(pg) || ["citext", "ltree", "hstore"].contains(&pg.name())
}

impl Kind {
    fn of(pg: &Type, modifier: i32) -> Self {
        match pg.kind() {
            PgKind::Enum(_) => return Self::Text,
            PgKind::Domain(inner) => return Self::of(inner, modifier),
            PgKind::Array(element) => {
                return match Self::of(element, modifier) {
                    Self::AsText | Self::Char | Self::List(_) => Self::AsText,
                    kind => Self::List(Box::new(kind)),
                };
            }
            _ => {}
        }
        match *pg {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID => Self::Oid,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::NUMERIC => {
                let (precision, scale) = precision(modifier).unwrap_or(WIDE);
                Self::Numeric(precision, scale)
            }
            Type::TEXT | Type::VARCHAR | Type::NAME | Type::JSON => Self::Text,
            Type::BPCHAR => Self::Char,
            Type::JSONB => Self::Jsonb,
            Type::BYTEA => Self::Bytea,
            Type::DATE => Self::Date,
            Type::TIME => Self::Time,
            Type::TIMESTAMP => Self::Timestamp { utc: false },
            Type::TIMESTAMPTZ => Self::Timestamp { utc: true },
            Type::INTERVAL => Self::Interval,
            Type::UUID => Self::Uuid,
            _ => Self::AsText,
        }
    }

    /// Returns PostgreSQL's name of the type, if a cast to it leaves values unchanged.
    pub(super) fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Numeric(..) => "numeric",
            Self::Text => "text",
            Self::Date => "date",
            Self::Timestamp { utc: false } => "timestamp",
            Self::Timestamp { utc: true } => "timestamptz",
            _ => return None,
        })
    }

    /// Whether the order is the same in both engines.
    pub(super) fn is_ordered(&self) -> bool {
        use Kind::{Date, Int2, Int4, Int8, Numeric, Timestamp, Uuid};
        matches!(self, Int2 | Int4 | Int8 | Numeric(..) | Date | Timestamp { .. } | Uuid)
    }

    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 | Self::Oid => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Numeric(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::Text | Self::Char | Self::Jsonb | Self::Uuid | Self::AsText => DataType::Utf8,
            Self::Bytea => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp { utc } => DataType::Timestamp(TimeUnit::Microsecond, utc.then(|| "UTC".into())),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::List(element) => DataType::List(item(element)),
        }
    }
}

pub(super) fn item(element: &Kind) -> FieldRef {
    Arc::new(Field::new_list_field(element.data_type(), true))
}

/// Returns the precision and scale of a `numeric` (PostgreSQL's `numeric_typmod_precision`), if Arrow can represent
/// them.
fn precision(modifier: i32) -> Option<(u8, i8)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    let precision = u8::try_from((packed >> 16) & 0xffff).ok().filter(|precision| *precision <= 38)?;
    let scale = i8::try_from(scale).ok().filter(|scale| (0..=38).contains(scale))?;
    Some((precision.max(scale.unsigned_abs()), scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_numeric_says_of_itself() {
        let packed = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        assert_eq!(precision(packed(10, 2)), Some((10, 2)));
        assert_eq!(precision(packed(2, 5)), Some((5, 5)));
        for none in [-1, packed(39, 2), packed(5, -3)] {
            assert_eq!(precision(none), None);
        }
    }
}
