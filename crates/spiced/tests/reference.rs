//! Compares the reference pages of the docs with the code that generates them. `cargo xtask docs` regenerates them.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;

use clap::CommandFactory;
use serde_json::Value;

const HEAD: &str = "<!-- Made from the code by `cargo xtask docs`; changes here are lost. -->\n\n";

fn page(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name);
    if std::env::var_os("SPICED_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "docs/reference/{name} is not what the code says: run `cargo xtask docs`");
}

#[test]
fn configuration() {
    let schema = spiced_config::schema();
    let mut out = format!(
        "{HEAD}# Every key of spicepod.yaml\n\n\
         `spiced schema` prints the same keys as JSON Schema, for editors:\n\
         [`spicepod.schema.json`](spicepod.schema.json). A key of `runtime` is also an environment variable:\n\
         `runtime.tls.key_file` is `SPICED_RUNTIME__TLS__KEY_FILE`. Any value may contain `${{store:KEY}}`.\n"
    );
    section(&schema, "", &mut out);
    page("configuration.md", &out);
    page("spicepod.schema.json", &format!("{schema:#}\n"));
}

/// Writes a table of the keys below `path`, then a section for each key that has keys below it.
fn section(schema: &Value, path: &str, out: &mut String) {
    let properties = schema["properties"].as_object().unwrap();
    let known = properties.iter().filter(|(_, inner)| inner["deprecated"] != true);
    let (nested, plain): (Vec<_>, Vec<_>) = known.partition(|(_, inner)| keyed(inner).is_some());
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if !plain.is_empty() {
        let heading = if path.is_empty() { "The top" } else { path };
        let code = if path.is_empty() { "" } else { "`" };
        writeln!(out, "\n## {code}{heading}{code}\n\n| key | default | |\n| --- | --- | --- |").unwrap();
    }
    for (name, inner) in plain {
        let required = schema["required"].as_array().is_some_and(|r| r.iter().any(|key| key == name));
        let default = match (&inner["default"], &inner["x-unset"]) {
            _ if required => "required".to_owned(),
            (Value::String(text), _) => format!("`{text}`"),
            (Value::Null | Value::Array(_) | Value::Object(_), Value::String(words)) => words.clone(),
            (Value::Null | Value::Array(_) | Value::Object(_), _) => String::new(),
            (other, _) => format!("`{other}`"),
        };
        let text = inner["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        writeln!(out, "| `{name}` | {default} | {text} |").unwrap();
    }
    for (name, inner) in nested {
        let (inner, list) = keyed(inner).unwrap();
        section(inner, &format!("{}{}", join(name), if list { "[]" } else { "" }), out);
    }
}

/// Returns the schema of the keys below a value, and whether the value is a list.
fn keyed(schema: &Value) -> Option<(&Value, bool)> {
    [(schema, false), (&schema["items"], true)].into_iter().find(|(s, _)| s["properties"].is_object())
}

#[test]
fn command_line() {
    fn walk(command: &mut clap::Command, path: &str, out: &mut String) {
        writeln!(out, "\n## {path}\n\n```\n{}\n```", command.render_long_help().to_string().trim_end()).unwrap();
        for inner in command.get_subcommands_mut() {
            let path = format!("{path} {}", inner.get_name());
            walk(inner, &path, out);
        }
    }
    let mut command = spiced::Args::command().term_width(100);
    command.build();
    let mut out = format!("{HEAD}# The command line\n");
    walk(&mut command, "spiced", &mut out);
    page("command-line.md", &out);
}

#[test]
fn metrics() {
    let mut out = format!(
        "{HEAD}# Metrics\n\nWhat `--metrics` serves, as Prometheus reads it.\n\n\
         | metric | kind | labels | |\n| --- | --- | --- | --- |\n"
    );
    for metric in spiced_telemetry::METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(out, "| `{}` | {} | {} | {} |", metric.name, metric.kind, labels.join(", "), metric.help).unwrap();
    }
    page("metrics.md", &out);
}
