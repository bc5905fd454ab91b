//! Explains why a file cannot be read: which file, link or directory is at fault, and what to write instead.

use std::fs;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, User, geteuid};

/// The most symlinks that are followed.
const MAX_LINKS: usize = 20;
/// The most directory entries that are searched for similar names.
const MAX_ENTRIES: usize = 2_000;

/// Returns why `path` cannot be read, and the fix.
pub(crate) fn explain(cause: &Error, path: &Path) -> (String, String) {
    match cause.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => not_found(path),
        ErrorKind::PermissionDenied => denied(path),
        ErrorKind::IsADirectory => {
            let files = similar(path, |_| true).into_iter().filter(|name| is_pem_name(name)).collect::<Vec<_>>();
            let fix = match files.is_empty() {
                true => "give a file".to_owned(),
                false => format!("use a file in it: there is {}", listed(path, &files)),
            };
            ("it is a directory, not a file".to_owned(), fix)
        }
        _ if is_circle(cause) => circle(path),
        _ => match fs::metadata(path).map(|found| found.file_type()) {
            Ok(kind) if kind.is_socket() => {
                ("it is a socket, not a file".to_owned(), "give a file; a program listens at this path".to_owned())
            }
            _ => (cause.to_string(), "check the path and that this user may read the file".to_owned()),
        },
    }
}

fn is_circle(cause: &Error) -> bool {
    cause.raw_os_error() == Some(nix::libc::ELOOP)
}

/// Names the links of a path that form a cycle.
fn circle(path: &Path) -> (String, String) {
    // The shortest prefix that cannot be resolved ends with a link of the cycle, or with one that leads to it.
    let ancestors: Vec<&Path> = path.ancestors().filter(|one| !one.as_os_str().is_empty()).collect();
    let is_loop = |one: &&&Path| fs::metadata(one).is_err_and(|error| is_circle(&error));
    let mut links = vec![ancestors.iter().rev().find(is_loop).map_or(path, |first| *first).to_owned()];
    while let Some(next) = links.last().and_then(|last| target(last)).filter(|_| links.len() < MAX_LINKS) {
        let is_closed = links.contains(&next);
        links.push(next);
        if is_closed {
            break;
        }
    }
    let named: Vec<String> = links.iter().map(|link| format!("{link:?}")).collect();
    let last = links.last().unwrap_or(&links[0]);
    (
        format!("its links form a cycle: {}", named.join(" -> ")),
        format!("make one of them a file, or lead it to one: `ls -l {}` shows it", quoted(&last.display().to_string())),
    )
}

/// Quotes `text` as one shell word.
fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| "FILE".to_owned(), |word| word.into_owned())
}

fn not_found(path: &Path) -> (String, String) {
    let text = path.to_string_lossy();
    if let Some(at) = text.find("file:/") {
        let bare = text[at + "file:".len()..].trim_start_matches('/');
        let bare = bare.strip_prefix("localhost/").unwrap_or(bare);
        return (
            "it is a URL, but a path is expected".to_owned(),
            format!("write it without file://: {:?}", format!("/{bare}")),
        );
    }
    if let Some(scheme) = url_scheme(&text) {
        return (
            format!("it is a URL ({scheme}://), but a path is expected"),
            "fetch the file first, and give the path of the copy".to_owned(),
        );
    }
    if let Some((reason, fix)) = windows_path(path, &text) {
        return (reason, fix);
    }
    if text.contains(['*', '?']) {
        return (
            "`*` and `?` are not expanded in a path".to_owned(),
            match matching(path).as_slice() {
                [] => "write the whole name of one file".to_owned(),
                found => format!("write the whole name of one file: there is {}", found.join(" and ")),
            },
        );
    }
    if let Some(rest) = after_tilde(path) {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let written = home.map(|home| format!("{:?}", home.join(rest)));
        return (
            "`~` is not expanded here, only by a shell".to_owned(),
            format!("write the whole path{}", written.map(|path| format!(": {path}")).unwrap_or_default()),
        );
    }
    if text.contains('$') || text.matches('%').count() > 1 {
        return (
            "variables are not expanded in a path".to_owned(),
            "write the whole path, or ${env:NAME} for a variable that holds it".to_owned(),
        );
    }
    let ends_quoted = text.rsplit('/').next().is_some_and(|name| name.ends_with(['"', '\'']));
    if ends_quoted {
        return (
            "there is no such file; its name ends with a quote".to_owned(),
            "remove the quotes from the value: docker --env-file treats them as part of it".to_owned(),
        );
    }
    if let Some((link, target)) = dangling(path) {
        let which = if link == path { "it".to_owned() } else { format!("{link:?}") };
        return (
            format!("{which} is a link to {target:?}, which does not exist"),
            "make the link's target available, mount its directory, too, or name the file itself".to_owned(),
        );
    }
    let blank = text.ends_with(char::is_whitespace) || text.split('/').any(|part| part.trim() != part);
    let missing = path.ancestors().skip(1).filter(|up| !up.as_os_str().is_empty()).find(|up| up.exists());
    let named = path.ancestors().filter(|one| !one.as_os_str().is_empty());
    let first_missing = named.filter(|one| one.parent() == missing || missing.is_none()).last();
    let (reason, near) = match first_missing.filter(|one| *one != path) {
        _ if missing.is_some_and(Path::is_file) => {
            (format!("{:?} is a file, not a directory", missing.unwrap_or(path)), Vec::new())
        }
        Some(directory) => (format!("there is no directory {directory:?}"), alike(directory)),
        None => ("there is no such file".to_owned(), alike(path)),
    };
    let reason = if blank { format!("{reason}; a name in the path begins or ends with a blank") } else { reason };
    let fix = match near.is_empty() {
        false => format!("there is {}: case and file name extensions matter", {
            let parent = first_missing.unwrap_or(path).parent().unwrap_or(path);
            listed(parent, &near)
        }),
        true => match std::env::current_dir().ok().filter(|_| path.is_relative()) {
            Some(current) => format!("check the path: it is relative to {current:?}"),
            None => "check the path".to_owned(),
        },
    };
    (reason, fix)
}

