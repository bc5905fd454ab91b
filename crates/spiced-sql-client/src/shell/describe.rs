//! The output of `\d` and similar commands, from the metadata commands of Flight SQL.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::connect::LinkTls;
use crate::error::SqlError;
use crate::error::stop::Stop;
use crate::print::print;
use crate::shell::Shell;
use crate::shell::catalog::Catalog;
use crate::shell::meta::{Name, like, matches};

/// Lists all tables.
pub(crate) async fn tables(shell: &mut Shell) -> Result<(), Stop> {
    let info = shell.interrupt.or(shell.session.tables(None, None, false)).await.ok_or(Stop::Interrupted)??;
    shell.show(info).await.map(|_| ())
}

/// Lists the schemas of all catalogs.
pub(crate) async fn schemas(shell: &mut Shell) -> Result<(), Stop> {
    let info = shell.interrupt.or(shell.session.schemas()).await.ok_or(Stop::Interrupted)??;
    shell.show(info).await.map(|_| ())
}

/// Lists the catalogs.
pub(crate) async fn catalogs(shell: &mut Shell) -> Result<(), Stop> {
    let info = shell.interrupt.or(shell.session.catalogs()).await.ok_or(Stop::Interrupted)??;
    shell.show(info).await.map(|_| ())
}

/// Lists the columns of the tables that match a name.
pub(crate) async fn table(shell: &mut Shell, name: &Name) -> Result<(), Stop> {
    let asked = async {
        let session = &mut shell.session;
        // In this pattern `_` matches any character, so the results are filtered again below.
        let info = session.tables(name.schema.as_deref().map(like), Some(like(&name.table)), true).await?;
        session.all(&info).await
    };
    let batches = shell.interrupt.or(asked).await.ok_or(Stop::Interrupted)??;
    let mut found = Catalog::read(&batches).tables;
    let is = |wanted: &Option<String>, given: &str| wanted.as_ref().is_none_or(|wanted| matches(wanted, given));
    found.retain(|table| {
        matches(&name.table, &table.name) && is(&name.schema, &table.schema) && is(&name.catalog, &table.catalog)
    });
    if found.is_empty() {
        return Err(SqlError::hinted(format!("there is no table `{}`", name.table), "\\d lists the tables").into());
    }
    for table in found {
        shell.screen.aside(&format!("{} ({})", table.full_name(), table.kind));
        print(&table.describe()?, shell.layout(), shell.screen.out())?;
    }
    Ok(())
}

/// Describes the connection of the prompt.
pub(crate) async fn connection(shell: &mut Shell) -> Result<String, Stop> {
    let server = shell.interrupt.or(shell.session.server()).await.ok_or(Stop::Interrupted)??;
    let Some(link) = shell.session.link() else { return Ok("not connected".to_owned()) };
    let mut text = format!("endpoint     {}\n", link.endpoint);
    if let Some(server) = server {
        let _ = writeln!(text, "server       {server}");
    }
    match &link.tls {
        None => text.push_str("TLS          none: what is sent can be read on the way"),
        Some(LinkTls { version, cipher, group, certificate }) => {
            let _ = write!(text, "TLS          {version}, {cipher}, {group}");
            if let Some(leaf) = certificate {
                let _ = write!(text, "\ncertificate  {} for {}", leaf.subject, leaf.names.join(", "));
                let _ = write!(text, "\n             issued by {}, ends {}", leaf.issuer, day(leaf.not_after));
            }
        }
    }
    Ok(text)
}

/// Formats Unix seconds as RFC 3339.
fn day(seconds: i64) -> String {
    let time = u64::try_from(seconds).ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    humantime::format_rfc3339_seconds(time.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}
