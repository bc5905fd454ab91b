//! The commands other than serving, one file each.

mod config_explain;
mod connect;
mod key_generate;
mod schema;
mod secrets_check;
mod tls_check;
mod tls_init;
mod tls_inspect;

use std::io::{ErrorKind, Write};

use tokio::runtime::{Builder, Runtime};

use crate::args::{Command, ConfigCommand, KeyCommand, SecretsCommand, TlsCommand};
use crate::failure::Failure;

/// Runs `command` to completion.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Config(ConfigCommand::Explain(args)) => config_explain::run(&args),
        Command::Tls(TlsCommand::Check(args)) => tls_check::run(&args),
        Command::Tls(TlsCommand::Inspect(args)) => tls_inspect::run(&args),
        Command::Tls(TlsCommand::Init(args)) => tls_init::run(&args),
        Command::Secrets(SecretsCommand::Check(args)) => secrets_check::run(&args),
        Command::Key(KeyCommand::Generate(args)) => key_generate::run(&args),
        Command::Connect(args) => connect::run(&args),
        Command::Sql(args) => spiced_sql_client::run(args).map_err(Failure::from),
        Command::Schema => schema::run(),
    }
}

/// Writes to standard output. A closed pipe (`| head`) is not an error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Creates a single-threaded runtime for a command.
fn runtime() -> Result<Runtime, Failure> {
    tls_core::install_provider();
    Builder::new_current_thread().enable_all().build().map_err(|e| Failure::Other(e.to_string()))
}
