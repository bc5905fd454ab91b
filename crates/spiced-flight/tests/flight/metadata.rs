//! Catalogs, schemas, tables, keys, server information, flights and actions.

use crate::toy::{Client, Flight, Toy, fetch, texts};
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt8Type};
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo, XdbcDataType,
};
use arrow_flight::{Action, Criteria, Empty, FlightInfo, IpcMessage};
use arrow_schema::Schema;
use bytes::Bytes;
use futures::TryStreamExt;
use tonic::Code;

/// Returns the batches, whose schema must be that of the `FlightInfo`.
async fn rows(client: &mut Client, info: FlightInfo) -> Vec<arrow_array::RecordBatch> {
    let schema = info.clone().try_decode_schema().unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = rows.try_next().await.unwrap() {
        batches.push(batch);
    }
    assert_eq!(**rows.schema().unwrap(), schema);
    batches
}

#[tokio::test]
async fn catalogs_and_schemas() {
    let mut client = Toy::default().client();
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, 0), ["other", "spice"]);

    let schemas = [
        (None, None, vec!["empty", "private", "public"]),
        (Some("spice"), None, vec!["private", "public"]),
        (None, Some("p%c"), vec!["public"]),
        (Some("other"), Some("p%"), vec![]),
    ];
    for (catalog, pattern, expected) in schemas {
        let command =
            CommandGetDbSchemas { catalog: catalog.map(Into::into), db_schema_filter_pattern: pattern.map(Into::into) };
        let info = client.get_db_schemas(command).await.unwrap();
        assert_eq!(texts(&rows(&mut client, info).await, 1), expected);
    }
}

#[tokio::test]
async fn tables_by_pattern_and_type() {
    let mut client = Toy::default().client();
    let all = CommandGetTables::default();
    let cases = [
        (all.clone(), vec!["trips", "taxi_trips", "taxi_view", "zones"]),
        (
            CommandGetTables { table_name_filter_pattern: Some("taxi%".into()), ..all.clone() },
            vec!["taxi_trips", "taxi_view"],
        ),
        (CommandGetTables { table_name_filter_pattern: Some("zone_".into()), ..all.clone() }, vec!["zones"]),
        (CommandGetTables { db_schema_filter_pattern: Some("priv%".into()), ..all.clone() }, vec!["trips"]),
        (CommandGetTables { catalog: Some("other".into()), ..all.clone() }, vec![]),
        (CommandGetTables { table_types: vec!["VIEW".into()], ..all.clone() }, vec!["taxi_view"]),
        (CommandGetTables { table_types: vec!["TABLE".into()], ..all.clone() }, vec!["trips", "taxi_trips", "zones"]),
        (
            CommandGetTables { table_types: vec!["BASE TABLE".into()], ..all.clone() },
            vec!["trips", "taxi_trips", "zones"],
        ),
    ];
    for (command, expected) in cases {
        let info = client.get_tables(command.clone()).await.unwrap();
        assert_eq!(texts(&rows(&mut client, info).await, 2), expected, "{command:?}");
    }
    let info = client.get_table_types().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, 0), ["TABLE", "VIEW"]);
}

#[tokio::test]
async fn tables_with_their_columns() {
    let mut client = Toy::default().client();
    let info = client.get_tables(CommandGetTables { include_schema: true, ..Default::default() }).await.unwrap();
    let batches = rows(&mut client, info).await;
    let schemas = batches[0].column_by_name("table_schema").unwrap().as_binary::<i32>().clone();
    assert_eq!(schemas.len(), 4);
    for schema in schemas.iter().flatten() {
        let schema = Schema::try_from(IpcMessage(Bytes::copy_from_slice(schema))).unwrap();
        assert_eq!(schema.field(0).name(), "id");
    }
}

