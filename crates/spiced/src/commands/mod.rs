//! What the program does instead of serving, one file a command.

pub(crate) mod sql;

use crate::args::{Command, ConfigCommand, SecretsCommand, TlsCommand};
use crate::failure::Failure;

/// Does what `command` says, to its end.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Config(ConfigCommand::Explain(_)) => Err(not_built("config explain")),
        Command::Tls(TlsCommand::Init(_)) => Err(not_built("tls init")),
        Command::Secrets(SecretsCommand::Check(_)) => Err(not_built("secrets check")),
        Command::Connect(_) => Err(not_built("connect")),
        Command::Sql(args) => sql::run(args),
        Command::Schema => Err(not_built("schema")),
    }
}

fn not_built(name: &str) -> Failure {
    Failure::Usage(format!("error: `spiced {name}` is not built yet\n"))
}
