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

/// At most so many causes are listed: a person reads no more.
const MAX_LISTED: usize = 50;

/// All causes, and beside each its fix where they have different ones.
fn report_of(causes: &[String], hints: &[String]) -> String {
    if causes.len() > MAX_LISTED {
        let listed = report_of(&causes[..MAX_LISTED], hints.get(..MAX_LISTED).unwrap_or(hints));
        let count = format!("error: {MAX_LISTED} things");
        return listed.replacen(&count, &format!("error: more than {MAX_LISTED} things"), 1)
            + "hint: the rest is not listed; fix these first\n";
    }
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
