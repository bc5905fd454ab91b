//! What `GetSqlInfo` tells: this server's own properties, and how its engine's SQL reads where the engine says.

use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity, SqlSupportedTransaction, SqlSupportedUnions,
};
use spiced_engine::Dialect;

/// The version of Arrow's format that arrow-ipc writes: <https://arrow.apache.org/docs/format/Versioning.html>.
const ARROW_FORMAT: &str = "1.5";

/// All of it; a client may ask for a part.
pub(crate) fn info(dialect: Option<&Dialect>) -> SqlInfoData {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "spiced");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_FORMAT);
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // What JDBC calls a transaction.
    info.append(SqlInfo::SqlTransactionsSupported, false);
    info.append(SqlInfo::SqlSavepointsSupported, false);
    info.append(SqlInfo::SqlStoredProceduresSupported, false);
    info.append(SqlInfo::SqlSelectForUpdateSupported, false);
    info.append(SqlInfo::SqlNamedParametersSupported, true);
    info.append(SqlInfo::SqlBatchUpdatesSupported, true);
    if let Some(dialect) = dialect {
        speak(&mut info, dialect);
    }
    info.build().expect("names and values are of the types that the protocol gives them")
}

fn speak(info: &mut SqlInfoDataBuilder, dialect: &Dialect) {
    fn names(names: &[String]) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }
    let nulls =
        if dialect.nulls_are_high { SqlNullOrdering::SqlNullsSortedHigh } else { SqlNullOrdering::SqlNullsSortedLow };
    info.append(SqlInfo::SqlNullOrdering, nulls as i32);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    // Quoted names are as they are written, for which there is no word but this.
    info.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    info.append(SqlInfo::SqlNumericFunctions, names(&dialect.numeric_functions).as_slice());
    info.append(SqlInfo::SqlStringFunctions, names(&dialect.string_functions).as_slice());
    info.append(SqlInfo::SqlDatetimeFunctions, names(&dialect.datetime_functions).as_slice());
    info.append(SqlInfo::SqlSystemFunctions, names(&dialect.system_functions).as_slice());
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlDdlTable, true);
    info.append(SqlInfo::SqlDdlSchema, true);
    info.append(SqlInfo::SqlDdlCatalog, false);
    for truth in [
        SqlInfo::SqlAllTablesAreSelectable,
        SqlInfo::SqlSupportsColumnAliasing,
        SqlInfo::SqlNullPlusNullIsNull,
        SqlInfo::SqlSupportsTableCorrelationNames,
        SqlInfo::SqlSupportsExpressionsInOrderBy,
        SqlInfo::SqlSupportsOrderByUnrelated,
        SqlInfo::SqlSupportsLikeEscapeClause,
        SqlInfo::SqlSupportsNonNullableColumns,
        SqlInfo::SqlCorrelatedSubqueriesSupported,
    ] {
        info.append(truth, true);
    }
    let unions = 1 << SqlSupportedUnions::SqlUnion as i32 | 1 << SqlSupportedUnions::SqlUnionAll as i32;
    info.append(SqlInfo::SqlSupportedUnions, unions);
}
