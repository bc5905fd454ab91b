//! PostgreSQL's types as Arrow's. What has no counterpart is sent as text.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use tokio_postgres::types::{Kind as PgKind, Type};

use super::values::Filler;

/// Of Arrow's decimals of 128 bits.
pub(super) const MAX_DIGITS: u8 = 38;
/// A `numeric` without precision: 28 digits before the point and 10 behind it.
const WIDE: (u8, i8) = (MAX_DIGITS, 10);
/// How a column is asked for and read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    kind: Kind,
    sameness: Sameness,
    has_own_rules: bool,
    is_case_insensitive: bool,
}

/// By which rules PostgreSQL compares a column's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collation {
    /// The database's own, or none.
    Default,
    /// Others: two of them are not compared with one another there.
    Other,
    /// In an encoding that has not all of them.
    Lax,
    /// Such that texts can be equal that differ.
    Nondeterministic,
}

/// Where a value is the same as another, or before it, there as it is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sameness {
    AsItIs,
    /// With a constant as it is, with others as its text by the database's own collation.
    ByConstant,
    /// As its text, which is what it is here.
    AsText,
    Nowhere,
}

/// What a value is.
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
    /// `char(n)`: read as text, without its blanks.
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
    /// `::text` in the statement.
    AsText,
}

impl Reading {
    /// Of a column of type `pg`, with its type modifier.
    pub(super) fn of(pg: &Type, modifier: i32, collation: Collation) -> Self {
        let kind = Kind::of(pg, modifier);
        let is_lax = matches!(collation, Collation::Lax | Collation::Nondeterministic);
        let has_own_rules =
            has_own_rules(pg) || (collation == Collation::Nondeterministic && matches!(kind, Kind::Text | Kind::Char));
        let sameness = match &kind {
            kind if is_lax && kind.data_type() == DataType::Utf8 => Sameness::Nowhere,
            // An enum's label, a JSON text, a name (which cuts off what it is compared with): sent as they are, compared in
            // another way.
            Kind::Text if ![Type::TEXT, Type::VARCHAR].contains(pg) => Sameness::AsText,
            Kind::Text if collation == Collation::Other => Sameness::ByConstant,
            Kind::Char if collation == Collation::Other => Sameness::AsText,
            Kind::Jsonb | Kind::AsText => Sameness::AsText,
            // An oid's numbers have no sign, and bigints beside it become oids.
            Kind::List(_) | Kind::Bytea | Kind::Time | Kind::Interval | Kind::Oid => Sameness::Nowhere,
            _ => Sameness::AsItIs,
        };
        Self { kind, sameness, has_own_rules, is_case_insensitive: is_citext(pg) }
    }

    /// Of a part of a row's address, as text.
    pub(super) fn address() -> Self {
        Self { kind: Kind::Text, sameness: Sameness::Nowhere, has_own_rules: false, is_case_insensitive: false }
    }

    /// Of a value that means the same here and there.
    pub(super) fn native(kind: Kind) -> Self {
        Self { kind, sameness: Sameness::AsItIs, has_own_rules: false, is_case_insensitive: false }
    }

    /// Whether a value means the same there.
    pub(super) fn is_native(&self) -> bool {
        self.sameness == Sameness::AsItIs
    }

    /// Whether its text does.
    pub(super) fn is_native_as_text(&self) -> bool {
        matches!(self.sameness, Sameness::AsText | Sameness::ByConstant)
    }

    /// Whether it does beside a constant.
    pub(super) fn is_native_by_constant(&self) -> bool {
        self.sameness == Sameness::ByConstant
    }

    /// Whether PostgreSQL compares it by rules that those of its text are not: beside a constant it is compared there.
    pub(super) fn has_own_rules(&self) -> bool {
        self.has_own_rules
    }

    /// Whether `LIKE` takes letters of either case for the same there.
    pub(super) fn is_case_insensitive(&self) -> bool {
        self.is_case_insensitive
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn data_type(&self) -> DataType {
        self.kind.data_type()
    }

    /// Whether the statement asks for the column's text.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.kind, Kind::AsText | Kind::Char)
    }

    /// Whether a column that an answer has is still to be read so. Of a table's own column all of its type counts; of a
    /// computed one PostgreSQL does not say how many digits it has.
    pub(super) fn reads(&self, pg: &Type, modifier: i32, is_own: bool) -> bool {
        let kind = Kind::of(pg, modifier);
        match (&self.kind, &kind) {
            (Kind::Text | Kind::Char | Kind::AsText, Kind::Text | Kind::Char | Kind::AsText) => true,
            (Kind::Numeric(..), Kind::Numeric(..)) if !is_own => true,
            (known, now) => known == now,
        }
    }

    /// Takes values, and makes an array of them.
    pub(super) fn filler(&self) -> Box<dyn Filler> {
        self.kind.filler()
    }
}

fn is_citext(pg: &Type) -> bool {
    match pg.kind() {
        PgKind::Domain(inner) => is_citext(inner),
        _ => pg.name() == "citext",
    }
}

/// The types that are text here, and that PostgreSQL compares with a constant by rules of their own: letters of either case
/// are the same (`citext`), there are several ways to write one value (`inet`, `macaddr`, `jsonb`, ranges), or the order is
/// another one (enums, `money`). What has no comparison there, such as `json`, `xml` and `point`, stays text.
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

    /// What PostgreSQL calls the type, where a value can be cast to it and stays what it is.
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

    /// Whether it is ordered there as it is here.
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

/// Precision and scale of a `numeric` (PostgreSQL's `numeric_typmod_precision`), where Arrow can hold them.
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
