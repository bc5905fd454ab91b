//! Operations that are denied to every caller.

use spiced_engine::ErrorKind;

use crate::{Pod, fails, prepare, run, session};

async fn denied(session: &dyn spiced_engine::Session, sql: &str, part: &str) {
    let error = prepare(session, sql).await.map(|_| panic!("{sql} was admitted")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{sql}: {error}");
    assert!(error.to_string().contains(part), "{sql}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_data_sets_stay_as_they_are() {
    let mut pod = Pod::new();
    pod.memory("ro", false).memory("rw", true).memory("s.ro", false).dataset("broken", "file:nowhere.csv");
    let session = pod.session().await;
    let why = "access: read_write";
    for sql in [
        "INSERT INTO ro VALUES (1, 'a')",
        "INSERT INTO public.ro VALUES (1, 'a')",
        "INSERT INTO spice.public.ro SELECT * FROM rw",
        "INSERT INTO \"ro\" VALUES (1, 'a')",
        "INSERT INTO RO VALUES (1, 'a')",
        "INSERT INTO s.ro VALUES (1, 'a')",
        "DELETE FROM ro",
        "UPDATE ro SET name = 'x'",
        "TRUNCATE TABLE ro",
        "EXPLAIN INSERT INTO ro VALUES (1, 'a')",
        "EXPLAIN ANALYZE INSERT INTO ro VALUES (1, 'a')",
        "PREPARE p AS INSERT INTO ro VALUES (1, 'a')",
    ] {
        denied(&*session, sql, why).await;
    }
    denied(&*session, "INSERT INTO s.ro VALUES (1, 'a')", "`s.ro`").await;
    assert_eq!(run(&*session, "INSERT INTO rw VALUES (1, 'a')").await, ["1"]);

    // The same applies after the session's defaults have changed.
    run(&*session, "SET datafusion.catalog.default_schema = 's'").await;
    denied(&*session, "INSERT INTO ro VALUES (1, 'a')", "`s.ro`").await;
    denied(&*session, "DROP TABLE ro", "defined by the pod").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pod_defines_its_data_sets() {
    let mut pod = Pod::new();
    pod.memory("m", true).memory("s.m", true).dataset("broken", "file:nowhere.csv");
    let engine = pod.start();
    let session = session(&engine).await;
    crate::until(&engine, 2, |state| matches!(state, spiced_engine::DatasetState::Failed { .. })).await;
    for sql in [
        "DROP TABLE m",
        "DROP TABLE IF EXISTS spice.public.m",
        "DROP VIEW m",
        "DROP TABLE s.m",
        "DROP SCHEMA s CASCADE",
        "DROP SCHEMA spice.s CASCADE",
        "DROP SCHEMA public CASCADE",
        "CREATE TABLE m (a INT)",
        "CREATE OR REPLACE TABLE m AS SELECT 1",
        "CREATE OR REPLACE VIEW m AS SELECT 1",
        "DROP TABLE broken",
    ] {
        denied(&*session, sql, "is defined by the pod").await;
    }
    for sql in ["CREATE VIEW broken AS SELECT 1 AS a", "CREATE OR REPLACE TABLE broken AS SELECT 1 AS a"] {
        let error = fails(&*session, sql).await;
        assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound), "{sql}: {error}");
    }
    // SQL may drop what SQL created.
    for sql in [
        "CREATE TABLE mine AS SELECT 1 AS a",
        "CREATE OR REPLACE TABLE mine AS SELECT 2 AS a",
        "CREATE TABLE IF NOT EXISTS mine AS SELECT 3 AS a",
        "CREATE VIEW seen AS SELECT * FROM mine",
    ] {
        run(&*session, sql).await;
    }
    assert_eq!(run(&*session, "SELECT * FROM seen").await, ["2"]);
    assert_eq!(fails(&*session, "CREATE TABLE mine (b INT)").await.to_string(), "the table `mine` already exists");
    for sql in
        ["DROP VIEW seen", "DROP TABLE mine", "CREATE SCHEMA z", "CREATE TABLE z.t (a INT)", "DROP SCHEMA z CASCADE"]
    {
        run(&*session, sql).await;
    }
    assert_eq!(fails(&*session, "SELECT * FROM mine").await.kind(), ErrorKind::InvalidStatement);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_reaches_the_host_nowhere_by_default() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    let session = pod.session().await;
    let out = pod.path().join("out.csv");
    for sql in [
        format!("COPY m TO '{}'", out.display()),
        format!("COPY (SELECT 1) TO '{}' STORED AS CSV", out.display()),
        format!("EXPLAIN ANALYZE COPY m TO '{}'", out.display()),
        format!("EXPLAIN COPY m TO '{}'", out.display()),
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'".to_owned(),
        "CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION 'file:///etc/passwd'".to_owned(),
        "CREATE UNBOUNDED EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '/dev/zero'".to_owned(),
    ] {
        denied(&*session, &sql, "runtime.sql.host_paths").await;
    }
    for location in ["s3://b/x.csv", "http://localhost/x.csv", "https://localhost/x.csv", "memory:///x.csv", "gs://b/x"]
    {
        denied(&*session, &format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{location}'"), "host_paths").await;
        denied(&*session, &format!("COPY m TO '{location}' STORED AS CSV"), "host_paths").await;
    }
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM csv_scan('/etc/passwd')",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "LOAD DATA INPATH '/etc/passwd' INTO TABLE m",
        "COPY m FROM '/etc/passwd'",
        "LOAD '/lib/evil.so'",
        "CREATE FUNCTION evil() RETURNS INT AS '/lib/evil.so' LANGUAGE C",
    ] {
        let error = fails(&*session, sql).await;
        assert_ne!(error.kind(), ErrorKind::Internal, "{sql}: {error}");
        assert!(!error.to_string().contains("root:"), "{sql}: {error}");
    }
    assert!(!out.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_reaches_the_host_where_the_operator_says_so() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    pod.write("in/a.csv", "a,b\n1,x\n").write("in/b.csv", "a,b\n2,y\n").write("out/secret.csv", "a,b\n9,z\n");
    let root = pod.path();
    std::os::unix::fs::symlink(root.join("out"), root.join("in/link")).unwrap();
    pod.options.host_paths = vec![root.join("in")];
    let session = pod.session().await;
    let root = root.display();

    run(&*session, &format!("CREATE EXTERNAL TABLE one STORED AS CSV LOCATION '{root}/in/a.csv'")).await;
    assert_eq!(run(&*session, "SELECT * FROM one").await, ["1 | x"]);
    run(&*session, &format!("CREATE EXTERNAL TABLE some STORED AS CSV LOCATION '{root}/in/[ab].csv'")).await;
    assert_eq!(run(&*session, "SELECT sum(a) FROM some").await, ["3"]);
    assert_eq!(run(&*session, &format!("COPY some TO '{root}/in/new/copy.parquet'")).await, ["2"]);
    assert!(pod.path().join("in/new/copy.parquet").is_file());
    assert_eq!(run(&*session, &format!("COPY some TO 'file://{root}/in/dir/' STORED AS CSV")).await, ["2"]);
    assert!(pod.path().join("in/dir").is_dir());

    for location in [
        format!("{root}/out/secret.csv"),
        format!("{root}/in/../out/secret.csv"),
        format!("{root}/in/link/secret.csv"),
        format!("file://{root}/in/%2e%2e/out/secret.csv"),
        format!("{root}/in/../out/*.csv"),
        "in/a.csv".to_owned(),
    ] {
        denied(&*session, &format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{location}'"), "host_paths").await;
        denied(&*session, &format!("COPY m TO '{location}' STORED AS CSV"), "host_paths").await;
    }
}

/// A link inside an allowed directory leads out of it: each listed file is checked at its real location.
#[tokio::test(flavor = "multi_thread")]
async fn links_within_lead_nowhere_else() {
    let mut pod = Pod::new();
    pod.write("in/sub/a.csv", "a,b\n1,x\n").write("out/secret.csv", "a,b\n9,z\n").write("in/x.arrow", "no Arrow file");
    let root = pod.path();
    std::os::unix::fs::symlink(root.join("out/secret.csv"), root.join("in/sub/b.csv")).unwrap();
    pod.options.host_paths = vec![root.join("in")];
    pod.dataset("mine", "file:in/sub/a.csv");
    let session = pod.session().await;
    let root = root.display().to_string();
    run(&*session, &format!("CREATE EXTERNAL TABLE folder STORED AS CSV LOCATION '{root}/in/sub/'")).await;
    assert_eq!(run(&*session, "SELECT * FROM folder").await, ["1 | x"]);
    run(&*session, &format!("CREATE EXTERNAL TABLE some STORED AS CSV LOCATION '{root}/in/sub/*.csv'")).await;
    assert_eq!(run(&*session, "SELECT * FROM some").await, ["1 | x"]);
    let external = format!("CREATE EXTERNAL TABLE f STORED AS ARROW LOCATION '{root}/in/x.arrow'");
    assert_eq!(fails(&*session, &external).await.kind(), ErrorKind::Unsupported);
    for table in ["folder", "some"] {
        let shown = run(&*session, &format!("SHOW CREATE TABLE {table}")).await.join("\n");
        assert!(shown.contains("sub") && !shown.contains(root.trim_start_matches('/')), "{shown}");
    }
    // Plans do not reveal where on the host the files are either.
    for table in ["folder", "some", "mine"] {
        for sql in
            ["EXPLAIN SELECT *", "EXPLAIN ANALYZE SELECT *", "EXPLAIN VERBOSE SELECT *", "SELECT input_file_name()"]
        {
            // `input_file_name` does not support the pod's own text files.
            if table == "mine" && sql.contains("input_file_name") {
                continue;
            }
            let shown = run(&*session, &format!("{sql} FROM {table}")).await.join("\n");
            assert!(!shown.contains(root.trim_start_matches('/')), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bounds_a_caller_cannot_be_set() {
    let session = Pod::new().session().await;
    for sql in [
        "SET datafusion.runtime.memory_limit = '100G'",
        "SET datafusion.runtime.temp_directory = '/etc'",
        "RESET datafusion.runtime.memory_limit",
        "SET datafusion.sql_parser.recursion_limit = 1000000",
        "SET datafusion.execution.batch_size = 100000000",
        "PREPARE p AS SELECT 1; SET datafusion.runtime.memory_limit = '1G'",
    ] {
        let error = fails(&*session, sql).await;
        let several = sql.contains(';');
        assert_eq!(
            error.kind(),
            if several { ErrorKind::InvalidStatement } else { ErrorKind::Denied },
            "{sql}: {error}"
        );
    }
}
