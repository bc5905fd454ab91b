//! A directory with a pod.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary directory with a `spicepod.yaml`, removed when dropped.
#[derive(Debug)]
pub struct PodDirectory(TempDir);

impl PodDirectory {
    /// Creates a directory with this pod.
    pub fn new(spicepod: &str) -> Self {
        Self(tempfile::tempdir().unwrap()).with("spicepod.yaml", spicepod)
    }

    /// Writes a file, and the directories above it.
    #[must_use]
    pub fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(name, content);
        self
    }

    /// Writes a file, or replaces it, and creates the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns the path of a file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_and_its_files_end_with_it() {
        let pod = PodDirectory::new("version: v1\n").with("tls/server.pem", "pem");
        let path = pod.path().to_owned();
        assert_eq!(fs::read_to_string(pod.file("spicepod.yaml")).unwrap(), "version: v1\n");
        assert_eq!(fs::read_to_string(path.join("tls/server.pem")).unwrap(), "pem");
        drop(pod);
        assert!(!path.exists());
    }
}
