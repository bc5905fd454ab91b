//! Every test: the crates' own, their examples in the docs, and the conformance suite, which drives
//! a real `spiced` with clients that nobody here wrote.

use std::process::Command;

use crate::tools::{self, Outcome, cargo, has, need, python, root, target};

pub fn run(arguments: &[String]) -> Outcome {
    need(&[
        ("curl", "curl"),
        ("jq", "jq"),
        ("keyctl", "keyutils"),
        ("openssl", "openssl"),
        ("python3", "python3"),
        ("unshare", "util-linux"),
    ])?;
    let python = python(&root().join("conformance").join("requirements.txt"))?;

    // One selection of packages for everything, so that nothing is built twice.
    if has("cargo-nextest") {
        tools::run(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"]))?;
    } else {
        tools::run(cargo().args(["test", "--workspace", "--all-targets", "--no-fail-fast"]))?;
    }
    tools::run(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;

    tools::run(cargo().args(["build", "-p", "spiced"]))?;
    let mut suite = Command::new(python);
    suite.current_dir(root()).env("SPICED_BIN", target().join("debug").join("spiced"));
    suite.args(["-m", "pytest", "conformance", "-n", "2", "-q", "-rs"]).args(arguments);
    tools::run(&mut suite)
}
