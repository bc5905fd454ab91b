//! Keys that Spice.ai knows and this program does not: a warning each, not an error.

use figment::value::{Dict, Value};

use crate::providers::{Place, Places, child};
use crate::settings::Warning;

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

/// Takes the keys of the table out of a pod, with a warning for each.
pub(crate) fn prune(pod: &mut Dict, places: &Places) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (path, names) in FOREIGN {
        prune_at(pod, "", path, names, places, &mut warnings);
    }
    warnings
}

fn prune_at(
    entries: &mut Dict,
    pointer: &str,
    path: &[&str],
    names: &[&str],
    places: &Places,
    warnings: &mut Vec<Warning>,
) {
    let Some((first, rest)) = path.split_first() else {
        let mut foreign: Vec<_> = names
            .iter()
            .filter_map(|name| entries.remove(*name).map(|_| (name, places.nearest(&child(pointer, name)))))
            .collect();
        foreign.sort_by_key(|(_, place)| place.map(Place::position));
        for (name, place) in foreign {
            let message = format!("`{name}` is known to Spice.ai and does nothing here; it is left out");
            warnings.push(Warning { origin: place.map(|place| place.key.clone()), message });
        }
        return;
    };
    let pointer = child(pointer, first);
    match (entries.get_mut(*first), rest.split_first()) {
        (Some(Value::Array(_, items)), Some((&"[]", rest))) => {
            for (at, item) in items.iter_mut().enumerate() {
                let Value::Dict(_, inner) = item else { continue };
                prune_at(inner, &child(&pointer, &at.to_string()), rest, names, places, warnings);
            }
        }
        (Some(Value::Dict(_, inner)), _) => prune_at(inner, &pointer, rest, names, places, warnings),
        _ => {}
    }
}
