//! Builds `spiced` as it is shipped, and measures it with the crate in `bench/` against nginx and a pyarrow Flight
//! server.

use std::process::Command;

use crate::tools::{self, NGINX, Outcome, cargo, find, need, python, root, target};

/// Runs the benchmark. `tpch` measures the endpoints' cost of TPC-H compared with DataFusion alone, `growth` how cost
/// grows. `--write` also writes the page of the docs; other arguments are passed to the benchmark.
pub fn run(arguments: &[String]) -> Outcome {
    need(&[NGINX])?;
    let nginx = find(NGINX.0).ok_or("nginx is installed, and cannot be found")?;
    let python = python("python", &root().join("conformance").join("requirements.txt"))?;
    tools::run(cargo().args(["build", "--release", "-p", "spiced", "-p", "spiced-bench"]))?;

    let built = target().join("release");
    let (what, page) = match arguments.first().map(String::as_str) {
        Some("tpch") => ("tpch", "tpch.md"),
        Some("growth") => ("growth", "growth.md"),
        _ => ("", "figures.md"),
    };
    let mut bench = match what {
        "tpch" => {
            let mut bench = Command::new(python);
            bench.arg("bench/peers/tpch.py").arg(built.join("spiced"));
            bench
        }
        _ => {
            let mut bench = Command::new(built.join("spiced-bench"));
            bench.arg("--spiced").arg(built.join("spiced")).arg("--nginx").arg(nginx).arg("--python").arg(python);
            bench.arg("--out").arg(target().join("bench"));
            bench
        }
    };
    bench.current_dir(root());
    if what == "growth" {
        bench.arg("--growth");
    }
    if arguments.iter().any(|argument| argument == "--write") {
        bench.arg("--page").arg(root().join("docs").join(page));
    }
    let rest = arguments.iter().skip(usize::from(!what.is_empty())).filter(|argument| *argument != "--write");
    tools::run(bench.args(rest))
}
