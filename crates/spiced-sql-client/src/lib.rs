//! `spiced sql`: a SQL prompt over Flight SQL, a single query, or a script.
//!
//! A client of any Flight SQL server, not of this one alone. Deliberately absent: server crates, and the pod.
//!
//! The modules: `args` resolves the options; `connect` makes the connection, speaks Flight SQL on it, and explains why
//! it fails; `script` cuts text into statements; `shell` runs them and `print` writes their results; `prompt` is
//! the line editor.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod connect;
mod error;
mod print;
mod prompt;
mod script;
mod shell;

use std::io::IsTerminal;
use std::path::Path;

use tls_core::Origin;
use tokio::runtime::{Builder, Runtime};

pub use args::SqlArgs;
pub use error::failure::ClientError;

use args::{Given, Options, Reach};
use connect::endpoint;
use connect::session::Session;
use error::stop::Stop;
use print::output::{self, Screen};
use prompt::history;
use script::Script;
use shell::interrupt::Interrupt;
use shell::{Settings, Shell};

/// Runs the prompt, the query or the script that `args` asks for.
///
/// # Errors
/// Fails if an option is invalid, if there is no connection, or if a statement fails.
pub fn run(args: SqlArgs) -> Result<(), ClientError> {
    let options = args.decide(|name| std::env::var_os(name), Path::new(""))?;
    // One worker thread for the connection; statements and their output run on this thread.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| ClientError::Failed(e.to_string()))?;
    let ended = converse(&runtime, options);
    // Does not wait for a script that is still being read.
    runtime.shutdown_background();
    match ended {
        Ok(()) | Err(Stop::Gone) => Ok(()),
        Err(Stop::Interrupted) => Err(ClientError::Failed("cancelled".to_owned())),
        Err(Stop::Trouble(trouble)) => Err(ClientError::Failed(output::printable(&trouble.text()).into_owned())),
    }
}

fn converse(runtime: &Runtime, options: Options) -> Result<(), Stop> {
    let Options { input, reach, format, max_rows } = options;
    let prompt = input.is_none() && std::io::stdin().is_terminal();
    let mut screen = Screen::standard();
    beware(&reach, &mut screen);
    let session = runtime.block_on(Session::open(&reach))?;
    let settings = Settings { format, expanded: false, timing: true, max_rows, prompt };
    let interrupt = runtime.block_on(async { Interrupt::listen() })?;
    let mut shell = Shell::new(session, screen, settings, interrupt);
    match input {
        Some(Given::Query(query)) => runtime.block_on(shell.text(&query)).map(|_| ()),
        Some(Given::File(path)) => runtime.block_on(shell.script(Script::file(&path))).map(|_| ()),
        None if !prompt => runtime.block_on(shell.script(Script::standard_input())).map(|_| ()),
        None => {
            let told = runtime.block_on(shell.session.server())?;
            let greeting = greeting(told.as_deref(), &shell);
            shell.screen.say(&greeting);
            prompt::run(runtime, &mut shell, history::path(|name| std::env::var_os(name)))
        }
    }
}

/// Warns about an API key that others can see.
fn beware(reach: &Reach, screen: &mut Screen) {
    let Some(key) = &reach.api_key else { return };
    if matches!(key.origin, Origin::Flag(_)) {
        screen.say("warning: --api-key shows the key to everybody who can list processes; SPICED_SQL_API_KEY does not");
    }
    if reach.endpoint.asked == endpoint::Requested::Plain && !reach.endpoint.is_loopback() {
        screen.say(&format!("warning: the key of {} travels in plain text to {}", key.origin, reach.endpoint));
    }
}

fn greeting(server: Option<&str>, shell: &Shell) -> String {
    let server = server.unwrap_or("a Flight SQL server");
    let place = shell.session.link().map_or_else(String::new, |link| {
        let tls = link.tls.as_ref().map_or("no TLS", |tls| tls.version.as_str());
        format!(" at {} ({tls})", link.endpoint)
    });
    format!("{server}{place}. `;` ends a statement, \\? helps, \\q leaves.")
}
