//! Reads small files that a user names: pods, certificates, keys, `.env` files, secrets.
//!
//! Every read has a maximum size and a deadline, whatever the path leads to: a FIFO without a writer, a device, a
//! socket, or a mount whose server does not respond. The file is opened and read on a separate thread, which is
//! abandoned at the deadline, so the caller waits for a bounded time. An error names the file, link or directory at
//! fault, and the fix.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod explain;

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::O_NONBLOCK;
use tls_core::Secret;
use tokio::sync::oneshot;

/// How long a regular file may take, and how long a FIFO may be without a writer.
pub const RESPONSE_TIME: Duration = Duration::from_secs(5);

/// How long the writer of a FIFO may take. It may be a program that queries a secret store.
pub const WRITER_TIME: Duration = Duration::from_secs(60);

/// The time between two polls of a FIFO.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The number of threads that are reading a file.
static READERS: AtomicUsize = AtomicUsize::new(0);

/// The maximum number of threads that read at the same time, including abandoned ones.
const MAX_READERS: usize = 64;

/// The content of a file.
#[derive(Debug)]
pub struct Content {
    /// The bytes.
    pub secret: Secret,
    /// Whether the file can be read again. False for a FIFO and a device.
    pub is_regular: bool,
}

/// Why a file cannot be read. Contains no part of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} cannot be read: {reason}")]
pub struct Unreadable {
    /// The path, as the caller gave it.
    pub path: PathBuf,
    /// The reason: which file, link or directory is at fault.
    pub reason: String,
    /// The fix.
    pub fix: String,
    /// True if nothing exists at the path.
    pub is_missing: bool,
}

impl Unreadable {
    /// Returns the error for `cause`. Searches the file system for the part of the path that is at fault.
    pub fn of(path: &Path, cause: &Error) -> Self {
        let (reason, fix) = explain::explain(cause, path);
        // A link exists even if its target does not.
        let is_missing = cause.kind() == ErrorKind::NotFound && explain::dangling(path).is_none();
        Self { path: path.to_owned(), reason, fix, is_missing }
    }

    /// Returns the error for a directory that cannot be read.
    pub fn of_directory(path: &Path, cause: &Error) -> Self {
        // A missing directory is explained through a file in it.
        let (reason, fix) = explain::explain(cause, &path.join("file"));
        Self { path: path.to_owned(), reason, fix, is_missing: cause.kind() == ErrorKind::NotFound }
    }

    fn because(path: &Path, reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into(), fix: fix.into(), is_missing: false }
    }
}

/// Returns up to three existing paths that `path` may be a typo for, each in quotes.
pub fn similar_names(path: &Path) -> Vec<String> {
    let parent = path.parent().unwrap_or(Path::new(""));
    explain::alike(path).iter().map(|name| format!("{:?}", parent.join(name))).collect()
}

/// Reads `path`, which may have at most `max_size` bytes.
///
/// # Errors
/// The file cannot be read, is too large, or does not respond in time.
pub fn read(path: &Path, max_size: u64) -> Result<Content, Unreadable> {
    let waiting = Instant::now();
    let slot = loop {
        match Slot::take() {
            Some(slot) => break slot,
            None if waiting.elapsed() > RESPONSE_TIME => return Err(too_many(path)),
            None => thread::sleep(POLL_INTERVAL),
        }
    };
    let (tell, told) = mpsc::channel();
    let began = start(path, max_size, slot, move |news| {
        let _ = tell.send(news);
    })?;
    loop {
        match told.recv_timeout(began.time_left()) {
            Ok(News::Opened) => began.is_open(),
            Ok(News::Done(read)) => return read,
            Err(_) => return Err(began.no_response(path)),
        }
    }
}

