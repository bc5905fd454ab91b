//! Compares the instruction counts of the endpoints with `guard/baseline.json`; a busy machine does not change them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::tools::{self, Outcome, cargo, need, root, target};

/// The maximum relative difference from the baseline, in either direction.
const TOLERANCE: f64 = 0.10;

/// Forces the same kind of copy on every processor: where `rep movsb` is used, it counts one instruction for each byte.
const SAME_COPIES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_non_temporal_threshold=1073741824";

/// Counts and compares; with `write`, makes the counts the new baseline.
pub fn run(write: bool) -> Outcome {
    need(&[("valgrind", "valgrind")])?;
    tools::run(cargo().args(["build", "--release", "-p", "spiced-guard"]))?;
    let program = target().join("release").join("spiced-guard");
    let listed = Command::new(&program).output().map_err(|e| format!("{}: {e}", program.display()))?;
    let names = String::from_utf8_lossy(&listed.stdout);
    let counted = names.lines().map(|work| Ok((work.to_owned(), count(&program, work)?)));
    let counted = counted.collect::<Outcome<BTreeMap<String, u64>>>()?;
    let file = root().join("guard").join("baseline.json");
    if write {
        let text = serde_json::to_string_pretty(&counted).map_err(|e| e.to_string())?;
        return std::fs::write(&file, text + "\n").map_err(|e| format!("{}: {e}", file.display()));
    }
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let baseline: BTreeMap<String, u64> =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    let gone = baseline.keys().filter(|work| !counted.contains_key(*work));
    let mut wrong: Vec<String> = gone.map(|work| format!("{work} is in the baseline, and is not counted")).collect();
    for (work, count) in &counted {
        let before = baseline.get(work).ok_or_else(|| format!("{} does not have {work}", file.display()))?;
        let ratio = *count as f64 / *before as f64;
        eprintln!("guard: {work}: {count} instructions, {ratio:.3} of the baseline");
        if (ratio - 1.0).abs() > TOLERANCE {
            wrong.push(format!("{work} takes {count} instructions, {ratio:.2} times the baseline's {before}"));
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("{}; where that is meant: cargo xtask guard --write", wrong.join("; "))),
    }
}

/// Returns the number of instructions in `counted`.
fn count(program: &Path, work: &str) -> Outcome<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.env("GLIBC_TUNABLES", SAME_COPIES);
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted*"]);
    let ended = valgrind.arg(program).arg(work).output().map_err(|e| format!("valgrind: {e}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if !ended.status.success() {
        return Err(format!("{work} under valgrind ended with {}: {said}", ended.status));
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.filter(|count| *count > 0).ok_or_else(|| format!("valgrind counted nothing of {work}: {said}"))
}
