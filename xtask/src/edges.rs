//! Checks the dependencies between crates in `docs/architecture.md` against `cargo metadata`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tools::{Outcome, cargo};

/// Each workspace crate, with the workspace crates that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("tls-core", &[]),
    ("spiced-engine", &[]),
    ("spiced-files", &["tls-core"]),
    ("spiced-certs", &["spiced-files", "tls-core"]),
    ("spiced-secrets", &["spiced-files", "tls-core"]),
    ("spiced-telemetry", &["tls-core"]),
    ("spiced-config", &["spiced-files", "spiced-secrets", "tls-core"]),
    ("spiced-middleware", &["spiced-engine", "tls-core"]),
    ("spiced-datafusion", &["spiced-engine", "spiced-certs", "tls-core"]),
    ("spiced-formats", &["spiced-engine", "tls-core"]),
    ("spiced-http", &["spiced-formats", "spiced-middleware", "spiced-engine", "tls-core"]),
    ("spiced-flight", &["spiced-middleware", "spiced-engine", "tls-core"]),
    ("spiced-grpc", &["spiced-middleware", "spiced-engine", "tls-core"]),
    (
        "spiced",
        &[
            "tls-core",
            "spiced-files",
            "spiced-certs",
            "spiced-secrets",
            "spiced-config",
            "spiced-engine",
            "spiced-datafusion",
            "spiced-middleware",
            "spiced-http",
            "spiced-flight",
            "spiced-grpc",
            "spiced-sql-client",
            "spiced-client-snippets",
            "spiced-telemetry",
        ],
    ),
    ("spiced-sql-client", &["spiced-certs", "spiced-formats", "tls-core"]),
    ("spiced-client-snippets", &["spiced-certs", "tls-core"]),
    // For tests alone, so it is on no other crate's list.
    ("testkit", &["spiced-engine", "tls-core"]),
    ("xtask", &[]),
    ("spiced-bench", &["tls-core"]),
    ("spiced-guard", &["spiced-http", "spiced-flight", "spiced-middleware", "spiced-engine"]),
];

/// Crates that must not appear among the dependencies of the base crates and of the servers.
const ABSENT: &[(&str, &[&str])] = &[
    ("tls-core", &["clap", "figment", "datafusion", "axum", "tonic"]),
    ("spiced-engine", &["clap", "figment", "datafusion", "axum", "tonic", "rustls"]),
    ("spiced-http", &["datafusion", "tonic"]),
    ("spiced-flight", &["datafusion"]),
    ("spiced-grpc", &["datafusion"]),
    ("spiced-sql-client", &["datafusion", "figment"]),
    ("spiced-client-snippets", &["datafusion", "figment", "axum", "tonic"]),
];

pub fn run() -> Outcome {
    let output = cargo().args(["metadata", "--format-version=1", "--locked"]).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let mut wrong = direct_edges(&metadata);
    wrong.extend(buried(&metadata));
    if wrong.is_empty() {
        eprintln!("edges: as docs/architecture.md has them");
        return Ok(());
    }
    Err(format!("edges that docs/architecture.md does not have:\n  {}", wrong.join("\n  ")))
}

fn direct_edges(metadata: &Value) -> Vec<String> {
    let ours: BTreeSet<&str> = members(metadata).map(|package| text(&package["name"])).collect();
    let mut wrong = Vec::new();
    for package in members(metadata) {
        let name = text(&package["name"]);
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{name} has no line in xtask/src/edges.rs"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            let to = text(&dependency["name"]);
            // Dependencies of tests do not count.
            if dependency["kind"].is_null() && ours.contains(to) && !allowed.contains(&to) {
                wrong.push(format!("{name} -> {to}"));
            }
        }
    }
    wrong
}

/// Finds banned crates in the resolved graph, without the dependencies of tests and build scripts.
fn buried(metadata: &Value) -> Vec<String> {
    let nodes = list(&metadata["resolve"]["nodes"]);
    let name_of = |id: &str| {
        list(&metadata["packages"]).iter().find(|p| text(&p["id"]) == id).map_or("", |p| text(&p["name"])).to_owned()
    };
    let mut wrong = Vec::new();
    for (root, absent) in ABSENT {
        let Some(start) = members(metadata).find(|p| text(&p["name"]) == *root) else { continue };
        let (mut seen, mut next) = (BTreeSet::new(), vec![text(&start["id"])]);
        while let Some(id) = next.pop() {
            if !seen.insert(id) {
                continue;
            }
            let Some(node) = nodes.iter().find(|n| text(&n["id"]) == id) else { continue };
            for dependency in list(&node["deps"]) {
                if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                    next.push(text(&dependency["pkg"]));
                }
            }
        }
        let names: BTreeSet<String> = seen.into_iter().map(name_of).collect();
        wrong.extend(absent.iter().filter(|bad| names.contains(**bad)).map(|bad| format!("{root} ... {bad}")));
    }
    wrong
}

fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    let ids: BTreeSet<&str> = list(&metadata["workspace_members"]).iter().map(text).collect();
    list(&metadata["packages"]).iter().filter(move |package| ids.contains(text(&package["id"])))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
