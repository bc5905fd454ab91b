//! Each crate builds by itself, with each of its features: what the workspace's unified features might hide.

use std::process::Command;

use crate::tools::{self, Outcome, crates_io, root};

const CARGO_HACK: &str = "0.6.46";

/// The engine and the program are left out: the first is built alone by whoever builds the second, and both take
/// DataFusion, minutes for each selection of features.
const LEFT_OUT: [&str; 3] = ["spiced", "spiced-datafusion", "xtask"];

pub fn run() -> Outcome {
    let hack = crates_io("cargo-hack", CARGO_HACK)?;
    let mut check = Command::new(hack);
    check.current_dir(root()).args([
        "hack",
        "check",
        "--locked",
        "--quiet",
        "--workspace",
        "--no-dev-deps",
        "--each-feature",
    ]);
    for name in LEFT_OUT {
        check.args(["--exclude", name]);
    }
    tools::run(&mut check)
}
