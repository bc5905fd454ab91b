//! Checks the source: format, clippy, rustdoc, licences and banned crates, crate dependencies, docs.

use std::process::Command;

use crate::tools::{self, Outcome, cargo, crates_io, root};
use crate::{docs_lint, edges};

const CARGO_DENY: &str = "0.20.2";

pub fn run() -> Outcome {
    tools::run(cargo().args(["fmt", "--all", "--check"]))?;
    edges::run()?;
    docs_lint::run()?;
    tools::run(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    let mut docs = cargo();
    docs.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    tools::run(&mut docs)?;
    let deny = crates_io("cargo-deny", CARGO_DENY)?;
    let mut check = Command::new(deny);
    check.current_dir(root()).args(["--locked", "check", "bans", "licenses", "sources"]);
    tools::run(&mut check)
}
