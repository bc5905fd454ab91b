//! How a run that fails ends: one error, each cause once, a hint, and the exit code that says of
//! what kind it was.

use std::io::Write;
use std::process::ExitCode;

use spiced_config::ConfigError;

/// Why the program ends with an error.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Help or version was asked for; the text is printed to standard output. No error.
    Shown(String),
    /// What was asked for is printed to standard output, and the exit code says that not all is well.
    Answered {
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

    /// What is wrong and what to change, each on a line, for a log.
    pub(crate) fn in_words(&self) -> (String, String) {
        match self {
            Self::Configuration { causes, hints } => (causes.join("; "), hints.join("; ")),
            Self::Unavailable { cause, hint } => (cause.clone(), hint.clone()),
            Self::Shown(text) | Self::Usage(text) | Self::Other(text) | Self::Answered { text, .. } => {
                (text.clone(), String::new())
            }
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Shown(_) => 0,
            Self::Answered { code, .. } => *code,
            Self::Usage(_) => 64,
            Self::Unavailable { .. } => 69,
            Self::Configuration { .. } => 78,
            Self::Other(_) => 1,
        }
    }

    /// What a person reads.
    fn text(&self) -> String {
        match self {
            Self::Shown(text) | Self::Usage(text) | Self::Answered { text, .. } => text.clone(),
            Self::Configuration { causes, hints } => {
                let error = match causes.as_slice() {
                    [one] => format!("error: {one}\n"),
                    many => {
                        let items: String =
                            many.iter().map(|c| format!("  - {}\n", c.replace('\n', "\n    "))).collect();
                        format!("error: {} things keep spiced from starting\n{items}", many.len())
                    }
                };
                let mut shown: Vec<&str> = Vec::new();
                for hint in hints.iter().map(String::as_str).filter(|hint| !hint.is_empty()) {
                    if !shown.contains(&hint) {
                        shown.push(hint);
                    }
                }
                if shown.is_empty() { error } else { format!("{error}hint: {}\n", shown.join("; ")) }
            }
            Self::Unavailable { cause, hint } => format!("error: {cause}\nhint: {hint}\n"),
            Self::Other(cause) => format!("error: {cause}\n"),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hints = error.0.iter().filter_map(|problem| problem.hint.clone()).collect();
        Self::Configuration { causes: error.0.iter().map(ToString::to_string).collect(), hints }
    }
}

/// Prints how the run ended, and gives its exit code.
pub fn report(outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // A reader that went away is no reason to fail differently.
    let _ = match &failure {
        Failure::Shown(text) | Failure::Answered { text, .. } => std::io::stdout().write_all(text.as_bytes()),
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
        assert_eq!(Failure::configuration("x", "y").text(), "error: x\nhint: y\n");
    }
}
