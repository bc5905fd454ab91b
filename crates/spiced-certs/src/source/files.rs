//! Watches files by polling. Polling detects a rename, a swapped symlink (which is how Kubernetes updates volumes), a
//! change in place and a replaced directory, on every file system, including those for which the kernel reports nothing
//! (network and overlay file systems). A poll is one `stat` per file, four times a second. Polling takes at most a
//! twentieth of one core's time: with very many files the interval grows.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The time between two polls. A change is reported once a second poll finds the same state, which gives a writer that
/// time to finish, also if it writes several files in turn.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// After a slow poll, the pause is this many times as long as the poll took.
const PAUSE: u32 = 20;

/// Files, and their state at the last poll.
#[derive(Debug)]
pub struct FileWatch {
    paths: Arc<[PathBuf]>,
    seen: Vec<Stamp>,
    /// The state at the last poll, if it was new.
    fresh: Option<Vec<Stamp>>,
    /// The time of the next poll. It is stored because the future of [`changed`](FileWatch::changed) may be dropped at
    /// any time.
    due: Instant,
}

/// Values that change whenever a file does; `None` if the file does not exist.
type Stamp = Option<[i128; 5]>;

impl FileWatch {
    /// Starts to watch `paths`. Blocks on file system access. Files that are not regular are left out: a FIFO can be
    /// read only once.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let regular = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|m| m.is_file()) || !path.exists();
        let paths: Arc<[PathBuf]> = paths.into_iter().filter(regular).collect();
        let seen = look(&paths);
        Self { paths, seen, fresh: None, due: Instant::now() + POLL_INTERVAL }
    }

    /// Discards the changes so far, so that they are not reported. Blocks on file system access.
    pub fn mark_seen(&mut self) {
        self.seen = look(&self.paths);
        self.fresh = None;
    }

    /// Waits until one of the files differs from its state at the last reported change; waits forever if no file is
    /// watched. Cancel safe.
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
        // The layout of a Kubernetes volume: tls.crt -> ..data/tls.crt, ..data -> ..1
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
