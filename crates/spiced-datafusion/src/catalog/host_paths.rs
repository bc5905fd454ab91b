//! The host paths that SQL may access: only the directories of `runtime.sql.host_paths`.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use datafusion::datasource::listing::ListingTableUrl;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnv;
use spiced_engine::ErrorKind;
use url::Url;

use crate::catalog::host_store::{HostStore, SETTING, canonical};
use crate::error::refusal;

/// The directories that `COPY` and `CREATE EXTERNAL TABLE` may access.
#[derive(Debug, Clone)]
pub(crate) struct HostPaths(Arc<[PathBuf]>);

impl HostPaths {
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        Self(folders.iter().map(|folder| absolute(folder)).collect())
    }

    /// Registers stores with `runtime` that check the real location of each host file: one for paths with a wildcard,
    /// and one for each directory, with paths relative to it.
    ///
    /// # Errors
    /// Fails if a directory is not a valid path.
    pub(crate) fn register(&self, runtime: &RuntimeEnv) -> Result<()> {
        let register = |url: &str, store: HostStore| {
            let url = Url::parse(url).map_err(|error| DataFusionError::External(Box::new(error)))?;
            runtime.register_object_store(&url, Arc::new(store));
            Ok::<_, DataFusionError>(())
        };
        register("file:///", HostStore::new(self.0.clone()))?;
        for (at, folder) in self.0.iter().enumerate() {
            let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            let store = HostStore::rooted(&folder, self.0.clone());
            register(&root(at), store.map_err(|error| DataFusionError::ObjectStore(Box::new(error)))?)?;
        }
        Ok(())
    }

    /// Returns the URL of an [admitted](Self::admit) location in the store of its directory, which does not reveal a
    /// path on the host.
    pub(crate) fn rooted(&self, admitted: String) -> String {
        let Ok(url) = Url::parse(&admitted) else { return admitted };
        let Ok(path) = url.to_file_path() else { return admitted };
        let within = self.0.iter().enumerate().find_map(|(at, folder)| {
            let rest = path.strip_prefix(folder.canonicalize().ok()?).ok()?;
            Some(format!("{}{}", root(at), encoded(rest)))
        });
        match within {
            Some(within) if admitted.ends_with('/') && !within.ends_with('/') => format!("{within}/"),
            Some(within) => within,
            None => admitted,
        }
    }

    /// Returns the path of an [admitted](Self::admit) location, relative to its directory.
    pub(crate) fn within(&self, admitted: &str) -> Option<String> {
        let path = match Url::parse(admitted) {
            Ok(url) => url.to_file_path().ok()?,
            // A location with a wildcard is a path.
            Err(_) => PathBuf::from(admitted),
        };
        self.0.iter().find_map(|folder| {
            let rest = path.strip_prefix(folder.canonicalize().ok()?).ok()?;
            Some(rest.to_string_lossy().into_owned())
        })
    }

    /// Like [`rooted`](Self::rooted), for a directory whose files are listed, with or without a wildcard.
    pub(crate) fn rooted_listing(&self, listed: &ListingTableUrl) -> Option<ListingTableUrl> {
        let path = PathBuf::from(format!("/{}", listed.prefix()));
        self.0.iter().enumerate().find_map(|(at, folder)| {
            let rest = path.strip_prefix(folder.canonicalize().ok()?).ok()?;
            let mut url = format!("{}{}", root(at), encoded(rest));
            if listed.is_collection() && !url.ends_with('/') {
                url.push('/');
            }
            ListingTableUrl::try_new(Url::parse(&url).ok()?, listed.get_glob().clone()).ok()
        })
    }

    /// Checks `location`, as a statement names it, and returns the URL to use instead: that of the checked file or
    /// directory, without links or dots that could later resolve to another one.
    ///
    /// # Errors
    /// Fails if the location is outside the directories or is not a path of this host.
    pub(crate) fn admit(&self, location: &str, what: &str) -> Result<String> {
        let scheme = location.split_once("://").map(|(scheme, _)| scheme);
        if scheme.is_some_and(|scheme| !scheme.eq_ignore_ascii_case("file")) {
            return Err(refusal(
                ErrorKind::Denied,
                format!("{what} may only reach files of the host, within {SETTING}; `{location}` is elsewhere"),
            ));
        }
        if self.0.is_empty() {
            return Err(refusal(
                ErrorKind::Denied,
                format!("{what} may not reach the host's files: {SETTING} names no folder"),
            ));
        }
        if scheme.is_none() && !Path::new(location).is_absolute() {
            return Err(refusal(
                ErrorKind::Denied,
                format!("{what} wants an absolute path within {SETTING}; `{location}` is relative"),
            ));
        }
        // Parsed by DataFusion, so that both resolve to the same file.
        let url = ListingTableUrl::parse(location)?;
        let path = PathBuf::from(format!("/{}", url.prefix()));
        let outside = || {
            refusal(
                ErrorKind::Denied,
                format!("{what} may only reach what lies within {SETTING}; `{location}` does not"),
            )
        };
        let real = canonical(&path).ok_or_else(outside)?;
        let within =
            self.0.iter().filter_map(|folder| folder.canonicalize().ok()).any(|folder| real.starts_with(folder));
        if !within {
            return Err(outside());
        }
        if let Some(glob) = url.get_glob() {
            // A scheme turns globs off, so a location with a glob stays a path; the directory must not be mistaken for
            // a part of the glob.
            return match real.to_str() {
                Some(folder) if !folder.contains(['*', '?', '[']) => Ok(format!("{folder}/{}", glob.as_str())),
                _ => Err(outside()),
            };
        }
        Ok(file_url(&real, url.is_collection()))
    }
}

