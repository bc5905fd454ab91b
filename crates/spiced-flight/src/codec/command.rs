//! Decoding of descriptors and tickets: a Flight SQL command, or plain SQL text.

use arrow_flight::FlightDescriptor;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{Any, Command};
use bytes::Bytes;
use prost::Message;
use tonic::Status;

/// The prefix of the type URL in every protobuf `Any` that a client sends.
const TYPE_URL: &str = "type.googleapis.com/";

/// A decoded request.
#[derive(Debug, PartialEq)]
pub(crate) enum Requested {
    /// A Flight SQL command that arrow-flight supports.
    Command(Command),
    /// SQL text.
    Sql(String),
}

impl Requested {
    /// Decodes a descriptor. It holds a command, SQL text in place of a command (as pyarrow's `for_command` sends it),
    /// or a path: a table name of one to three parts.
    pub(crate) fn by(descriptor: FlightDescriptor) -> Result<Self, Status> {
        match descriptor.r#type() {
            DescriptorType::Path => table(&descriptor.path).map(Self::Sql),
            // Some clients omit the type.
            DescriptorType::Cmd | DescriptorType::Unknown => Self::read(&descriptor.cmd),
        }
    }

    /// Decodes the bytes of a command. Bytes without a type URL are SQL text: the first bytes of SQL can look like
    /// protobuf, but not like a type URL.
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, Status> {
        if let Ok(any) = Any::decode(bytes.clone())
            && any.type_url.starts_with(TYPE_URL)
        {
            return match Command::try_from(any) {
                Ok(Command::Unknown(any)) => Err(Status::unimplemented(format!("`{}` is not supported", any.type_url))),
                Ok(command) => Ok(Self::Command(command)),
                Err(error) => Err(Status::invalid_argument(error.to_string())),
            };
        }
        match std::str::from_utf8(bytes) {
            Ok(sql) if sql.trim().is_empty() => {
                Err(Status::invalid_argument("the command is empty; send a Flight SQL command or SQL text"))
            }
            Ok(sql) => Ok(Self::Sql(sql.to_owned())),
            Err(_) => {
                Err(Status::invalid_argument("the command is neither a Flight SQL command nor SQL text in UTF-8"))
            }
        }
    }
}

/// Returns the error for a command that `call` does not accept.
pub(crate) fn misplaced(command: &Command, call: &str) -> Status {
    Status::unimplemented(format!("{call} does not accept `{}`", name(command)))
}

/// Rejects a statement that belongs to a transaction: the server does not support beginning one.
pub(crate) fn no_transaction(id: Option<&Bytes>) -> Result<(), Status> {
    match id {
        Some(id) if !id.is_empty() => {
            Err(Status::unimplemented("transactions are not supported; send the statement without a transaction id"))
        }
        _ => Ok(()),
    }
}

/// Returns the short name of a command.
pub(crate) fn name(command: &Command) -> &str {
    let url = command.type_url();
    url.rsplit_once('.').map_or(url, |(_, name)| name)
}

/// Returns a query for all rows of the table at `path`.
fn table(path: &[String]) -> Result<String, Status> {
    if !(1..=3).contains(&path.len()) || path.iter().any(String::is_empty) {
        return Err(Status::invalid_argument(
            "a path must name a table: [table], [schema, table] or [catalog, schema, table]",
        ));
    }
    let quoted: Vec<String> = path.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    Ok(format!("SELECT * FROM {}", quoted.join(".")))
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{CommandGetCatalogs, CommandStatementQuery, ProstMessageExt};
    use tonic::Code;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Requested, Status> {
        Requested::by(FlightDescriptor::new_cmd(bytes.to_vec()))
    }

    #[test]
    fn sql_is_told_from_a_command() {
        // The third text begins with a byte that is a valid protobuf field key, with the field number of `type_url`.
        for sql in
            ["SELECT 1", "  select 'ü'", "\nSELECT 'a text that is long enough for a length of 83 bytes ....'", "x"]
        {
            assert_eq!(read(sql.as_bytes()).unwrap(), Requested::Sql(sql.into()));
        }
        let command = CommandStatementQuery { query: "SELECT 1".into(), transaction_id: None };
        let asked = read(&command.as_any().encode_to_vec()).unwrap();
        assert_eq!(asked, Requested::Command(Command::CommandStatementQuery(command)));
        let asked = read(&CommandGetCatalogs {}.as_any().encode_to_vec()).unwrap();
        assert!(matches!(asked, Requested::Command(command) if name(&command) == "CommandGetCatalogs"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        let any = |url: &str, value: &'static [u8]| {
            Any { type_url: url.into(), value: Bytes::from_static(value) }.encode_to_vec()
        };
        let cases = [
            (read(b""), Code::InvalidArgument),
            (read(b" \n"), Code::InvalidArgument),
            (read(b"\xff\xfe"), Code::InvalidArgument),
            (read(&any("type.googleapis.com/other.Command", b"")), Code::Unimplemented),
            (
                read(&any("type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery", b"\xff")),
                Code::InvalidArgument,
            ),
        ];
        for (answer, code) in cases {
            assert_eq!(answer.unwrap_err().code(), code);
        }
    }

    #[test]
    fn a_path_is_a_table() {
        let path =
            |parts: &[&str]| Requested::by(FlightDescriptor::new_path(parts.iter().map(ToString::to_string).collect()));
        assert_eq!(path(&["trips"]).unwrap(), Requested::Sql("SELECT * FROM \"trips\"".into()));
        assert_eq!(path(&["a", "b\"c"]).unwrap(), Requested::Sql("SELECT * FROM \"a\".\"b\"\"c\"".into()));
        assert_eq!(path(&[]).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(path(&["a", ""]).unwrap_err().code(), Code::InvalidArgument);
    }
}
