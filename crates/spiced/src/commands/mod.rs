//! What the program does instead of serving, one file a command.

mod secrets_check;

use crate::args::{Command, ConfigCommand, SecretsCommand, TlsCommand};
use crate::failure::Failure;

/// Does what `command` says, to its end.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Config(ConfigCommand::Explain(_)) => Err(not_built("config explain")),
        Command::Tls(TlsCommand::Init(_)) => Err(not_built("tls init")),
        Command::Secrets(SecretsCommand::Check(args)) => secrets_check::run(&args),
        Command::Connect(_) => Err(not_built("connect")),
        Command::Sql(_) => Err(not_built("sql")),
        Command::Schema => Err(not_built("schema")),
    }
}

fn not_built(name: &str) -> Failure {
    Failure::Usage(format!("error: `spiced {name}` is not built yet\n"))
}
