//! The prompt: a line editor with history and completion that passes statements to the shell.

mod complete;
pub(crate) mod history;
mod keywords;
mod referenced_tables;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustyline::completion::{Completer, FilenameCompleter};
use rustyline::config::{Behavior, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::error::SqlError;
use crate::error::stop::Stop;
use crate::prompt::complete::complete;
use crate::script::splitter::Splitter;
use crate::shell::Shell;
use crate::shell::catalog::Catalog;
use crate::shell::execute::Next;
use crate::shell::interrupt::Interrupt;

const PROMPT: &str = "spiced> ";
const PROMPT_IN_COLOUR: &str = "\x1b[1;32mspiced>\x1b[0m ";

/// Reads and runs statements until the user leaves. `history` is the history file, if there is one.
pub(crate) fn run(runtime: &Runtime, shell: &mut Shell, history: Option<PathBuf>) -> Result<(), Stop> {
    let config = Config::builder()
        .behavior(Behavior::PreferTerm)
        .completion_type(CompletionType::List)
        .history_ignore_space(true)
        .max_history_size(history::MAX_ENTRIES)
        .map_err(unusable)?
        .build();
    let remembered = FileHistory::with_config(&config);
    let mut editor: Editor<Assistant, FileHistory> = Editor::with_history(config, remembered).map_err(unusable)?;
    editor.set_helper(Some(Assistant { catalog: shell.catalog(), files: FilenameCompleter::new() }));
    let history = history.filter(|path| remember(&mut editor, shell, path));
    runtime.block_on(async { shell.refresh() });

    let coloured = if shell.screen.colour() { PROMPT_IN_COLOUR } else { PROMPT };
    loop {
        let text = match editor.readline(&(PROMPT, coloured)) {
            Ok(text) => text,
            // The user discarded the line.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(unusable(error).into()),
        };
        if text.len() <= history::MAX_ENTRY
            && editor.add_history_entry(text.trim_end()).unwrap_or(false)
            && let Some(path) = &history
        {
            // Immediately, so that a crash does not lose it.
            let _ = editor.append_history(path);
        }
        let ran = runtime.block_on(async {
            // An earlier Ctrl-C was for the previous statement.
            shell.interrupt = Interrupt::listen()?;
            shell.text(as_command(&text)).await
        });
        match ran {
            Ok(Next::More) => {}
            Ok(Next::Leave) | Err(Stop::Gone) => return Ok(()),
            Err(Stop::Interrupted) => shell.screen.say("cancelled"),
            Err(Stop::Trouble(trouble)) => shell.screen.trouble(&trouble),
        }
    }
}

/// Loads the history. If that fails, prints a warning and returns false: the prompt works without history.
fn remember(editor: &mut Editor<Assistant, FileHistory>, shell: &mut Shell, path: &Path) -> bool {
    let loaded = history::prepare(path).map_err(|e| e.to_string()).and_then(|()| match editor.load_history(path) {
        Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| e.to_string()),
    });
    if let Err(reason) = &loaded {
        shell.screen.say(&format!("nothing is remembered: {}: {reason}", path.display()));
    }
    loaded.is_ok()
}

fn unusable(error: ReadlineError) -> SqlError {
    SqlError::new(format!("the terminal cannot be used: {error}"))
}

/// Translates commands that users know from other prompts.
fn as_command(text: &str) -> &str {
    match text.trim().trim_end_matches(';').to_ascii_lowercase().as_str() {
        "quit" | "exit" => "\\q",
        "help" => "\\h",
        _ => text,
    }
}

/// The line editor's callbacks while the user types.
struct Assistant {
    catalog: watch::Receiver<Arc<Catalog>>,
    files: FilenameCompleter,
}

impl Helper for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Borrowed(line)
    }
}

impl Validator for Assistant {
    /// Enter submits the input if all statements are complete; otherwise it starts another line.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let mut splitter = Splitter::default();
        splitter.push(text);
        let whole = !splitter.is_within() || as_command(text) != text;
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        if line.trim_start().starts_with("\\i ") {
            let (start, files) = self.files.complete(line, at, context)?;
            return Ok((start, files.into_iter().map(|file| file.replacement).collect()));
        }
        Ok(complete(line, at, &self.catalog.borrow()))
    }
}
