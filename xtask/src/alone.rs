//! Checks that each crate builds alone with each of its features, which the workspace's unified features might hide.

use std::process::Command;

use crate::tools::{self, Outcome, crates_io, root};

const CARGO_HACK: &str = "0.6.46";

/// Crates that are not checked. A build of the program covers the engine, and both depend on DataFusion, which takes
/// minutes for each selection of features.
const LEFT_OUT: [&str; 3] = ["spiced", "spiced-datafusion", "xtask"];

pub fn run() -> Outcome {
    let hack = crates_io("cargo-hack", CARGO_HACK)?;
    // Test dependencies add no features here: resolver 3 ignores them unless tests are built.
    let mut check = Command::new(hack);
    check.current_dir(root()).args(["hack", "check", "--locked", "--quiet", "--workspace", "--each-feature"]);
    for name in LEFT_OUT {
        check.args(["--exclude", name]);
    }
    tools::run(&mut check)
}