/// Reads `path` as [`read`] does, without blocking the task's thread.
///
/// # Errors
/// The file cannot be read, is too large, or does not respond in time.
pub async fn read_async(path: &Path, max_size: u64) -> Result<Content, Unreadable> {
    let waiting = Instant::now();
    let slot = loop {
        match Slot::take() {
            Some(slot) => break slot,
            None if waiting.elapsed() > RESPONSE_TIME => return Err(too_many(path)),
            None => tokio::time::sleep(POLL_INTERVAL).await,
        }
    };
    let (opened, is_open) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    let (mut opened, mut tell) = (Some(opened), Some(tell));
    let began = start(path, max_size, slot, move |news| match news {
        News::Opened => drop(opened.take().map(|opened| opened.send(()))),
        News::Done(read) => drop(tell.take().map(|tell| tell.send(read))),
    })?;
    // A file that cannot be opened drops this channel at the end of the thread.
    if tokio::time::timeout(began.time_left(), is_open).await.is_ok_and(|opened| opened.is_ok()) {
        began.is_open();
    }
    match tokio::time::timeout(began.time_left(), told).await {
        Ok(Ok(read)) => read,
        _ => Err(began.no_response(path)),
    }
}

/// What the reading thread reports.
enum News {
    /// The file is open and is not a regular one: the longer deadline of its writer applies.
    Opened,
    Done(Result<Content, Unreadable>),
}

/// The deadline of a read.
struct Deadline {
    began: Instant,
    has_writer: std::cell::Cell<bool>,
}

impl Deadline {
    /// Allows the time that the writer of a FIFO may take. The thread watches that time itself, so this deadline is a
    /// little later.
    fn is_open(&self) {
        self.has_writer.set(true);
    }

    fn time_left(&self) -> Duration {
        let most = if self.has_writer.get() { WRITER_TIME + RESPONSE_TIME } else { RESPONSE_TIME };
        most.saturating_sub(self.began.elapsed())
    }

    fn no_response(&self, path: &Path) -> Unreadable {
        let seconds = self.began.elapsed().as_secs();
        let reason = format!("the file system does not respond: nothing was read within {seconds} s");
        Unreadable::because(
            path,
            reason,
            "see whether the server of that mount is well, or give a copy on a local disk",
        )
    }
}

/// Starts the thread that reads `path`.
fn start(
    path: &Path,
    max_size: u64,
    slot: Slot,
    mut tell: impl FnMut(News) + Send + 'static,
) -> Result<Deadline, Unreadable> {
    let began = Instant::now();
    let file = path.to_owned();
    let work = move || {
        let _slot = slot;
        let read = read_here(&file, max_size, &mut tell);
        tell(News::Done(read));
    };
    match thread::Builder::new().name("read-file".to_owned()).spawn(work) {
        Ok(_) => Ok(Deadline { began, has_writer: false.into() }),
        Err(error) => Err(Unreadable::because(path, error.to_string(), "let this process start more threads")),
    }
}

/// The slot of one reading thread.
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let before = READERS.fetch_add(1, Ordering::Relaxed);
        let slot = Self;
        (before < MAX_READERS).then_some(slot)
    }
}

fn too_many(path: &Path) -> Unreadable {
    let reason = "earlier reads of other files have not returned: a file system does not respond";
    Unreadable::because(path, reason, "see whether the servers of the mounts are well")
}

