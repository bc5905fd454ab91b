//! The response to `GetSqlInfo`: the properties of this server, and those of its engine's SQL dialect if the engine
//! describes one. It includes every value that Arrow's JDBC driver requests, in the type that the driver expects: most
//! released drivers throw a NullPointerException for a missing value.

use std::collections::BTreeMap;

use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedGroupBy,
    SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction,
    SqlSupportedUnions, SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};
use spiced_engine::Dialect;

/// The version of Arrow's format that arrow-ipc writes: <https://arrow.apache.org/docs/format/Versioning.html>.
const ARROW_FORMAT: &str = "1.5";

/// `ANSI92_ENTRY_SQL` of `SupportedAnsi92SqlGrammarLevel`, which arrow-flight does not export.
const ANSI92_ENTRY: i32 = 0;

/// Returns all values. The caller selects those that a client requests.
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
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    info.append(SqlInfo::SqlProcedureTerm, "procedure");
    for length in UNBOUNDED {
        info.append(length, 0_i64);
    }
    // JDBC's default transaction isolation. Its driver reads a 64-bit number here, in spite of the protocol.
    info.append(SqlInfo::SqlDefaultTransactionIsolation, SqlTransactionIsolationLevel::SqlTransactionNone as i64);
    let isolation = bits(&[SqlTransactionIsolationLevel::SqlTransactionNone as i32]);
    info.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, isolation);
    let answers = bits(&[SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32]);
    info.append(SqlInfo::SqlSupportedResultSetTypes, answers);
    let read = bits(&[SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32]);
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, read);
    for none in [
        SqlInfo::SqlSchemasSupportedActions,
        SqlInfo::SqlCatalogsSupportedActions,
        SqlInfo::SqlSupportedPositionedCommands,
        SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified,
        SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive,
        SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive,
    ] {
        info.append(none, 0_i32);
    }
    for untrue in [
        SqlInfo::SqlTransactionsSupported,
        SqlInfo::SqlSavepointsSupported,
        SqlInfo::SqlStoredProceduresSupported,
        SqlInfo::SqlSelectForUpdateSupported,
        SqlInfo::SqlDataDefinitionCausesTransactionCommit,
        SqlInfo::SqlDataDefinitionsInTransactionsIgnored,
        SqlInfo::SqlLocatorsUpdateCopy,
        SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported,
        SqlInfo::SqlMaxRowSizeIncludesBlobs,
    ] {
        info.append(untrue, false);
    }
    info.append(SqlInfo::SqlNamedParametersSupported, true);
    info.append(SqlInfo::SqlBatchUpdatesSupported, true);
    if let Some(dialect) = dialect {
        speak(&mut info, dialect);
    }
    info.build().expect("names and values are of the types that the protocol gives them")
}

/// Properties without a limit that could be reported: 0 (`java.sql.DatabaseMetaData`).
const UNBOUNDED: [SqlInfo; 20] = [
    SqlInfo::SqlMaxBinaryLiteralLength,
    SqlInfo::SqlMaxCharLiteralLength,
    SqlInfo::SqlMaxColumnNameLength,
    SqlInfo::SqlMaxColumnsInGroupBy,
    SqlInfo::SqlMaxColumnsInIndex,
    SqlInfo::SqlMaxColumnsInOrderBy,
    SqlInfo::SqlMaxColumnsInSelect,
    SqlInfo::SqlMaxColumnsInTable,
    SqlInfo::SqlMaxConnections,
    SqlInfo::SqlMaxCursorNameLength,
    SqlInfo::SqlMaxIndexLength,
    SqlInfo::SqlDbSchemaNameLength,
    SqlInfo::SqlMaxProcedureNameLength,
    SqlInfo::SqlMaxCatalogNameLength,
    SqlInfo::SqlMaxRowSize,
    SqlInfo::SqlMaxStatementLength,
    SqlInfo::SqlMaxStatements,
    SqlInfo::SqlMaxTableNameLength,
    SqlInfo::SqlMaxTablesInSelect,
    SqlInfo::SqlMaxUsernameLength,
];

/// Returns a bitmask with these bits set.
fn bits(members: &[i32]) -> i32 {
    members.iter().fold(0, |set, member| set | 1 << member)
}

/// Returns the supported casts: numbers, texts, bytes and times among themselves, and each to and from text.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as To;
    let numbers = [
        To::SqlConvertTinyint,
        To::SqlConvertSmallint,
        To::SqlConvertInteger,
        To::SqlConvertBigint,
        To::SqlConvertReal,
        To::SqlConvertFloat,
        To::SqlConvertDecimal,
        To::SqlConvertNumeric,
        To::SqlConvertBit,
    ];
    let texts = [To::SqlConvertChar, To::SqlConvertVarchar, To::SqlConvertLongvarchar];
    let bytes = [To::SqlConvertBinary, To::SqlConvertVarbinary, To::SqlConvertLongvarbinary];
    let times = [To::SqlConvertDate, To::SqlConvertTimestamp];
    let kinds = [&numbers[..], &bytes, &times];
    let all: Vec<i32> = kinds.iter().copied().flatten().chain(&texts).map(|to| *to as i32).collect();
    let among = kinds.into_iter().flat_map(|kind| {
        let to: Vec<i32> = kind.iter().chain(&texts).map(|to| *to as i32).collect();
        kind.iter().map(move |from| (*from as i32, to.clone()))
    });
    among.chain(texts.map(|from| (from as i32, all.clone()))).collect()
}

fn speak(info: &mut SqlInfoDataBuilder, dialect: &Dialect) {
    fn names(names: &[String]) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }
    let nulls =
        if dialect.nulls_are_high { SqlNullOrdering::SqlNullsSortedHigh } else { SqlNullOrdering::SqlNullsSortedLow };
    info.append(SqlInfo::SqlNullOrdering, nulls as i32);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    // Quoted identifiers keep their case, for which the protocol has no better value.
    info.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    info.append(SqlInfo::SqlKeywords, names(&dialect.keywords).as_slice());
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
    info.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    info.append(SqlInfo::SqlSupportsConvert, conversions());
    for (of, members) in [
        (
            SqlInfo::SqlSupportedUnions,
            &[SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32][..],
        ),
        (
            SqlInfo::SqlSupportedGroupBy,
            &[SqlSupportedGroupBy::SqlGroupByUnrelated as i32, SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32],
        ),
        (
            SqlInfo::SqlSupportedGrammar,
            &[SupportedSqlGrammar::SqlMinimumGrammar as i32, SupportedSqlGrammar::SqlCoreGrammar as i32],
        ),
        (SqlInfo::SqlAnsi92SupportedLevel, &[ANSI92_ENTRY]),
        (
            SqlInfo::SqlOuterJoinsSupportLevel,
            &[
                SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32,
                SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
            ],
        ),
        (
            SqlInfo::SqlSupportedSubqueries,
            &[
                SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
                SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
                SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
            ],
        ),
    ] {
        info.append(of, bits(members));
    }
}
