//! The data that is bundled with the repository can be queried.

use spiced_datafusion::DatasetSpec;

use crate::{Pod, run};

#[tokio::test(flavor = "multi_thread")]
async fn the_bundled_data_answers() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut pod = Pod::new();
    for name in ["flights", "airlines", "airports", "weather"] {
        pod.options.datasets.push(DatasetSpec::new(name, format!("file:data/{name}.parquet"), root));
    }
    let session = pod.session().await;
    let late = "SELECT a.name, count(*) AS flights, round(avg(f.departure_delay), 1) AS minutes_late \
                FROM flights f JOIN airlines a USING (carrier) GROUP BY a.name HAVING count(*) > 100 ORDER BY minutes_late DESC LIMIT 3";
    let far = "SELECT p.name, max(f.distance) AS miles, count(*) AS flights \
               FROM flights f JOIN airports p ON p.faa = f.dest GROUP BY p.name ORDER BY miles DESC LIMIT 3";
    let wind = "SELECT w.wind_speed_mph >= 25 AS windy, round(avg(f.departure_delay), 1) AS minutes_late, count(*) AS flights \
                FROM flights f JOIN weather w ON w.origin = f.origin \
                AND w.hour = date_trunc('hour', f.scheduled_departure) \
                WHERE w.wind_speed_mph IS NOT NULL GROUP BY 1 ORDER BY 1";
    for (sql, expected) in [
        ("SELECT count(*), min(date), max(date) FROM flights", vec!["80789 | 2013-01-01 | 2013-03-31"]),
        (
            late,
            vec![
                "ExpressJet Airlines Inc. | 12724 | 24.1",
                "Frontier Airlines Inc. | 165 | 18.1",
                "Mesa Airlines Inc. | 112 | 16.3",
            ],
        ),
        (
            far,
            vec![
                "Honolulu Intl | 4983 | 180",
                "San Francisco Intl | 2586 | 2564",
                "Metropolitan Oakland Intl | 2576 | 60",
            ],
        ),
        (wind, vec!["false | 11.1 | 77100", "true | 18.1 | 3581"]),
    ] {
        let rows = run(&*session, sql).await;
        assert_eq!(rows, expected, "{sql}");
    }
}
