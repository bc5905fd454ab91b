//! What `spiced` costs beside nginx and a pyarrow Flight server: builds it as it is shipped, and has
//! the crate in `bench/` measure it.

use std::path::PathBuf;
use std::process::Command;

use crate::tools::{self, Outcome, cargo, has, need, python, root, target};

/// Debian keeps it where only root looks.
const NGINX: [&str; 2] = ["nginx", "/usr/sbin/nginx"];

/// `--write` also writes docs/figures.md; whatever else is said is for the bench.
pub fn run(arguments: &[String]) -> Outcome {
    let nginx = nginx()?;
    let python = python(&root().join("conformance").join("requirements.txt"))?;
    tools::run(cargo().args(["build", "--release", "-p", "spiced", "-p", "spiced-bench"]))?;

    let built = target().join("release");
    let mut bench = Command::new(built.join("spiced-bench"));
    bench.current_dir(root());
    bench.arg("--spiced").arg(built.join("spiced")).arg("--nginx").arg(nginx).arg("--python").arg(python);
    bench.arg("--out").arg(target().join("bench"));
    if arguments.iter().any(|argument| argument == "--write") {
        bench.arg("--page").arg(root().join("docs").join("figures.md"));
    }
    tools::run(bench.args(arguments.iter().filter(|argument| *argument != "--write")))
}

fn nginx() -> Outcome<PathBuf> {
    let find = || NGINX.into_iter().find(|program| has(program)).map(PathBuf::from);
    match find() {
        Some(program) => Ok(program),
        None => {
            need(&[("nginx", "nginx")])?;
            find().ok_or_else(|| "nginx is installed, and neither in PATH nor in /usr/sbin".to_owned())
        }
    }
}