/// Returns the URL of the store of a directory.
fn root(at: usize) -> String {
    format!("hostpath{at}://files/")
}

/// Returns the absolute path, without `.` and `..`. Links are kept: Kubernetes swaps them.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

/// Returns `file://` and the percent-encoded path, with a trailing slash for a directory.
pub(crate) fn file_url(path: &Path, is_folder: bool) -> String {
    let mut url = format!("file://{}", encoded(path));
    if is_folder && !url.ends_with('/') {
        url.push('/');
    }
    url
}

/// Returns the path as encoded in a URL.
pub(crate) fn encoded(path: &Path) -> String {
    use std::fmt::Write;
    let mut url = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => url.push(char::from(*byte)),
            other => {
                let _ = write!(url, "%{other:02X}");
            }
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_within() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (inside, outside) = (root.join("in"), root.join("out"));
        std::fs::create_dir_all(inside.join("sub dir")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("secret.csv"), "a\n1\n").unwrap();
        std::fs::write(inside.join("a%2e.csv"), "a\n1\n").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.join("not-yet"), inside.join("dangling")).unwrap();
        std::os::unix::fs::symlink(&inside, root.join("in-too")).unwrap();
        let paths = HostPaths::new(vec![inside.clone()]);
        let at = |path: &str| format!("{}/{path}", inside.display());
        let cases = [
            (at("new.parquet"), true),
            (at("new/deep/er.parquet"), true),
            (at("sub dir/x.csv"), true),
            (at("sub dir/"), true),
            (at("*.csv"), true),
            (at("./x.csv"), true),
            (format!("file://{}", at("x.csv")), true),
            (format!("FILE://{}", at("x.csv")), true),
            (at("a%2e.csv"), true),
            (format!("{}/in-too/x.csv", root.display()), true),
            (at("link/secret.csv"), false),
            (at("link/new.csv"), false),
            (at("dangling"), false),
            (at("../out/secret.csv"), false),
            (at("sub dir/../../out/secret.csv"), false),
            (at("missing/../../out/secret.csv"), false),
            (format!("file://{}", at("%2e%2e/out/secret.csv")), false),
            (format!("file://{}", at("..%2Fout/secret.csv")), false),
            (format!("{}-more/x.csv", inside.display()), false),
            (at("../out/*.csv"), false),
            (root.display().to_string(), false),
            ("/etc/passwd".to_owned(), false),
            ("file:///etc/passwd".to_owned(), false),
            ("file:/etc/passwd".to_owned(), false),
            ("in/x.csv".to_owned(), false),
            ("s3://bucket/x.csv".to_owned(), false),
            ("http://localhost/x.csv".to_owned(), false),
            (String::new(), false),
        ];
        for (location, allowed) in cases {
            let seen = paths.admit(&location, "COPY");
            assert_eq!(seen.is_ok(), allowed, "{location}: {seen:?}");
        }
        assert_eq!(
            paths.admit(&at("sub dir/x%.csv"), "COPY").unwrap(),
            format!("file://{}/sub%20dir/x%25.csv", inside.display())
        );
        let nowhere = HostPaths::new(Vec::new()).admit("/tmp/x", "COPY").unwrap_err();
        assert!(nowhere.to_string().contains(SETTING), "{nowhere}");
    }

    proptest::proptest! {
        /// Every admitted location is, as DataFusion parses it, within the directory.
        #[test]
        fn nothing_else_gets_through(
            scheme in proptest::sample::select(vec!["", "file://", "FILE://", "file:", "http://"]),
            start in proptest::sample::select(vec!["in", "out", "", "in/..", "in/link"]),
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["..", ".", "", "link", "x", "%2e%2e", "%2E.", "..%2f", "*", "a b", "[.][.]", "é", "\\", "?", "#"]),
                0..6,
            ),
        ) {
            let root = tempfile::tempdir().unwrap();
            let root = root.path().canonicalize().unwrap();
            let inside = root.join("in");
            std::fs::create_dir_all(inside.join("x")).unwrap();
            std::fs::create_dir_all(root.join("out")).unwrap();
            std::os::unix::fs::symlink(root.join("out"), inside.join("link")).unwrap();
            let location = format!("{scheme}{}/{start}/{}", root.display(), parts.join("/"));
            if let Ok(admitted) = HostPaths::new(vec![inside.clone()]).admit(&location, "COPY") {
                let url = ListingTableUrl::parse(&admitted).unwrap();
                let real = canonical(&PathBuf::from(format!("/{}", url.prefix()))).unwrap();
                proptest::prop_assert!(real.starts_with(&inside), "{location} became {admitted}");
            }
        }
    }
}
