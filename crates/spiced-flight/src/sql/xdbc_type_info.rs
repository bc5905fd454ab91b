//! The response to `GetXdbcTypeInfo`: the SQL types of results, with their ODBC and JDBC numbers.

use std::sync::LazyLock;

use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType as Type, XdbcDatetimeSubcode as Subcode};

/// All types; a client may request a single one.
pub(crate) static TYPES: LazyLock<XdbcTypeInfoData> = LazyLock::new(|| {
    let mut types = XdbcTypeInfoDataBuilder::new();
    for row in TABLE {
        types.append(row.info());
    }
    types.build().expect("names and values are a fixed list")
});

/// The description of one type; the remaining columns follow from its class.
struct Row {
    name: &'static str,
    number: Type,
    /// Digits of a number, bytes or characters of a text, characters of a formatted date or time.
    size: i32,
    class: Class,
}

enum Class {
    Boolean,
    /// An integer; true if it is unsigned.
    Integer(bool),
    /// A binary floating-point number.
    Float,
    /// A decimal number with this maximum scale.
    Decimal(i32),
    Text,
    Bytes,
    /// A date or time, with its ODBC subcode of `DATETIME`.
    Datetime(Subcode),
}

const TABLE: [Row; 17] = [
    Row { name: "BOOLEAN", number: Type::XdbcBit, size: 1, class: Class::Boolean },
    Row { name: "TINYINT", number: Type::XdbcTinyint, size: 3, class: Class::Integer(false) },
    Row { name: "TINYINT UNSIGNED", number: Type::XdbcTinyint, size: 3, class: Class::Integer(true) },
    Row { name: "SMALLINT", number: Type::XdbcSmallint, size: 5, class: Class::Integer(false) },
    Row { name: "SMALLINT UNSIGNED", number: Type::XdbcSmallint, size: 5, class: Class::Integer(true) },
    Row { name: "INTEGER", number: Type::XdbcInteger, size: 10, class: Class::Integer(false) },
    Row { name: "INTEGER UNSIGNED", number: Type::XdbcInteger, size: 10, class: Class::Integer(true) },
    Row { name: "BIGINT", number: Type::XdbcBigint, size: 19, class: Class::Integer(false) },
    Row { name: "BIGINT UNSIGNED", number: Type::XdbcBigint, size: 20, class: Class::Integer(true) },
    Row { name: "REAL", number: Type::XdbcReal, size: 24, class: Class::Float },
    Row { name: "DOUBLE", number: Type::XdbcDouble, size: 53, class: Class::Float },
    Row { name: "DECIMAL", number: Type::XdbcDecimal, size: 76, class: Class::Decimal(76) },
    Row { name: "VARCHAR", number: Type::XdbcVarchar, size: i32::MAX, class: Class::Text },
    Row { name: "BYTEA", number: Type::XdbcVarbinary, size: i32::MAX, class: Class::Bytes },
    Row { name: "DATE", number: Type::XdbcDate, size: 10, class: Class::Datetime(Subcode::XdbcSubcodeYear) },
    Row { name: "TIME", number: Type::XdbcTime, size: 18, class: Class::Datetime(Subcode::XdbcSubcodeTime) },
    Row {
        name: "TIMESTAMP",
        number: Type::XdbcTimestamp,
        size: 29,
        class: Class::Datetime(Subcode::XdbcSubcodeTimestamp),
    },
];

impl Row {
    fn info(self) -> XdbcTypeInfo {
        let info = XdbcTypeInfo {
            type_name: self.name.into(),
            data_type: self.number,
            column_size: Some(self.size),
            nullable: Nullable::NullabilityNullable,
            searchable: Searchable::Basic,
            local_type_name: Some(self.name.into()),
            sql_data_type: self.number,
            ..XdbcTypeInfo::default()
        };
        match self.class {
            Class::Boolean => info,
            Class::Integer(unsigned) => XdbcTypeInfo {
                unsigned_attribute: Some(unsigned),
                fixed_prec_scale: true,
                auto_increment: Some(false),
                minimum_scale: Some(0),
                maximum_scale: Some(0),
                num_prec_radix: Some(10),
                ..info
            },
            Class::Float => XdbcTypeInfo {
                unsigned_attribute: Some(false),
                auto_increment: Some(false),
                num_prec_radix: Some(2),
                ..info
            },
            Class::Decimal(scale) => XdbcTypeInfo {
                create_params: Some(vec!["precision".into(), "scale".into()]),
                unsigned_attribute: Some(false),
                auto_increment: Some(false),
                minimum_scale: Some(0),
                maximum_scale: Some(scale),
                num_prec_radix: Some(10),
                ..info
            },
            Class::Text => quoted(XdbcTypeInfo { case_sensitive: true, searchable: Searchable::Full, ..info }, "'"),
            Class::Bytes => quoted(info, "X'"),
            Class::Datetime(subcode) => {
                quoted(XdbcTypeInfo { sql_data_type: Type::XdbcDatetime, datetime_subcode: Some(subcode), ..info }, "'")
            }
        }
    }
}

/// A type whose literals are quoted.
fn quoted(info: XdbcTypeInfo, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo { literal_prefix: Some(prefix.into()), literal_suffix: Some("'".into()), ..info }
}
