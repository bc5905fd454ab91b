//! Watches files by looking at them: a rename, a swapped link (as Kubernetes updates its volumes), a change
//! in place, a directory that is replaced, on every file system, also where the kernel tells nothing (network
//! and overlay file systems). A look is one `stat` a file, four times a second, and never more than a twentieth of the
//! time of one core: of very many files it is less often.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// From one look to the next. A change is told when a second look finds the same: whoever writes a file, or
/// one after the other, is given that time to finish.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// A look that takes long is followed by a pause this many times as long.
const PAUSE: u32 = 20;

/// Files, and how they were when they were looked at last.
#[derive(Debug)]
pub struct FileWatch {
    paths: Arc<[PathBuf]>,
    seen: Vec<Stamp>,
    /// How they were at the last look, where that was new.
    fresh: Option<Vec<Stamp>>,
    /// When to look next: whoever waits may be called away again and again.
    due: Instant,
}

/// What differs where a file does; `None` where there is none.
type Stamp = Option<[i128; 5]>;

impl FileWatch {
    /// Watches `paths` from now on. Blocks for as long as the file system does. What is no regular file (a
    /// FIFO can be read once) is left out.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let regular = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|m| m.is_file()) || !path.exists();
        let paths: Arc<[PathBuf]> = paths.into_iter().filter(regular).collect();
        let seen = look(&paths);
        Self { paths, seen, fresh: None, due: Instant::now() + POLL_INTERVAL }
    }

    /// What has changed so far is not told. Blocks for as long as the file system does.
    pub fn mark_seen(&mut self) {
        self.seen = look(&self.paths);
        self.fresh = None;
    }

    /// Waits until one of the files is another than at the last change that was told; forever where there
    /// is none to watch. May be dropped and called again.
    pub async fn changed(&mut self) {
        if self.paths.is_empty() {
            std::future::pending().await
        }
        loop {
            tokio::time::sleep_until(self.due).await;
            let paths = self.paths.clone();
            let began = Instant::now();
            let looked = tokio::task::spawn_blocking(move || look(&paths)).await;
            self.due = Instant::now() + POLL_INTERVAL.max(began.elapsed() * PAUSE);
            let Ok(now) = looked else { continue };
            if now == self.seen {
                self.fresh = None;
            } else if self.fresh.as_ref() == Some(&now) {
                self.seen = now;
                self.fresh = None;
                return;
            } else {
                self.fresh = Some(now);
            }
        }
    }
}

fn look(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        let nanoseconds = |seconds: i64, more: i64| i128::from(seconds) * 1_000_000_000 + i128::from(more);
        Some([
            i128::from(found.dev()),
            i128::from(found.ino()),
            i128::from(found.size()),
            nanoseconds(found.mtime(), found.mtime_nsec()),
            nanoseconds(found.ctime(), found.ctime_nsec()),
        ])
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use futures::FutureExt;
    use tokio::time::timeout;

    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
    }

    #[tokio::test]
    async fn every_way_that_a_file_changes_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // As Kubernetes lays a volume: tls.crt -> ..data/tls.crt, ..data -> ..1
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            std::fs::create_dir(path(version)).unwrap();
            write(&path(version).join("tls.crt"), text);
        }
        symlink("..1", path("..data")).unwrap();
        symlink("..data/tls.crt", path("tls.crt")).unwrap();
        write(&path("plain"), "a");
        let mut watch = FileWatch::new([path("tls.crt"), path("plain"), path("later")]);
        let swap = || {
            symlink("..2", path("..data_tmp")).unwrap();
            std::fs::rename(path("..data_tmp"), path("..data")).unwrap();
        };
        let rename = || {
            write(&path("new"), "b");
            std::fs::rename(path("new"), path("plain")).unwrap();
        };
        let in_place = || write(&path("plain"), "c");
        let gone = || std::fs::remove_file(path("plain")).unwrap();
        let come = || write(&path("later"), "x");
        let changes: [&dyn Fn(); 5] = [&swap, &rename, &in_place, &gone, &come];
        for (at, change) in changes.into_iter().enumerate() {
            assert!(watch.changed().now_or_never().is_none());
            change();
            timeout(Duration::from_secs(30), watch.changed())
                .await
                .unwrap_or_else(|_| panic!("change {at} is not told"));
        }
        assert!(timeout(3 * POLL_INTERVAL, watch.changed()).await.is_err(), "nothing has changed since");
        in_place();
        watch.mark_seen();
        assert!(timeout(3 * POLL_INTERVAL, watch.changed()).await.is_err(), "what was seen is not told");
    }
}