impl Drop for Slot {
    fn drop(&mut self) {
        READERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads `path` on this thread.
fn read_here(path: &Path, max_size: u64, tell: &mut impl FnMut(News)) -> Result<Content, Unreadable> {
    let unreadable = |cause: Error| Unreadable::of(path, &cause);
    // Nonblocking, so that opening a FIFO without a writer does not hang.
    let mut file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(unreadable(Error::from(ErrorKind::IsADirectory)));
    }
    if kind.is_block_device() {
        return Err(Unreadable::because(path, "it is a disk, not a file", "give a file"));
    }
    let is_regular = kind.is_file();
    // Allocate the full size up front, because growing would leave partial copies behind that are not wiped. Only a
    // regular file knows its size; some (`/proc`) report 0.
    let known = (is_regular && metadata.len() > 0).then(|| metadata.len().min(max_size));
    let capacity = known.unwrap_or_else(|| max_size.min(1 << 20));
    let mut bytes = Vec::with_capacity(usize::try_from(capacity).unwrap_or(0) + 1);
    if is_regular {
        file.take(known.unwrap_or(max_size) + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        tell(News::Opened);
        read_stream(&mut file, kind.is_fifo(), max_size + 1, &mut bytes).map_err(|error| match error {
            Stalled::NoWriter => Unreadable::because(
                path,
                format!("it is a FIFO, and nobody wrote into it within {} s", RESPONSE_TIME.as_secs()),
                "start the program that writes into it first, or give a file",
            ),
            Stalled::Writer => Unreadable::because(
                path,
                format!("it is no regular file, and it did not end within {} s", WRITER_TIME.as_secs()),
                "make its writer close it, or give a file",
            ),
            Stalled::Io(error) => unreadable(error),
        })?;
    }
    let secret = Secret::new(bytes);
    let size = secret.expose().len() as u64;
    if size > max_size {
        let all = if is_regular { format!("{} bytes", metadata.len().max(size)) } else { "no end".to_owned() };
        let reason = format!("it has {all}, and {max_size} bytes are the most that is read");
        return Err(Unreadable::because(path, reason, "see whether it is the right file"));
    }
    if known.is_some_and(|known| size > known) {
        return Err(Unreadable::because(path, "it changed while it was read", "try again"));
    }
    Ok(Content { secret, is_regular })
}

/// Why a stream could not be read to its end.
enum Stalled {
    /// No writer within [`RESPONSE_TIME`].
    NoWriter,
    /// The writer did not finish within [`WRITER_TIME`].
    Writer,
    Io(Error),
}

/// Reads an input that is not a regular file to its end, at most `most` bytes.
fn read_stream(file: &mut File, is_fifo: bool, most: u64, bytes: &mut Vec<u8>) -> Result<(), Stalled> {
    let began = Instant::now();
    let mut chunk = zeroize::Zeroizing::new([0; 4096]);
    while (bytes.len() as u64) < most {
        let left = usize::try_from(most - bytes.len() as u64).unwrap_or(usize::MAX).min(chunk.len());
        match file.read(&mut chunk[..left]) {
            Ok(0) if !is_fifo || !bytes.is_empty() => return Ok(()),
            Ok(0) if began.elapsed() > RESPONSE_TIME => return Err(Stalled::NoWriter),
            Ok(0) => thread::sleep(POLL_INTERVAL),
            Ok(read) if began.elapsed() < WRITER_TIME => bytes.extend_from_slice(&chunk[..read]),
            Ok(_) => return Err(Stalled::Writer),
            Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < WRITER_TIME => {
                thread::sleep(POLL_INTERVAL);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Stalled::Writer),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Stalled::Io(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    fn fifo(path: &Path) {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    fn both(path: &Path, max_size: u64) -> [Result<Content, Unreadable>; 2] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        [read(path, max_size), runtime.block_on(read_async(path, max_size))]
    }

    #[test]
    fn files_are_read_up_to_their_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        for read in both(&path, 5) {
            let content = read.unwrap();
            assert_eq!(content.secret.expose(), b"12345");
            assert!(content.is_regular);
        }
        for read in both(&path, 4) {
            assert!(read.unwrap_err().reason.contains("5 bytes"));
        }
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().secret.is_blank(), "its size is said to be 0");
        assert!(both(Path::new("/dev/zero"), 1000).into_iter().all(|read| read.unwrap_err().reason.contains("no end")));
    }

    #[test]
    fn a_fifo_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        fifo(&path);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let reads: [&dyn Fn() -> Result<Content, Unreadable>; 2] =
            [&|| read(&path, 100), &|| runtime.block_on(read_async(&path, 100))];
        for read in reads {
            let writer = thread::spawn({
                let path = path.clone();
                move || std::fs::write(&path, "text").unwrap()
            });
            let content = read().unwrap();
            assert_eq!((content.secret.expose(), content.is_regular), (b"text".as_slice(), false));
            writer.join().unwrap();
        }
    }

    #[test]
    fn what_never_responds_is_an_error_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        fifo(&path);
        let began = Instant::now();
        let error = read(&path, 100).unwrap_err();
        assert!(error.reason.contains("FIFO"), "{error}");
        assert!(began.elapsed() < 2 * RESPONSE_TIME);
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert!(read(&socket, 100).unwrap_err().reason.contains("socket"));
    }
}
