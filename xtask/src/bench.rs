//! What `spiced` costs beside nginx and a pyarrow Flight server: builds it as it is shipped, and has
//! the crate in `bench/` measure it.

use std::process::Command;

use crate::tools::{self, NGINX, Outcome, cargo, find, need, python, root, target};

/// `tpch` measures the doors' cost of TPC-H beside DataFusion alone, `growth` how cost grows. `--write` also writes the page
/// of the docs; whatever else is said is for the bench.
pub fn run(arguments: &[String]) -> Outcome {
    need(&[NGINX])?;
    let nginx = find(NGINX.0).ok_or("nginx is installed, and cannot be found")?;
    let python = python("python", &root().join("conformance").join("requirements.txt"))?;
    tools::run(cargo().args(["build", "--release", "-p", "spiced", "-p", "spiced-bench"]))?;

    let built = target().join("release");
    if arguments.first().is_some_and(|what| what == "tpch") {
        let mut tpch = Command::new(python);
        tpch.current_dir(root()).arg("bench/peers/tpch.py").arg(built.join("spiced"));
        return tools::run(tpch.args(&arguments[1..]));
    }
    let mut bench = Command::new(built.join("spiced-bench"));
    bench.current_dir(root());
    bench.arg("--spiced").arg(built.join("spiced")).arg("--nginx").arg(nginx).arg("--python").arg(python);
    bench.arg("--out").arg(target().join("bench"));
    let grows = arguments.first().is_some_and(|what| what == "growth");
    let page = if grows { "growth.md" } else { "figures.md" };
    if arguments.iter().any(|argument| argument == "--write") {
        bench.arg("--page").arg(root().join("docs").join(page));
    }
    if grows {
        bench.arg("--growth");
    }
    tools::run(bench.args(arguments.iter().skip(usize::from(grows)).filter(|argument| *argument != "--write")))
}
