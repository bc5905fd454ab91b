//! Explains what is wrong with a command line without repeating any of it. A wrong word may be a key, or a line of a
//! key: a shell splits the output of `$(cat tls.key)`, and the dashes that PEM begins with look like an option.

use std::ffi::OsString;
use std::fmt::Write;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};
use spiced_config::meant;

/// Explains an error. `words` are the words of the command line, including the program's name; `command` is the
/// definition that parsed them.
pub(crate) fn explain(error: &Error, words: &[OsString], command: &Command) -> String {
    let message = message(error, words, command);
    let mut text = format!("error: {message}\n");
    // Suggestions come only from the program's own names.
    let kinds = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    match other_name(error, command) {
        _ if names(error, ContextKind::InvalidArg).iter().any(|argument| is_pem(argument)) => {
            text.push_str(
                "hint: PEM text is a value of --tls-certificate or --tls-key, in quotes: --tls-key \"$(cat FILE)\"\n",
            );
        }
        Some(option) => {
            let _ = writeln!(text, "hint: here it is called `--{option}`");
        }
        None => {
            for like in kinds.into_iter().filter_map(|kind| names(error, kind).into_iter().next()) {
                let _ = writeln!(text, "hint: did you mean `{like}`?");
            }
        }
    }
    if let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) {
        let _ = write!(text, "\n{usage}\n");
    }
    text.push_str("\nFor more information, try '--help'.\n");
    text
}

fn message(error: &Error, words: &[OsString], command: &Command) -> String {
    let of = |kind| names(error, kind).join(", ");
    let option = || of(ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::InvalidValue if of(ContextKind::InvalidValue).is_empty() => {
            format!("a value is required for `{}`, but none is given{}", option(), one_of(error))
        }
        ErrorKind::InvalidValue => format!("`{}` does not accept this value{}", option(), one_of(error)),
        ErrorKind::ValueValidation => {
            // The value parsers describe what they accept, and do not repeat the value.
            let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
            format!("the value of `{}` cannot be used{source}", option())
        }
        ErrorKind::UnknownArgument => {
            let place = place(&option(), words);
            let kind = match option().starts_with('-') && !is_pem(&option()) {
                true => "is an unknown option",
                false => "is not expected here",
            };
            format!("{place} {kind} (it is not repeated: it may be a secret)")
        }
        ErrorKind::InvalidSubcommand => {
            let place = place(&of(ContextKind::InvalidSubcommand), words);
            format!("{place} is not a command of `{}`", command.get_name())
        }
        ErrorKind::NoEquals => format!("an equal sign is needed between `{}` and its value", option()),
        ErrorKind::TooManyValues => format!("there is one value too many for `{}`", option()),
        ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            format!("`{}` expects a different number of values", option())
        }
        ErrorKind::ArgumentConflict if option().is_empty() => {
            "there is one argument too many: PATH is one directory or file, and a command comes first".to_owned()
        }
        ErrorKind::ArgumentConflict => {
            let other = of(ContextKind::PriorArg);
            let other = if other.is_empty() { "another argument".to_owned() } else { format!("`{other}`") };
            format!("`{}` cannot be used with {other}", option())
        }
        ErrorKind::MissingRequiredArgument => format!("these arguments are missing: {}", option()),
        ErrorKind::MissingSubcommand => {
            format!("one of these commands is required: {}", of(ContextKind::ValidSubcommand))
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8 text".to_owned(),
        _ => "the command line is wrong".to_owned(),
    }
}

/// Returns true for PEM text: its frame lines begin and end with more dashes than an option has.
fn is_pem(argument: &str) -> bool {
    argument.starts_with("---") || argument.ends_with("---")
}

fn one_of(error: &Error) -> String {
    let values = names(error, ContextKind::ValidValue);
    if values.is_empty() { String::new() } else { format!(": one of {}", values.join(", ")) }
}

fn names(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(name)) => vec![name.clone()],
        Some(ContextValue::Strings(names)) => names.clone(),
        _ => Vec::new(),
    }
}

/// Describes the position of the word on the command line.
fn place(argument: &str, words: &[OsString]) -> String {
    let name = argument.split('=').next().unwrap_or_default();
    let letter = name.strip_prefix('-').filter(|letter| letter.chars().count() == 1);
    let is_it = |word: &OsString| {
        let word = word.to_string_lossy();
        let is_short = !word.starts_with("--") && word.starts_with('-');
        word == argument
            || word.split('=').next() == Some(name)
            || letter.is_some_and(|letter| is_short && word.contains(letter))
    };
    match words.iter().position(is_it) {
        Some(at) if at > 0 => format!("argument {at} of the command line"),
        _ => "an argument of the command line".to_owned(),
    }
}

/// Returns the option that corresponds to another product's option name.
fn other_name(error: &Error, command: &Command) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let given = names(error, ContextKind::InvalidArg).into_iter().next()?;
    let given = given.strip_prefix("--")?.split('=').next()?.to_owned();
    let known: Vec<String> = command.get_opts().filter_map(|arg| Some(arg.get_long()?.replace('-', "_"))).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    meant(&given, &known).map(|name| name.replace('_', "-"))
}
