//! `env`: the environment of the process, then `.env.local` and `.env` in the pod's directory.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use spiced_files::Unreadable;
use tls_core::Secret;
use tokio::sync::{Mutex, OnceCell};

use super::read::{Content, read};
use super::{OpenArgs, SecretStore, Snapshot, StoreError, dotenv, each};

/// The files in the pod's directory that are read unless `file_path` names another one.
const FILES: [&str; 2] = [".env.local", ".env"];

/// The prefix that Spice uses for its variables.
const PREFIX: &str = "SPICE_";

type Lookup = dyn Fn(&str) -> Option<Secret> + Send + Sync;

/// The source of environment variables: the process, or a fixed set in tests.
#[derive(Clone)]
pub struct Environment(Arc<Lookup>);

impl Environment {
    /// Reads the variables of this process, at the time of each lookup.
    pub fn process() -> Self {
        Self(Arc::new(|name| std::env::var_os(name).map(|value| Secret::new(value.into_encoded_bytes()))))
    }

    /// Uses only these variables.
    pub fn of<N: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables: HashMap<String, Secret> =
            variables.into_iter().map(|(name, value)| (name.into(), Secret::from(value.into()))).collect();
        Self(Arc::new(move |name| variables.get(name).cloned()))
    }

    /// Returns the variable called `name`.
    pub fn get(&self, name: &str) -> Option<Secret> {
        (self.0)(name)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// The store. Files are read on request, and only if the earlier sources do not have the key.
struct EnvStore {
    environment: Environment,
    files: Vec<DotenvFile>,
}

/// The names and values of a file.
type Entries = Result<HashMap<String, Secret>, StoreError>;

struct DotenvFile {
    path: PathBuf,
    /// Whether the pod names the file, so that it must exist.
    named: bool,
    /// The content of a FIFO, which can be read only once.
    kept: Mutex<Option<Secret>>,
}

/// Opens the store; see [`super::KINDS`].
pub(super) fn open(opening: &OpenArgs<'_>) -> Result<Arc<dyn SecretStore>, StoreError> {
    let folder = &opening.surroundings.pod_folder;
    let file = |name: &str, named| DotenvFile { path: folder.join(name), named, kept: Mutex::default() };
    let files = match opening.text("file_path")? {
        Some(path) => vec![file(path, true)],
        None => FILES.map(|name| file(name, false)).into(),
    };
    Ok(Arc::new(EnvStore { environment: opening.surroundings.environment.clone(), files }))
}

impl EnvStore {
    /// Looks `key` up. Each file is read once for all keys of a query, into `read`.
    async fn get(&self, key: &str, read: &[OnceCell<Entries>]) -> Result<Option<Secret>, StoreError> {
        let names = names(key);
        if let Some(secret) = names.iter().find_map(|name| self.environment.get(name)) {
            return Ok(Some(secret));
        }
        for (file, read) in self.files.iter().zip(read) {
            let entries = read.get_or_init(|| file.entries()).await.as_ref().map_err(Clone::clone)?;
            if let Some(secret) = names.iter().find_map(|name| entries.get(name)) {
                return Ok(Some(secret.clone()));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl SecretStore for EnvStore {
    async fn read(&self, keys: &[String]) -> Result<Snapshot, StoreError> {
        let read: Vec<OnceCell<Entries>> = self.files.iter().map(|_| OnceCell::new()).collect();
        Ok(each(keys, async |key| self.get(&key, &read).await).await)
    }

    fn places(&self, key: &str) -> String {
        let files: Vec<_> = self.files.iter().map(|file| file.path.display().to_string()).collect();
        format!("the variables {} of the process, and of {}", names(key).join(", "), files.join(" and "))
    }
}

impl DotenvFile {
    async fn entries(&self) -> Entries {
        let mut kept = self.kept.lock().await;
        let secret = match &*kept {
            Some(secret) => secret.clone(),
            None => match read(&self.path).await? {
                None if self.named => {
                    let missing = Unreadable::of(&self.path, &std::io::ErrorKind::NotFound.into());
                    return Err(StoreError::Unreadable(missing));
                }
                None => return Ok(HashMap::new()),
                Some(Content { secret, is_regular: true }) => secret,
                Some(Content { secret, is_regular: false }) => kept.insert(secret).clone(),
            },
        };
        let entries = dotenv::parse(secret.expose()).map_err(|problem| StoreError::Syntax {
            path: self.path.clone(),
            line: problem.line,
            what: problem.what,
            hint: problem.hint,
        })?;
        // The last of several lines with the same name counts.
        Ok(entries.into_iter().collect())
    }
}

/// Returns the names under which `key` is looked up, in order, without duplicates.
fn names(key: &str) -> Vec<String> {
    let mut names = Vec::with_capacity(4);
    for key in [key.to_owned(), key.to_ascii_uppercase()] {
        for name in [key.clone(), format!("{PREFIX}{key}")] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::StoreEnv;
    use super::super::tests::one;
    use super::*;

    struct Pod(tempfile::TempDir);

    impl Pod {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Self(folder)
        }

        fn store(&self, variables: &[(&str, &str)], file_path: Option<&str>) -> Arc<dyn SecretStore> {
            let surroundings = StoreEnv {
                environment: Environment::of(variables.iter().copied()),
                ..StoreEnv::of_process(self.0.path().to_owned())
            };
            let params = file_path.map(|path| ("file_path".to_owned(), Secret::from(path))).into_iter().collect();
            open(&OpenArgs { argument: None, params: &params, surroundings: &surroundings }).unwrap()
        }
    }

    async fn get(store: &Arc<dyn SecretStore>, key: &str) -> Option<String> {
        one(store, key).await.unwrap().map(|secret| secret.expose_text().unwrap().to_owned())
    }

    #[tokio::test]
    async fn sources_in_order_and_names_in_each() {
        let local = "SPICE_B=local-spice\nc=local";
        let plain = "B=env\nC=env\nD=1\nD=2\nSPICE_LOWER=upper-spice";
        let pod = Pod::new(&[(".env.local", local), (".env", plain)]);
        let store = pod.store(&[("A", "process"), ("E", ""), ("SPICE_X", "spice"), ("X2", "up")], None);
        for (key, value) in [
            ("A", Some("process")),
            ("a", Some("process")),
            ("X", Some("spice")),
            ("x2", Some("up")),
            ("B", Some("local-spice")),
            ("C", Some("env")),
            ("c", Some("local")),
            ("D", Some("2")),
            ("lower", Some("upper-spice")),
            ("E", Some("")),
            ("F", None),
        ] {
            assert_eq!(get(&store, key).await.as_deref(), value, "{key}");
        }
    }

    #[tokio::test]
    async fn file_path_replaces_both_files_and_must_be_there() {
        let pod = Pod::new(&[(".env", "A=1"), ("other.env", "B=2")]);
        let store = pod.store(&[("P", "3")], Some("other.env"));
        assert_eq!(get(&store, "B").await.as_deref(), Some("2"));
        assert_eq!(get(&store, "A").await, None);

        let store = pod.store(&[("P", "3")], Some("absent.env"));
        assert_eq!(get(&store, "P").await.as_deref(), Some("3"));
        let error = one(&store, "A").await.unwrap_err().to_string();
        assert!(error.contains("absent.env"), "{error}");
    }

    #[tokio::test]
    async fn a_change_is_seen_and_a_fault_names_the_line() {
        let pod = Pod::new(&[(".env", "A=1")]);
        let store = pod.store(&[], None);
        assert_eq!(get(&store, "A").await.as_deref(), Some("1"));
        std::fs::write(pod.0.path().join(".env"), "A=2").unwrap();
        assert_eq!(get(&store, "A").await.as_deref(), Some("2"));
        std::fs::write(pod.0.path().join(".env"), "B=1\nA='hunter2").unwrap();
        let error = one(&store, "A").await.unwrap_err();
        assert!(error.to_string().contains(".env:2: the quote"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_fifo_is_read_once() {
        let pod = Pod::new(&[]);
        let fifo = pod.0.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let writer = std::thread::spawn({
            let fifo = fifo.clone();
            move || std::fs::write(fifo, "A=1\nB=2").unwrap()
        });
        let store = pod.store(&[], fifo.to_str());
        assert_eq!(get(&store, "A").await.as_deref(), Some("1"));
        writer.join().unwrap();
        assert_eq!(get(&store, "B").await.as_deref(), Some("2"));
    }

    #[test]
    fn names_come_once() {
        assert_eq!(names("a"), ["a", "SPICE_a", "A", "SPICE_A"]);
        assert_eq!(names("A"), ["A", "SPICE_A"]);
    }

    #[test]
    fn the_process_is_asked() {
        let path = Environment::process().get("PATH").unwrap();
        assert_eq!(path.expose(), std::env::var_os("PATH").unwrap().as_encoded_bytes());
    }
}
