//! How a run that fails ends: one error, each cause once, a hint, and the exit code that says of
//! what kind it was.

use std::io::Write;
use std::process::ExitCode;

use spiced_config::{ConfigError, without_secrets};

/// Causes that one report shows.
const MAX_CAUSES: usize = 60;

/// Why the program ends with an error.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Help or version was asked for; the text is printed to standard output. No error.
    Help(String),
    /// What was asked for is printed to standard output, and the exit code says that not all is well.
    Output {
        /// What is printed.
        text: String,
        /// The exit code.
        code: u8,
    },
    /// The command line is wrong: exit code 64.
    Usage(String),
    /// Something that was said cannot be done: exit code 78.
    Configuration {
        /// Each cause, once.
        causes: Vec<String>,
        /// What to change.
        hints: Vec<String>,
    },
    /// A port cannot be bound: exit code 69.
    Unavailable {
        /// What, and why.
        cause: String,
        /// What to change.
        hint: String,
    },
    /// Anything else: exit code 1.
    Other(String),
}

impl Failure {
    /// A configuration error with one cause.
    pub(crate) fn configuration(cause: impl ToString, hint: impl Into<String>) -> Self {
        Self::Configuration { causes: vec![cause.to_string()], hints: vec![hint.into()] }
    }

    /// A configuration error with these causes, of which a report shows as many as a person reads.
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

    /// Both in one report, where both are about the configuration.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Configuration { mut causes, mut hints },
                Self::Configuration { causes: more_causes, hints: more_hints },
            ) => {
                // Where not every cause has its own hint, the hints are those of all together.
                causes.extend(more_causes);
                hints.extend(more_hints);
                Self::Configuration { causes, hints }
            }
            (first, _) => first,
        }
    }

    /// What is wrong and what to change, each on a line, for a log.
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

    /// What a person reads.
    fn text(&self) -> String {
        match self {
            Self::Help(text) | Self::Usage(text) | Self::Output { text, .. } => text.clone(),
            Self::Configuration { causes, hints } => report_of(causes, hints),
            Self::Unavailable { cause, hint } => format!("error: {cause}\nhint: {hint}\n"),
            Self::Other(cause) => format!("error: {cause}\n"),
        }
    }
}

/// Each hint once, on one line.
fn once(hints: &[String]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for hint in hints.iter().map(String::as_str).filter(|hint| !hint.is_empty()) {
        if !once.contains(&hint) {
            once.push(hint);
        }
    }
    once.join("; ")
}

/// All causes, and beside each its fix where they have different ones.
fn report_of(causes: &[String], hints: &[String]) -> String {
    let indented = |text: &str| text.replace('\n', "\n    ");
    let heading = || format!("error: {} things keep spiced from starting\n", causes.len());
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

/// Prints how the run ended, and gives its exit code.
pub fn report(outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // A reader that went away is no reason to fail differently.
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
        error: 2 things keep spiced from starting
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
        error: 3 things keep spiced from starting
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