#[tokio::test]
async fn keys_and_who_holds_them() {
    let mut client = Toy::default().client();
    let zones = || "zones".to_owned();
    let primary =
        client.get_primary_keys(CommandGetPrimaryKeys { table: zones(), ..Default::default() }).await.unwrap();
    let primary = rows(&mut client, primary).await;
    assert_eq!([2, 3, 4].map(|at| texts(&primary, at)), [["zones"], ["id"], ["zones_key"]]);

    let exported = CommandGetExportedKeys { table: zones(), db_schema: Some("public".into()), ..Default::default() };
    let exported = client.get_exported_keys(exported).await.unwrap();
    let exported = rows(&mut client, exported).await;
    assert_eq!(texts(&exported, 6), ["trips", "taxi_trips"]);
    assert_eq!(texts(&exported, 2), ["zones", "zones"]);
    let rules = [11, 12].map(|at| exported[0].column(at).as_primitive::<UInt8Type>().value(0));
    assert_eq!(rules, [0, 3], "CASCADE and NO ACTION");

    let imported = CommandGetImportedKeys { table: "trips".into(), ..Default::default() };
    let imported = client.get_imported_keys(imported).await.unwrap();
    assert_eq!(texts(&rows(&mut client, imported).await, 9), ["in_zone"]);
    for (fk_table, expected) in [("trips", vec!["trips"]), ("taxi_view", vec![])] {
        let command = CommandGetCrossReference { pk_table: zones(), fk_table: fk_table.into(), ..Default::default() };
        let info = client.get_cross_reference(command).await.unwrap();
        assert_eq!(texts(&rows(&mut client, info).await, 6), expected);
    }
    let nobodys = client.get_primary_keys(CommandGetPrimaryKeys::default()).await.unwrap();
    assert_eq!(texts(&rows(&mut client, nobodys).await, 2), Vec::<String>::new());
}

#[tokio::test]
async fn sql_info_is_true() {
    let mut client = Toy::default().client();
    let asked = vec![
        SqlInfo::FlightSqlServerName,
        SqlInfo::FlightSqlServerVersion,
        SqlInfo::FlightSqlServerReadOnly,
        SqlInfo::FlightSqlServerSubstrait,
        SqlInfo::FlightSqlServerTransaction,
    ];
    let info = client.get_sql_info(asked).await.unwrap();
    let batches = rows(&mut client, info).await;
    let values = batches[0].column(1).as_union();
    let text = |row| values.value(row).as_string::<i32>().value(0).to_owned();
    assert_eq!((text(0), text(1)), ("spiced".into(), env!("CARGO_PKG_VERSION").into()));
    assert!(!values.value(2).as_boolean().value(0) && !values.value(3).as_boolean().value(0));
    assert_eq!(values.value(4).as_primitive::<Int32Type>().value(0), 0);

    let info = client.get_sql_info(vec![]).await.unwrap();
    assert!(rows(&mut client, info).await[0].num_rows() > 50, "nothing asked for by name is all");
}

#[tokio::test]
async fn type_info_by_number() {
    let mut client = Toy::default().client();
    let all = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    assert_eq!(rows(&mut client, all).await[0].num_rows(), 17);
    let number = Some(XdbcDataType::XdbcVarchar as i32);
    let one = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: number }).await.unwrap();
    assert_eq!(texts(&rows(&mut client, one).await, 0), ["VARCHAR"]);
}

#[tokio::test]
async fn every_table_is_a_flight() {
    let mut client = Toy::default().client();
    let flights = client.inner_mut().list_flights(Criteria::default()).await.unwrap().into_inner();
    let flights: Vec<FlightInfo> = flights.try_collect().await.unwrap();
    let paths: Vec<String> =
        flights.iter().map(|flight| flight.flight_descriptor.as_ref().unwrap().path.join(".")).collect();
    assert_eq!(
        paths,
        ["spice.private.trips", "spice.public.taxi_trips", "spice.public.taxi_view", "spice.public.zones"]
    );
    // The ticket holds a query of the table, which the toy does not have.
    let refusal = crate::toy::refused(fetch(&mut client, flights[0].clone()).await);
    assert_eq!(refusal.code(), Code::NotFound);
    let criteria = Criteria { expression: Bytes::from_static(b"x") };
    assert_eq!(client.inner_mut().list_flights(criteria).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn actions_are_those_that_are_listed() {
    let mut client = Toy::default().client();
    let listed = client.inner_mut().list_actions(Empty {}).await.unwrap().into_inner();
    let mut names: Vec<String> = listed.map_ok(|action| action.r#type).try_collect().await.unwrap();
    names.sort();
    assert_eq!(
        names,
        [
            "CancelFlightInfo",
            "CancelQuery",
            "ClosePreparedStatement",
            "CloseSession",
            "CreatePreparedStatement",
            "GetSessionOptions",
            "SetSessionOptions"
        ]
    );
    for name in names {
        let refusal = crate::toy::refused(client.do_action(Action::new(name, "\u{1}")).await);
        assert_eq!(refusal.code(), Code::InvalidArgument);
    }
    for name in ["BeginTransaction", "EndTransaction", "CreatePreparedSubstraitPlan"] {
        let refusal = crate::toy::refused(client.do_action(Action::new(name, "")).await);
        assert_eq!(refusal.code(), Code::Unimplemented);
        assert!(!refusal.message().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_handshake_says_what_to_do() {
    let refusal = Toy::default().client().handshake("user", "password").await.unwrap_err();
    assert!(refusal.to_string().contains("connect without a user and a password"), "{refusal}");
}
