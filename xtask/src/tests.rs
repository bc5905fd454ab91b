//! Runs every test: the crates' own tests, the examples in their docs, and the conformance suite, which tests a real
//! `spiced` with third-party clients.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::clients;
use crate::tools::{self, Outcome, cargo, has, need, python, root, target};

pub fn run(arguments: &[String]) -> Outcome {
    let python = prepared()?;

    // One selection of packages for all steps, so that nothing is built twice.
    if has("cargo-nextest") {
        tools::run(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"]))?;
    } else {
        tools::run(cargo().args(["test", "--workspace", "--all-targets", "--no-fail-fast"]))?;
    }
    tools::run(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;

    // Only a full run can check the table of clients.
    let table = if arguments.is_empty() { "--clients-table=check" } else { "--clients-table=off" };
    suite(&python, &["-rs", table], arguments)
}

/// Runs the tests that fill the tables of docs/clients.md, and rewrites the tables.
pub fn clients_table() -> Outcome {
    suite(&prepared()?, &["-rs", "-m", "feature", "--clients-table=write"], &[])
}

/// Runs the tests that take too long for every day: longer fuzzing, a thousand rotations and a hundred stops under
/// load, 10 GB through each endpoint, TPC-H at scale 1. `PROPTEST_CASES`, `SPICED_ROTATIONS`, `SPICED_STOPS`,
/// `SPICED_LARGE_ROWS` and `SPICED_TPCH_SCALE` set the amounts.
pub fn soak() -> Outcome {
    let often = |name: &str, times: &str| (name.to_owned(), std::env::var(name).unwrap_or_else(|_| times.to_owned()));
    let python = prepared()?;
    let mut fuzz = cargo();
    fuzz.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    tools::run(fuzz.envs([often("PROPTEST_CASES", "20000")]))?;
    tools::run(cargo().args(["build", "--release", "-p", "spiced"]))?;
    let mut long = Command::new(python);
    long.current_dir(root()).env("SPICED_BIN", target().join("release").join("spiced")).envs(clients::environment());
    long.envs([
        often("SPICED_ROTATIONS", "1000"),
        often("SPICED_LARGE_ROWS", "10000000"),
        often("SPICED_TPCH_SCALE", "1"),
        often("SPICED_STOPS", "100"),
    ]);
    long.args([
        "-m",
        "pytest",
        "conformance/tls/test_rotation_under_load.py",
        "conformance/http/test_large.py",
        "conformance/sql/test_tpch.py",
        "conformance/http/test_wire_limits.py::test_stops_under_load_lose_no_request",
        "-q",
        "-rs",
        "-s",
    ]);
    tools::run(&mut long)
}

fn prepared() -> Outcome<PathBuf> {
    need(&[
        ("curl", "curl"),
        ("jq", "jq"),
        ("keyctl", "keyutils"),
        ("openssl", "openssl"),
        ("python3", "python3"),
        ("unshare", "util-linux"),
    ])?;
    python("python", &root().join("conformance").join("requirements.txt"))
}

fn suite(python: &Path, words: &[&str], arguments: &[String]) -> Outcome {
    tools::run(cargo().args(["build", "-p", "spiced"]))?;
    let mut suite = Command::new(python);
    suite.current_dir(root()).env("SPICED_BIN", target().join("debug").join("spiced"));
    suite.env("SPICED_EXAMPLES", target().join("debug").join("examples")).envs(clients::environment());
    suite.args(["-m", "pytest", "conformance", "-n", "2", "-q"]).args(words).args(arguments);
    tools::run(&mut suite)
}
