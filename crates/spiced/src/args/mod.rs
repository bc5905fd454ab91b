//! The command line: its options and commands, and the setting that each option sets.

mod usage;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueEnum};
use spiced_config::{Flag, KnownOption};
use spiced_sql_client::SqlArgs;
use spiced_telemetry::LogFormat;
use tls_core::redact::{may_be_secret, plausible_path};

use crate::failure::Failure;

/// Options whose value is optional. The next word counts as their value only if it is a boolean.
const SWITCHES: [&str; 2] = ["--tls-enabled", "--tls-self-signed"];

/// A SQL query server: HTTP, Arrow Flight SQL and gRPC, secured by one certificate.
#[derive(Debug, Parser)]
#[command(
    name = "spiced",
    version,
    about,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "A directory that is named like a command is written ./NAME. Every setting of `runtime` is also a \
                  variable: SPICED_RUNTIME__TLS__ENABLED=true."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    pod: PodArgs,
    #[command(flatten)]
    log: LogArgs,
    /// Allow core dumps, which contain secrets, and memory access by other processes of this user
    #[arg(long)]
    allow_core_dumps: bool,
}

/// What the program does instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the effective configuration and where each value comes from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check, inspect and create certificates
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Check that every secret reference resolves
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Create API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print lines to paste for a client, filled in from the configuration
    Connect(ConnectArgs),
    /// Run SQL against a server, interactively or as a one-off query
    Sql(SqlArgs),
    /// Print the JSON Schema of spicepod.yaml, for editors
    Schema,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show each effective value, its origin, the values it overrides, and why; secrets are masked
    Explain(ExplainArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TlsCommand {
    /// Check certificates, keys and auth of a pod, or a certificate and its key, and say how to fix what is wrong,
    /// without serving (the doctor)
    Check(Box<TlsCheckArgs>),
    /// Show what a server on the network presents: chain, names, validity, versions; and what is wrong with it
    Inspect(TlsInspectArgs),
    /// Create a development CA and a certificate for localhost, and say how each client trusts it
    Init(TlsInitArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// List each reference, the store that resolves it, and what is missing; never a value
    Check(SecretsCheckArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Generate an API key, and its hash for the pod file
    Generate(KeyGenerateArgs),
}

/// `spiced key generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyGenerateArgs {
    /// The role of the caller with this key: ro or rw
    #[arg(long, value_enum, default_value = "ro")]
    pub(crate) role: KeyRole,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum KeyRole {
    /// Run queries
    Ro,
    /// Also change data and definitions
    Rw,
}

/// `spiced config explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) pod: PodArgs,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `spiced tls check`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "spiced tls check [OPTIONS] [PATH]\n       spiced tls check [OPTIONS] CERT [KEY]")]
pub(crate) struct TlsCheckArgs {
    #[command(flatten)]
    pub(crate) pod: PodArgs,
    /// The key of a certificate that is checked without a pod; PATH is then the certificate's file
    #[arg(value_name = "KEY", value_parser = path())]
    pub(crate) key: Option<PathBuf>,
    /// A name by which clients reach the server; the certificate must cover it (may be repeated)
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) name: Vec<String>,
    /// The roots that clients trust, as PEM; the chain must lead to one of them
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Also fail for warnings, and for every finding that makes a client refuse
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `spiced tls inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct TlsInspectArgs {
    /// The address of the server
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: String,
    /// The protocol that comes before TLS
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub(crate) starttls: Option<StartTls>,
    /// A name by which clients reach the server [default: HOST] (may be repeated)
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) name: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// A protocol that begins without TLS.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StartTls {
    /// PostgreSQL's SSLRequest
    Postgres,
}

/// `spiced tls init`.
#[derive(Debug, clap::Args)]
pub(crate) struct TlsInitArgs {
    /// The directory to put the files in
    #[arg(long, value_name = "DIR", default_value = ".spice/tls", value_parser = path())]
    pub(crate) dir: PathBuf,
}

/// `spiced secrets check`.
#[derive(Debug, clap::Args)]
pub(crate) struct SecretsCheckArgs {
    #[command(flatten)]
    pub(crate) pod: PodArgs,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `spiced connect`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// The client [default: all clients]
    pub(crate) client: Option<String>,
    #[command(flatten)]
    pub(crate) pod: PodArgs,
}

/// The pod, and the settings that the command line sets.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PodArgs {
    /// A directory that contains spicepod.yaml, or such a file
    #[arg(default_value = ".", value_parser = path())]
    path: PathBuf,

    /// Where HTTP listens [default: localhost:3000]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Where Arrow Flight SQL listens [default: localhost:50051]
    #[arg(long, value_name = "ADDR")]
    flight: Option<String>,
    /// Where gRPC listens [default: localhost:50052]
    #[arg(long, value_name = "ADDR", aliases = ["open-telemetry", "open_telemetry"])]
    grpc: Option<String>,
    /// Where Prometheus metrics listen [default: off]
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// Where probes listen, in plain text, only for health and readiness [default: off]
    #[arg(long, value_name = "ADDR")]
    probe: Option<String>,

    /// Switch TLS on or off
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch)]
    tls_enabled: Option<String>,
    /// The certificate with its intermediates, a PEM file
    #[arg(long, value_name = "PATH", allow_hyphen_values = true, value_parser = path_or_pem)]
    tls_certificate_file: Option<String>,
    /// The certificate with its intermediates, PEM text
    #[arg(long, value_name = "PEM", allow_hyphen_values = true, value_parser = pem_text)]
    tls_certificate: Option<String>,
    /// The certificate's key, a PEM file
    #[arg(long, value_name = "PATH", allow_hyphen_values = true, value_parser = path_or_pem)]
    tls_key_file: Option<String>,
    /// The certificate's key, PEM text (others on this machine can see it in the process list)
    #[arg(long, value_name = "PEM", allow_hyphen_values = true, value_parser = pem_text)]
    tls_key: Option<String>,
    /// Serve with a development CA and certificate, created on first use in .spice/tls
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch)]
    tls_self_signed: Option<String>,
    /// Whether clients present a certificate: none, request or required
    #[arg(long, value_name = "MODE")]
    tls_client_auth_mode: Option<String>,
    /// The CA whose client certificates are trusted, a PEM file
    #[arg(long, value_name = "PATH", allow_hyphen_values = true, value_parser = path_or_pem)]
    tls_client_auth_ca_file: Option<String>,
    /// The CA whose client certificates are trusted, PEM text
    #[arg(long, value_name = "PEM", allow_hyphen_values = true, value_parser = pem_text)]
    tls_client_auth_ca: Option<String>,
}

/// The options of the log.
#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// Log more; -vv logs the most
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// The format of log lines
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
    /// Write the keys of each TLS session to the file that SSLKEYLOGFILE names, for Wireshark: anyone who has the file
    /// can read all traffic
    #[arg(long)]
    insecure_key_log: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Args {
    /// Parses the command line; the first word is the program's name.
    ///
    /// # Errors
    /// Fails if the command line is invalid, or if it asks for help or the version.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let words = join_switches(words);
        let mut command = Self::command();
        // Values are parsed by the same definition; clap's error messages are reworded so that they do not repeat
        // values.
        let matches = command.try_get_matches_from_mut(words.clone());
        let read = matches.and_then(|matches| <Self as clap::FromArgMatches>::from_arg_matches(&matches));
        read.map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Failure::Help(error.to_string()),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Failure::Usage(error.to_string()),
            _ => Failure::Usage(usage::explain(&error, &words, chosen(&command, &words))),
        })
    }

    /// Returns true if core dumps are allowed.
    pub(crate) fn allows_core_dumps(&self) -> bool {
        self.allow_core_dumps
    }

    /// Splits the arguments into the command to run instead of serving, if any, the pod's arguments and the log
    /// options.
    pub(crate) fn split(self) -> (Option<Command>, PodArgs, LogArgs) {
        (self.command, self.pod, self.log)
    }
}

impl LogArgs {
    /// How often `-v` was given.
    pub(crate) fn verbosity(&self) -> u8 {
        self.verbose
    }

    /// Whether TLS keys are written to the file that `SSLKEYLOGFILE` names.
    pub(crate) fn keys(&self) -> bool {
        self.insecure_key_log
    }

    /// The format of log lines.
    pub(crate) fn format(&self) -> LogFormat {
        match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        }
    }
}

impl PodArgs {
    /// The pod's path.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Returns true if a private key was given on the command line itself.
    pub(crate) fn shows_key(&self) -> bool {
        self.tls_key.is_some()
    }

    /// Returns the settings that were given as options.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let given = [
            &self.http,
            &self.flight,
            &self.grpc,
            &self.metrics,
            &self.probe,
            &self.tls_enabled,
            &self.tls_certificate_file,
            &self.tls_certificate,
            &self.tls_key_file,
            &self.tls_key,
            &self.tls_self_signed,
            &self.tls_client_auth_mode,
            &self.tls_client_auth_ca_file,
            &self.tls_client_auth_ca,
        ];
        let value = |((name, setting), value): ((&str, &'static str), &Option<String>)| {
            Some(Flag { name: name.to_owned(), setting, value: value.clone()? })
        };
        FLAGS.into_iter().zip(given).filter_map(value).collect()
    }
}

/// Returns the command that `words` select, following subcommand names as far as they match.
fn chosen<'c>(command: &'c clap::Command, words: &[OsString]) -> &'c clap::Command {
    let names = words.iter().skip(1).map_while(|word| word.to_str());
    names
        .fold((command, true), |(command, goes_on), word| match command.find_subcommand(word) {
            Some(inner) if goes_on => (inner, true),
            _ => (command, false),
        })
        .0
}

/// Returns the options of the server's own command line, for comparing variables with them.
pub(crate) fn known_options() -> Vec<KnownOption> {
    let command = Args::command();
    let mut known = Vec::new();
    for option in command.get_opts() {
        let setting = option.get_long().and_then(|long| {
            FLAGS.iter().find(|(name, _)| name.strip_prefix("--") == Some(long)).map(|(_, setting)| *setting)
        });
        let names = option.get_long().into_iter().map(str::to_owned);
        let aliases = option.get_all_aliases().into_iter().flatten().map(str::to_owned);
        known.extend(names.chain(aliases).map(|name| KnownOption { name, setting }));
    }
    known
}

/// The options that set a setting, each with the setting's key.
const FLAGS: [(&str, &str); 14] = [
    ("--http", "runtime.listen.http"),
    ("--flight", "runtime.listen.flight"),
    ("--grpc", "runtime.listen.grpc"),
    ("--metrics", "runtime.listen.metrics"),
    ("--probe", "runtime.listen.probe"),
    ("--tls-enabled", "runtime.tls.enabled"),
    ("--tls-certificate-file", "runtime.tls.certificate_file"),
    ("--tls-certificate", "runtime.tls.certificate"),
    ("--tls-key-file", "runtime.tls.key_file"),
    ("--tls-key", "runtime.tls.key"),
    ("--tls-self-signed", "runtime.tls.self_signed"),
    ("--tls-client-auth-mode", "runtime.tls.client_auth_mode"),
    ("--tls-client-auth-ca-file", "runtime.tls.client_auth_ca_file"),
    ("--tls-client-auth-ca", "runtime.tls.client_auth_ca"),
];

/// Turns `--tls-enabled true` into `--tls-enabled=true`, and leaves `--tls-enabled ./pod` as it is.
fn join_switches(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        if word == "--" {
            joined.push(word);
            joined.extend(words);
            break;
        }
        let is_switch = word.to_str().is_some_and(|w| SWITCHES.contains(&w));
        match words.next_if(|next| is_switch && (next == "true" || next == "false")) {
            Some(value) => {
                let mut whole = word;
                whole.push("=");
                whole.push(value);
                joined.push(whole);
            }
            None => joined.push(word),
        }
    }
    joined
}

fn switch(text: &str) -> Result<String, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        word @ ("true" | "false") => Ok(word.to_owned()),
        _ => Err("expects true or false"),
    }
}

/// Accepts PEM text, which begins with dashes as an option does; refuses text that looks like an option.
fn pem_text(text: &str) -> Result<String, &'static str> {
    let option = text.strip_prefix("--").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()));
    if option { Err("PEM text is missing: the next option follows immediately") } else { Ok(text.to_owned()) }
}

/// Accepts the path of a PEM file. PEM text, which begins with dashes, is accepted here and reported when the
/// configuration is resolved.
fn path_or_pem(text: &str) -> Result<String, &'static str> {
    if text.starts_with('-') && !text.starts_with("---") {
        return Err(
            "a path is missing: the next option follows immediately (a path that begins with - is written ./-)",
        );
    }
    Ok(text.to_owned())
}

/// Accepts a path that is used as it is and that error messages repeat; refuses text that may be a secret.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(plausible_path)
}

/// Accepts a server name: a host name or an IP address, an IPv6 address with or without brackets.
fn name(text: &str) -> Result<String, &'static str> {
    let text = host(text)?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
    match bare.contains(':') && bare.parse::<std::net::IpAddr>().is_err() {
        true => Err("it expects a host name or an IP address, without a port"),
        false => Ok(bare.to_owned()),
    }
}

/// Accepts a host name or an IP address; error messages repeat it.
pub(crate) fn host(text: &str) -> Result<String, &'static str> {
    let is_part = |c: char| c.is_alphanumeric() || "-._*:[]%".contains(c);
    let is_host = !text.is_empty() && text.len() <= 255 && text.chars().all(is_part) && !may_be_secret(text);
    if is_host { Ok(text.to_owned()) } else { Err("it expects a host name or an IP address") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Args {
        match Args::read(["spiced"].iter().chain(line).map(OsString::from)) {
            Ok(args) => args,
            Err(failure) => panic!("{line:?}: {failure:?}"),
        }
    }

    fn flag(args: &Args, setting: &str) -> Option<String> {
        args.pod.flags().into_iter().find(|flag| flag.setting == setting).map(|flag| flag.value)
    }

    #[test]
    fn every_spelling_of_a_switch() {
        for (line, value, path) in [
            (vec!["--tls-enabled"], "true", "."),
            (vec!["--tls-enabled", "true"], "true", "."),
            (vec!["--tls-enabled=true"], "true", "."),
            (vec!["--tls-enabled", "false"], "false", "."),
            (vec!["--tls-enabled=false", "pod"], "false", "pod"),
            (vec!["--tls-enabled", "pod"], "true", "pod"),
            (vec!["--tls-enabled", "true", "pod"], "true", "pod"),
            (vec!["pod", "--tls-enabled"], "true", "pod"),
            (vec!["--tls-enabled", "--", "true"], "true", "true"),
        ] {
            let args = read(&line);
            assert_eq!(flag(&args, "runtime.tls.enabled").as_deref(), Some(value), "{line:?}");
            assert_eq!(args.pod.path(), std::path::Path::new(path), "{line:?}");
        }
    }

    #[test]
    fn pem_text_is_a_value() {
        let args = read(&["--tls-certificate", "-----BEGIN CERTIFICATE-----\nx", "--tls-key=-----BEGIN", "pod"]);
        assert_eq!(flag(&args, "runtime.tls.certificate").unwrap(), "-----BEGIN CERTIFICATE-----\nx");
        assert!(args.pod.shows_key());
        let swallowed = Args::read(["spiced", "--tls-certificate", "--tls-key-file", "k"].map(OsString::from));
        assert!(matches!(swallowed, Err(Failure::Usage(_))));
    }

    #[test]
    fn a_path_of_a_pem_file_and_what_is_none() {
        let args = read(&["--tls-key-file", "-----BEGIN PRIVATE KEY-----\nx"]);
        assert!(flag(&args, "runtime.tls.key_file").unwrap().starts_with("-----BEGIN"));
        for line in [
            &["--tls-key-file", "--tls-enabled"][..],
            &["--tls-key-file", "-v"],
            &["\n-----BEGIN PRIVATE KEY-----\nx"],
            &["tls", "init", "--dir", "\n-----BEGIN PRIVATE KEY-----\nx"],
            &["tls", "check", "--name", "a b"],
        ] {
            let failed = Args::read(["spiced"].iter().chain(line).map(OsString::from));
            assert!(matches!(failed, Err(Failure::Usage(_))), "{line:?}");
        }
        let usage = |line: &[&str]| match Args::read(["spiced"].iter().chain(line).map(OsString::from)) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{line:?}: {other:?}"),
        };
        let text = usage(&["--tls-key-fil", "k"]);
        assert!(text.contains("argument 1 ") && text.contains("did you mean `--tls-key-file`"), "{text}");
        for (theirs, ours) in [("--cert-file", "--tls-certificate-file"), ("--ssl-key=k", "--tls-key-file")] {
            let text = usage(&[theirs, "x"]);
            assert!(text.contains(&format!("`{ours}`")), "{theirs}: {text}");
        }
        let text = usage(&["--log-format", "hush"]);
        assert!(text.contains("text, json") && !text.contains("hush"), "{text}");
    }

    #[test]
    fn every_option_is_known_to_who_compares_variables() {
        let known = known_options();
        let setting = |name: &str| known.iter().find(|option| option.name == name).and_then(|option| option.setting);
        for (name, path) in FLAGS {
            assert_eq!(setting(name.trim_start_matches('-')), Some(path), "{name}");
        }
        assert_eq!(setting("open-telemetry"), Some("runtime.listen.grpc"));
        assert!(known.iter().any(|option| option.name == "log-format" && option.setting.is_none()));
    }

    #[test]
    fn aliases_and_what_is_not_there() {
        for alias in ["--grpc", "--open-telemetry", "--open_telemetry"] {
            assert_eq!(flag(&read(&[alias, "localhost:1"]), "runtime.listen.grpc").as_deref(), Some("localhost:1"));
        }
        let unknown = Args::read(["spiced", "tls", "bless"].map(OsString::from));
        assert!(matches!(unknown, Err(Failure::Usage(_))));
        assert_eq!(read(&["./tls"]).pod.path(), std::path::Path::new("./tls"));
        assert!(matches!(read(&["schema"]).command, Some(Command::Schema)));
        // After an option of the server, the name of a command is a PATH: nothing is ignored silently.
        let both = read(&["--http", "localhost:1", "schema"]);
        assert!(both.command.is_none() && both.pod.path() == std::path::Path::new("schema"));
    }
}
