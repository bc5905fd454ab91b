//! `file:DIR`: one file per key, as Docker and Kubernetes mount secrets.
//!
//! A newline at the end is not part of the secret: `echo secret > file` and editors add one, and no mounted secret
//! includes it on purpose. Everything else is content.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use spiced_files::Unreadable;
use tls_core::Secret;

use super::read::read;
use super::{OpenArgs, SecretStore, Snapshot, StoreError, each};

struct FileStore {
    folder: PathBuf,
}

/// Opens the store; see [`super::KINDS`].
pub(super) fn open(opening: &OpenArgs<'_>) -> Result<Arc<dyn SecretStore>, StoreError> {
    let folder = opening.surroundings.pod_folder.join(opening.argument.unwrap_or_default());
    Ok(Arc::new(FileStore { folder }))
}

impl FileStore {
    async fn get(&self, key: &str) -> Result<Option<Secret>, StoreError> {
        check(key)?;
        if let Some(content) = read(&self.folder.join(key)).await? {
            return Ok(Some(without_last_newline(content.secret)));
        }
        // A mount that is missing entirely is a fault of the store, not a missing key.
        match tokio::fs::read_dir(&self.folder).await {
            Ok(_) => Ok(None),
            Err(cause) => Err(StoreError::Unreadable(Unreadable::of_directory(&self.folder, &cause))),
        }
    }
}

#[async_trait]
impl SecretStore for FileStore {
    async fn read(&self, keys: &[String]) -> Result<Snapshot, StoreError> {
        Ok(each(keys, async |key| self.get(&key).await).await)
    }

    fn places(&self, key: &str) -> String {
        let path = self.folder.join(key);
        let similar = spiced_files::similar_names(&path);
        let there_is = match similar.as_slice() {
            [] => String::new(),
            names => format!(" (there is {})", names.join(" and ")),
        };
        format!("{}{there_is}", path.display())
    }
}

/// Refuses keys that would leave the directory. Kubernetes keeps its own links under `..data`, so no component may
/// start with `..` at all.
fn check(key: &str) -> Result<(), StoreError> {
    let refuse = |why| Err(StoreError::Key { key: key.to_owned(), why });
    if key.starts_with('/') {
        return refuse("is an absolute path; a key of this store is a file's name in its directory");
    }
    if key.split('/').any(|part| part.is_empty() || part == "." || part.starts_with("..")) {
        return refuse("has a part that is empty or begins with `..`; a key of this store stays in its directory");
    }
    Ok(())
}

fn without_last_newline(secret: Secret) -> Secret {
    let bytes = secret.expose();
    match bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")) {
        Some(rest) => Secret::new(rest.to_vec()),
        None => secret,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::StoreEnv;
    use super::super::tests::one;
    use super::*;

    fn store(pod_folder: &Path, argument: &str) -> Arc<dyn SecretStore> {
        let surroundings = StoreEnv::of_process(pod_folder.to_owned());
        open(&OpenArgs { argument: Some(argument), params: &BTreeMap::new(), surroundings: &surroundings }).unwrap()
    }

    #[tokio::test]
    async fn one_file_a_key() {
        let pod = tempfile::tempdir().unwrap();
        let folder = pod.path().join("secrets");
        std::fs::create_dir_all(folder.join("..v1")).unwrap();
        std::fs::create_dir_all(folder.join("spice/tls")).unwrap();
        for (name, text) in [
            ("A", "a\n"),
            ("B", "b"),
            ("C", "c\r\n"),
            ("D", "d\n\n"),
            ("E", " e "),
            ("F", ""),
            ("G", "\n"),
            ("..v1/tls.crt", "crt"),
            ("spice/tls/key", "key"),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        // The layout that a kubelet creates: the file is a link through another link.
        std::os::unix::fs::symlink("..v1", folder.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/tls.crt", folder.join("tls.crt")).unwrap();

        let relative = store(pod.path(), "secrets");
        let absolute = store(Path::new("/nowhere"), folder.to_str().unwrap());
        for (key, value) in [
            ("A", Some("a")),
            ("B", Some("b")),
            ("C", Some("c")),
            ("D", Some("d\n")),
            ("E", Some(" e ")),
            ("F", Some("")),
            ("G", Some("")),
            ("tls.crt", Some("crt")),
            ("spice/tls/key", Some("key")),
            ("absent", None),
            ("absent/too", None),
        ] {
            for store in [&relative, &absolute] {
                let found = one(store, key).await.unwrap().map(|s| s.expose_text().unwrap().to_owned());
                assert_eq!(found.as_deref(), value, "{key}");
            }
        }
    }

    #[tokio::test]
    async fn keys_stay_in_the_folder() {
        let pod = tempfile::tempdir().unwrap();
        std::fs::create_dir(pod.path().join("secrets")).unwrap();
        std::fs::write(pod.path().join("outside"), "x").unwrap();
        let store = store(pod.path(), "secrets");
        for key in ["../outside", "/etc/passwd", "a/../../outside", "..data/x", "a//b", "./a", "a/"] {
            assert!(matches!(one(&store, key).await, Err(StoreError::Key { .. })), "{key}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_and_a_file_too_large_are_faults() {
        let pod = tempfile::tempdir().unwrap();
        let error = one(&store(pod.path(), "absent"), "A").await.unwrap_err().to_string();
        assert!(error.contains("there is no directory") && error.contains("/absent"), "{error}");

        std::fs::write(pod.path().join("A"), vec![b'x'; 1024 * 1024 + 1]).unwrap();
        let error = one(&store(pod.path(), "."), "A").await.unwrap_err().to_string();
        assert!(error.contains("it has 1048577 bytes"), "{error}");
        std::fs::write(pod.path().join("A"), vec![b'x'; 1024 * 1024]).unwrap();
        assert!(one(&store(pod.path(), "."), "A").await.unwrap().is_some());

        std::fs::create_dir(pod.path().join("B")).unwrap();
        assert!(one(&store(pod.path(), "."), "B").await.is_err());

        std::os::unix::fs::symlink("..data/C", pod.path().join("C")).unwrap();
        let error = one(&store(pod.path(), "."), "C").await.unwrap_err().to_string();
        assert!(error.contains("is a link to"), "{error}");
        let error = one(&store(pod.path(), "~/secrets"), "C").await.unwrap_err().to_string();
        assert!(error.contains("`~` is not expanded"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_key_is_told_with_names_like_it() {
        let pod = tempfile::tempdir().unwrap();
        std::fs::write(pod.path().join("key"), "x").unwrap();
        let store = store(pod.path(), ".");
        assert!(one(&store, "KEY").await.unwrap().is_none());
        assert!(store.places("KEY").contains("there is \""), "{}", store.places("KEY"));
    }
}
