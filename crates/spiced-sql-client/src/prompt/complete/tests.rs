use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};
use proptest::prelude::*;

use super::*;

fn catalog() -> Catalog {
    let table = |schema: &str, name: &str, columns: &[&str]| Table {
        catalog: "spice".into(),
        schema: schema.into(),
        name: name.into(),
        kind: "TABLE".into(),
        columns: Arc::new(Schema::new(
            columns.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Vec<_>>(),
        )),
    };
    Catalog {
        tables: vec![
            table("public", "trips", &["id", "fare", "Tip", "order"]),
            table("public", "zones", &["id", "zone_name"]),
            table("audit", "trips_log", &["at"]),
        ],
    }
}

/// Returns the first suggestions at the cursor `|`, after the part of the word that is already typed.
fn offered(text: &str) -> String {
    let at = text.find('|').unwrap();
    let line = text.replace('|', "");
    let (start, candidates) = complete(&line, at, &catalog());
    let shown: Vec<_> = candidates.iter().take(5).map(String::as_str).collect();
    format!("{}<{}", &line[start..at], shown.join(" "))
}

#[test]
fn what_is_offered_where() {
    for (text, expected) in [
        ("SEL|", "SEL<SELECT"),
        ("sel|", "sel<select"),
        ("SELECT * FROM |", "<trips zones trips_log public audit"),
        ("SELECT * FROM tr|", "tr<trips trips_log"),
        ("SELECT * FROM TR|", "TR<trips trips_log"),
        ("SELECT * FROM public.|", "<trips zones"),
        ("SELECT * FROM trips, z|", "z<zones"),
        ("SELECT * FROM trips t JOIN z|", "z<zones"),
        ("INSERT INTO z|", "z<zones"),
        ("SELECT fa|", "fa<fare false"),
        ("SELECT zo| FROM trips", "zo<"),
        ("SELECT zo| FROM zones", "zo<zone_name zones"),
        ("SELECT t.| FROM trips AS t", "<id fare \"Tip\" \"order\""),
        ("SELECT t.ti| FROM trips t", "ti<\"Tip\""),
        ("SELECT trips_log.|", "<at"),
        ("SELECT * FROM trips WHERE fa|", "fa<fare false"),
        ("SELECT * FROM zones; SELECT fa| FROM trips", "fa<fare false"),
        ("SELECT zone_n|; SELECT * FROM trips", "zone_n<zone_name"),
        ("SELECT * FROM trips ord|", "ord<\"order\" order"),
        ("SELECT * FROM trips tt, zones WHERE t|", "t<\"Tip\" tt table tables temporary"),
        ("SELECT '|", "<"),
        ("SELECT 'FROM |", "<"),
        ("SELECT 1 -- FROM |", "<"),
        ("\\|", "\\<\\d \\dt \\dn \\l \\i"),
        ("\\ti|", "\\ti<\\timing"),
        ("\\d zo|", "zo<zones"),
        ("\\d audit.|", "<trips_log"),
        ("\\format n|", "n<ndjson"),
        ("\\timing o|", "o<on off"),
        ("\\q |", "<"),
        ("xyz|", "xyz<"),
    ] {
        assert_eq!(offered(text), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn it_never_panics_and_stays_within_the_line(line in "[a-zé.,;'\"\\\\ \n$*/-]{0,40}", at in 0_usize..40) {
        let at = line.char_indices().map(|(at, _)| at).nth(at).unwrap_or(line.len());
        let (start, candidates) = complete(&line, at, &catalog());
        prop_assert!(start <= at && line.is_char_boundary(start));
        prop_assert!(candidates.len() <= MAX_SUGGESTIONS);
    }
}
