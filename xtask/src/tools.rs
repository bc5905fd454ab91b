//! Installs the tools that the tasks need, pinned, if they are missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The result of a task: a value, or an error message.
pub type Outcome<T = ()> = Result<T, String>;

/// Returns the workspace's root directory.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Returns the cache for tools and virtual environments: `~/.cache/spiced`, or `SPICED_CACHE`.
pub fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from).join(".cache").join("spiced");
    std::env::var_os("SPICED_CACHE").map_or_else(home, PathBuf::from)
}

/// Returns a command for the cargo that runs this task.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command; any failure is an error that shows the command.
pub fn run(command: &mut Command) -> Outcome {
    eprintln!("+ {}", shown(command));
    let status = command.status().map_err(|e| format!("cannot run {}: {e}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command))) }
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// nginx, and the package that provides it.
pub const NGINX: (&str, &str) = ("nginx", "nginx-light");

/// Where Debian installs servers; not in every user's `PATH`.
const SERVERS: &str = "/usr/sbin";

/// Returns the path that starts `program`; an absolute path only has to exist.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let starts = |path: &PathBuf| {
        Command::new(path).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    [PathBuf::from(program), Path::new(SERVERS).join(program)].into_iter().find(starts)
}

/// Returns true if [`find`] finds it.
pub fn has(program: &str) -> bool {
    find(program).is_some()
}

/// Installs the Debian packages of missing programs, without starting their services.
pub fn need(programs: &[(&str, &str)]) -> Outcome {
    let missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Another program may read this program's standard output.
    let install = || -> Outcome {
        let _quiet = NoServices::new();
        run(Command::new("apt-get").args(["update", "-qq"]).stdout(std::io::stderr()))?;
        let mut install = Command::new("apt-get");
        run(install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing).stdout(std::io::stderr()))
    };
    install().map_err(|e| format!("the tests need {}; install them by hand ({e})", missing.join(", ")))
}

/// Prevents Debian from starting a package's services, by the script that Debian runs first (policy-rc.d,
/// invoke-rc.d(8)): a web server that a test needs must not take the machine's port 80.
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn new() -> Self {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        let written = !path.exists() && std::fs::write(&path, "#!/bin/sh\nexit 101\n").is_ok();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        Self((written && std::fs::set_permissions(&path, executable).is_ok()).then_some(path))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Returns a program from crates.io in exactly this version, built once into the cache.
pub fn crates_io(name: &str, version: &str) -> Outcome<PathBuf> {
    let folder = cache().join("tools").join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        let mut install = cargo();
        install.args(["install", name, "--version", version, "--locked", "--quiet", "--root"]).arg(&folder);
        run(&mut install)?;
    }
    Ok(program)
}

/// Returns a Python with the packages of a requirements file; rebuilt when the file changes. `name` is its directory in
/// the cache.
pub fn python(name: &str, requirements: &Path) -> Outcome<PathBuf> {
    let text = std::fs::read_to_string(requirements).map_err(|e| format!("{}: {e}", requirements.display()))?;
    let folder = cache().join(name);
    let (program, mark) = (folder.join("bin").join("python"), folder.join("requirements.txt"));
    if program.is_file() && std::fs::read_to_string(&mark).is_ok_and(|made| made == text) {
        return Ok(program);
    }
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(cache()).map_err(|e| e.to_string())?;
    if run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).is_err() {
        // Debian packages this module separately.
        need(&[("python3-venv-is-missing", "python3-venv")])?;
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    run(Command::new(&program)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements))?;
    std::fs::write(&mark, text).map_err(|e| e.to_string())?;
    Ok(program)
}

/// Returns the target directory that cargo builds into.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
