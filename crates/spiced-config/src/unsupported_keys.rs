//! Keys that Spice.ai knows and this program does not: a warning each, not an error.

use crate::settings::Warning;
use crate::tree::{Kind, Node};

/// The path of a key, and its name. `datasets[]` means each item of the list.
pub(crate) const FOREIGN: &[(&[&str], &[&str])] = &[
    (
        &[],
        &[
            "models",
            "embeddings",
            "dependencies",
            "tools",
            "catalogs",
            "evals",
            "workers",
            "snapshots",
            "extensions",
            "management",
            "metadata",
            "params",
            "description",
            "tags",
        ],
    ),
    (
        &["runtime"],
        &[
            "caching",
            "results_cache",
            "dataset_load_parallelism",
            "num_of_parallel_loading_at_start_up",
            "task_history",
            "telemetry",
            "tracing",
            "params",
            "ready_state",
            "query",
            "output_level",
            "scheduler",
            "temp_directory",
            "memory_limit",
            "metrics",
            "flight",
        ],
    ),
    (
        &["datasets", "[]"],
        &[
            "description",
            "metadata",
            "acceleration",
            "ready_state",
            "time_column",
            "time_format",
            "time_partition_column",
            "time_partition_format",
            "unsupported_type_action",
            "invalid_type_action",
            "embeddings",
            "full_text_search",
            "vectors",
            "replication",
            "depends_on",
            "dependsOn",
            "mode",
            "metrics",
            "check_availability",
            "on_schema_change",
        ],
    ),
];

/// Takes the keys of the table out of `root`, with a warning for each.
pub(crate) fn prune(root: &mut Node) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (path, names) in FOREIGN {
        prune_at(root, path, names, &mut warnings);
    }
    warnings
}

fn prune_at(node: &mut Node, path: &[&str], names: &[&str], warnings: &mut Vec<Warning>) {
    match (path.split_first(), &mut node.kind) {
        (Some((&"[]", rest)), Kind::List(items)) => {
            items.iter_mut().for_each(|item| prune_at(item, rest, names, warnings));
        }
        (Some((name, rest)), _) => {
            if let Some(child) = node.get_mut(&[name]) {
                prune_at(child, rest, names, warnings);
            }
        }
        (None, Kind::Map(entries)) => entries.retain(|(key, _)| {
            let foreign = names.contains(&key.name.as_str());
            if foreign {
                let message = format!("`{}` is known to Spice.ai and does nothing here; it is left out", key.name);
                warnings.push(Warning { origin: Some(key.origin.clone()), message });
            }
            !foreign
        }),
        (None, _) => {}
    }
}
