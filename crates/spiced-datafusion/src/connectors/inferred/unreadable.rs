//! The reason why a file cannot be read.

pub(super) fn unreadable(error: &std::io::Error) -> String {
    format!(" cannot be read: {}", error.kind())
}