/// Returns the scheme of `text` if it is a URL of something other than a file. The path may have been joined to a
/// directory, and a joined path has lost one of the two slashes.
fn url_scheme(text: &str) -> Option<&str> {
    let at = text.find(":/")?;
    let scheme = text[..at].rsplit('/').next()?;
    let is_scheme = ["http", "https", "s3", "s3a", "gs", "ftp", "sftp", "vault", "azure", "abfs", "hdfs"];
    is_scheme.iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some(scheme)
}

/// Explains a path in Windows notation.
fn windows_path(path: &Path, text: &str) -> Option<(String, String)> {
    let name = text.rsplit('/').next()?;
    if !name.contains('\\') {
        return None;
    }
    let has_drive = name.chars().nth(1) == Some(':') && name.starts_with(|c: char| c.is_ascii_alphabetic());
    let slashes = path.with_file_name(name.replace('\\', "/"));
    let fix = match slashes.exists() {
        true => format!("write / instead: {slashes:?}"),
        false if has_drive => "write the path as this system has it, such as \"/etc/spice/tls.crt\"".to_owned(),
        false => "write / between the names of directories".to_owned(),
    };
    Some(("it is a path of Windows: `\\` separates no directories here".to_owned(), fix))
}

/// Returns the files that a pattern in the last part of `path` matches, at most three.
fn matching(path: &Path) -> Vec<String> {
    let Some(pattern) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (start, end) = (pattern.split(['*', '?']).next(), pattern.rsplit(['*', '?']).next());
    let (start, end) = (start.unwrap_or_default(), end.unwrap_or_default());
    let mut found =
        similar(parent, |name| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end));
    found.sort();
    found.truncate(3);
    found.iter().map(|name| format!("{:?}", parent.join(name))).collect()
}

/// Returns the part of `path` after `~/`, if the path contains `~`.
fn after_tilde(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    parts.find(|part| part.as_os_str() == "~")?;
    Some(parts.as_path().to_owned())
}

/// Returns the last link on the way to `path` that is dangling, and its target.
pub(crate) fn dangling(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let ancestors: Vec<&Path> = path.ancestors().filter(|one| !one.as_os_str().is_empty()).collect();
    let mut link = ancestors.into_iter().rev().find(|one| one.is_symlink() && !one.exists())?.to_owned();
    for _ in 0..MAX_LINKS {
        let target = target(&link)?;
        if !target.is_symlink() {
            return Some((link, target));
        }
        link = target;
    }
    None
}

/// Returns the target of a link, with `..` resolved lexically.
fn target(link: &Path) -> Option<PathBuf> {
    let joined = link.parent().unwrap_or(Path::new("")).join(fs::read_link(link).ok()?);
    let mut plain = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    Some(plain)
}

fn denied(path: &Path) -> (String, String) {
    // Check the permissions along the link's target: certbot's `live` links to `archive`.
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match target(&path) {
            Some(target) => path = target,
            None => break,
        }
    }
    denied_at(&path)
}

fn denied_at(path: &Path) -> (String, String) {
    let uid = geteuid();
    let me = user(uid);
    // If a directory cannot be entered, its metadata can be read, but not that of its `.` entry.
    let closed = path.ancestors().skip(1).filter(|up| !up.as_os_str().is_empty()).filter(|up| {
        fs::metadata(up.join(".")).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
            && fs::metadata(up).is_ok()
    });
    let (place, what, verb) = match closed.last() {
        Some(directory) => (directory, "the directory ", "enter"),
        None => (path, "the file ", "read"),
    };
    let whose = fs::metadata(place).map(|found| {
        let owner = user(Uid::from_raw(found.uid()));
        format!(" (mode {:04o}, of {owner})", found.mode() & 0o7777)
    });
    (
        format!("this process runs as {me}, which may not {verb} {what}{place:?}{}", whose.unwrap_or_default()),
        match verb {
            "enter" => {
                let from = quoted(&place.display().to_string());
                format!(
                    "give that user access: `setfacl -m u:{}:x {from}`, or use a copy that it may read",
                    uid.as_raw()
                )
            }
            _ => {
                let from = quoted(&place.display().to_string());
                format!("let that user read it: `setfacl -m u:{}:r {from}`, or give it to them by chown", uid.as_raw())
            }
        },
    )
}

