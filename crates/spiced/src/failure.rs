//! How a run fails: one error, each cause once, a hint, and an exit code for the kind of failure.

use std::io::Write;
use std::process::ExitCode;

use spiced_config::ConfigError;
use spiced_sql_client::ClientError;
use tls_core::redact::without_secrets;

/// The maximum number of causes in one report.
const MAX_CAUSES: usize = 60;

/// Why the program exits with an error.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Help or the version was requested. The text goes to standard output; this is not an error.
    Help(String),
    /// The requested output goes to standard output, and the exit code reports a problem.
    Output {
        /// The output.
        text: String,
        /// The exit code.
        code: u8,
    },
    /// The command line is invalid: exit code 64.
    Usage(String),
    /// The configuration is invalid: exit code 78.
    Configuration {
        /// The causes, each once.
        causes: Vec<String>,
        /// What to change.
        hints: Vec<String>,
    },
    /// A port cannot be bound: exit code 69.
    Unavailable {
        /// What failed, and why.
        cause: String,
        /// What to change.
        hint: String,
    },
    /// Any other error: exit code 1.
    Other(String),
}

impl Failure {
    /// Creates a configuration error with one cause.
    pub(crate) fn configuration(cause: impl ToString, hint: impl Into<String>) -> Self {
        Self::Configuration { causes: vec![cause.to_string()], hints: vec![hint.into()] }
    }

    /// Creates a configuration error with several causes, at most [`MAX_CAUSES`] of them.
    pub(crate) fn several(mut causes: Vec<String>, mut hints: Vec<String>) -> Self {
        if causes.len() > MAX_CAUSES {
            let more = causes.len() - MAX_CAUSES;
            causes.truncate(MAX_CAUSES);
            hints.truncate(MAX_CAUSES);
            causes.push(format!("and {more} more"));
            hints.push("correct these first; the others are reported then".to_owned());
        }
        Self::Configuration { causes, hints }
    }

    /// Merges both into one report if both are configuration errors; otherwise keeps the first.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Configuration { mut causes, mut hints },
                Self::Configuration { causes: more_causes, hints: more_hints },
            ) => {
                // If not every cause has its own hint, the hints apply to all causes together.
                causes.extend(more_causes);
                hints.extend(more_hints);
                Self::Configuration { causes, hints }
            }
            (first, _) => first,
        }
    }

    /// Returns each cause with its fix, for a JSON document.
    pub(crate) fn problems(&self) -> Vec<(String, String)> {
        match self {
            Self::Configuration { causes, hints } if causes.len() == hints.len() => {
                causes.iter().cloned().zip(hints.iter().cloned()).collect()
            }
            Self::Configuration { causes, hints } => causes.iter().map(|cause| (cause.clone(), once(hints))).collect(),
            other => vec![other.in_words()],
        }
    }

    /// Returns the causes and the hints, each as one line, for a log.
    pub(crate) fn in_words(&self) -> (String, String) {
        match self {
            Self::Configuration { causes, hints } => (causes.join("; "), once(hints)),
            Self::Unavailable { cause, hint } => (cause.clone(), hint.clone()),
            Self::Help(text) | Self::Usage(text) | Self::Other(text) | Self::Output { text, .. } => {
                (text.clone(), String::new())
            }
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Help(_) => 0,
            Self::Output { code, .. } => *code,
            Self::Usage(_) => 64,
            Self::Unavailable { .. } => 69,
            Self::Configuration { .. } => 78,
            Self::Other(_) => 1,
        }
    }

    /// Returns the report as text.
    fn text(&self) -> String {
        match self {
            Self::Help(text) | Self::Usage(text) | Self::Output { text, .. } => text.clone(),
            Self::Configuration { causes, hints } => report_of(causes, hints),
            Self::Unavailable { cause, hint } => format!("error: {cause}\nhint: {hint}\n"),
            Self::Other(cause) => format!("error: {cause}\n"),
        }
    }
}

/// Joins the hints in one line, each once.
fn once(hints: &[String]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for hint in hints.iter().map(String::as_str).filter(|hint| !hint.is_empty()) {
        if !once.contains(&hint) {
            once.push(hint);
        }
    }
    once.join("; ")
}

/// Lists all causes, each with its fix if the fixes differ.
fn report_of(causes: &[String], hints: &[String]) -> String {
    let indented = |text: &str| text.replace('\n', "\n    ");
    let heading = || format!("error: {} problems keep spiced from starting\n", causes.len());
    let all = once(hints);
    match causes {
        [one] if all.is_empty() => format!("error: {one}\n"),
        [one] => format!("error: {one}\nhint: {all}\n"),
        _ if causes.len() != hints.len() || hints.iter().all(|hint| *hint == hints[0]) => {
            let items: String = causes.iter().map(|c| format!("  - {}\n", indented(c))).collect();
            let hint = if all.is_empty() { String::new() } else { format!("hint: {all}\n") };
            format!("{}{items}{hint}", heading())
        }
        _ => {
            let mut text = heading();
            let mut told: Vec<&str> = Vec::new();
            for hint in hints {
                if told.contains(&hint.as_str()) {
                    continue;
                }
                told.push(hint);
                let these = causes.iter().zip(hints).filter(|(_, theirs)| *theirs == hint);
                these.for_each(|(cause, _)| text.push_str(&format!("  - {}\n", indented(cause))));
                if !hint.is_empty() {
                    text.push_str(&format!("    fix: {}\n", indented(hint)));
                }
            }
            format!("{text}hint: do what each `fix` says for the lines above it; all of them are needed\n")
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hints = error.0.iter().map(|problem| problem.hint.clone().unwrap_or_default()).collect();
        Self::several(error.0.iter().map(|problem| without_secrets(&problem.to_string())).collect(), hints)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Usage { .. } => Self::Usage(format!("error: {error}\n")),
            other => Self::Other(other.to_string()),
        }
    }
}

/// Prints the outcome of the run and returns its exit code.
pub fn report(outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // A closed output does not change the exit code.
    let _ = match &failure {
        Failure::Help(text) | Failure::Output { text, .. } => std::io::stdout().write_all(text.as_bytes()),
        other => std::io::stderr().write_all(other.text().as_bytes()),
    };
    ExitCode::from(failure.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_and_each_hint_once() {
        let several = Failure::Configuration {
            causes: vec!["a is wrong".into(), "b is wrong\n  3 | b: …".into()],
            hints: vec!["mend it".into(), "mend it".into()],
        };
        insta::assert_snapshot!(several.text(), @r"
        error: 2 problems keep spiced from starting
          - a is wrong
          - b is wrong
              3 | b: …
        hint: mend it
        ");
        let different = Failure::Configuration {
            causes: vec!["a is wrong".into(), "b is wrong".into(), "c is wrong".into()],
            hints: vec!["mend a".into(), "mend b".into(), "mend a".into()],
        };
        insta::assert_snapshot!(different.text(), @r"
        error: 3 problems keep spiced from starting
          - a is wrong
          - c is wrong
            fix: mend a
          - b is wrong
            fix: mend b
        hint: do what each `fix` says for the lines above it; all of them are needed
        ");
        assert_eq!(Failure::configuration("x", "y").text(), "error: x\nhint: y\n");
    }
}