fn user(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        _ => format!("uid {uid}"),
    }
}

/// Returns up to three names in the same directory that `path` may be a typo for: equal except for case, surrounding
/// blanks and extension, or different in one letter.
pub(crate) fn alike(path: &Path) -> Vec<String> {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return Vec::new() };
    let plain = |name: &str| {
        let lower = name.trim().to_lowercase();
        lower.rsplit_once('.').map_or(lower.clone(), |(stem, _)| stem.to_owned())
    };
    let wanted = name.trim().to_lowercase();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut near = similar(parent, |other| {
        let lower = other.to_lowercase();
        lower == wanted || is_pem_name(other) && plain(other) == plain(&name) || is_one_off(&lower, &wanted)
    });
    // A name that differs only in case takes precedence.
    near.sort_by_key(|other| (other.to_lowercase() != wanted, other.clone()));
    if near.iter().any(|other| other.to_lowercase() == wanted) {
        near.retain(|other| other.to_lowercase() == wanted);
    }
    // If there is a better name, a key is not suggested for a certificate, nor a certificate for a key.
    let is_key = |name: &str| name.to_lowercase().contains("key");
    if near.iter().any(|other| is_key(other) == is_key(&name)) {
        near.retain(|other| is_key(other) == is_key(&name));
    }
    near.truncate(3);
    near
}

fn similar(directory: &Path, fits: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().take(MAX_ENTRIES);
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| fits(name)).collect()
}

fn is_pem_name(name: &str) -> bool {
    [".pem", ".crt", ".cer", ".key", ".cert"].iter().any(|end| name.to_lowercase().ends_with(end))
}

fn listed(directory: &Path, names: &[String]) -> String {
    names.iter().take(3).map(|name| format!("{:?}", directory.join(name))).collect::<Vec<_>>().join(" and ")
}

/// Returns true if at most one letter is changed, removed or inserted.
fn is_one_off(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().abs_diff(other.len()) > 1 || one.len() < 3 {
        return false;
    }
    let start = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let end = one[start..].iter().rev().zip(other[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    one.len() - start - end <= 1 && other.len() - start - end <= 1
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_file_at_fault_is_named() {
        let pod = tempfile::tempdir().unwrap();
        let at = |name: &str| pod.path().join(name);
        fs::write(at("tls.crt"), "x").unwrap();
        fs::create_dir(at("certs")).unwrap();
        fs::write(at("certs/server.pem"), "x").unwrap();
        symlink("../../archive/fullchain1.pem", at("fullchain.pem")).unwrap();
        symlink("fullchain.pem", at("second.pem")).unwrap();
        symlink("/nowhere/data", at("data")).unwrap();
        symlink("pool", at("loop")).unwrap();
        symlink("loop", at("pool")).unwrap();
        let table = [
            ("TLS.crt", "no such file", "tls.crt\""),
            ("tls.pem", "no such file", "tls.crt\""),
            ("tls.crtt", "no such file", "tls.crt\""),
            ("tls.crt ", "blank", "tls.crt\""),
            ("cert/server.pem", "there is no directory", "certs\""),
            ("tls.crt/x.pem", "is a file, not a directory", "check"),
            ("certs", "it is a directory", "server.pem\""),
            ("fullchain.pem", "archive/fullchain1.pem\", which does not exist", "target"),
            ("second.pem", "fullchain.pem\" is a link to", "target"),
            ("data/tls.crt", "is a link to \"/nowhere/data\"", "mount"),
            ("~/tls/tls.crt", "`~` is not expanded", "tls/tls.crt\""),
            ("file:///etc/spice/tls.crt", "it is a URL", "\"/etc/spice/tls.crt\""),
            ("https://x/tls.crt", "it is a URL (https://)", "fetch"),
            ("s3://bucket/tls.crt", "it is a URL (s3://)", "fetch"),
            ("certs\\server.pem", "path of Windows", "certs/server.pem\""),
            ("C:\\certs\\tls.crt", "path of Windows", "as this system has it"),
            ("*.crt", "are not expanded", "tls.crt\""),
            ("loop/tls.crt", "a cycle: ", "ls -l"),
            ("$HOME/tls.crt", "variables", "${env:NAME}"),
            ("tls.crt\"", "ends with a quote", "docker"),
        ];
        for (name, reason, fix) in table {
            let error = fs::read(at(name)).unwrap_err();
            let (said, mend) = explain(&error, &at(name));
            assert!(said.contains(reason), "{name}: {said}");
            assert!(mend.contains(fix), "{name}: {mend}");
        }
    }

    #[test]
    fn one_letter_off() {
        for (one, other, off) in [
            ("tls.crt", "tsl.crt", false),
            ("tls.crt", "tls.cr", true),
            ("tls.crt", "tls.cry", true),
            ("ab", "a", false),
        ] {
            assert_eq!(is_one_off(one, other), off, "{one} {other}");
        }
    }
}
