//! Runs statements and commands one after the other, and prints their results.

use std::path::Path;
use std::time::Instant;

use super::{Shell, describe};
use crate::error::SqlError;
use crate::error::stop::Stop;
use crate::print::Shown;
use crate::script::Script;
use crate::script::splitter::{Kind, Piece, Splitter};
use crate::shell::meta::{self, Meta};

/// The maximum nesting depth of included files.
const MAX_INCLUDE_DEPTH: usize = 16;

/// Whether to continue after a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    More,
    Leave,
}

impl Shell {
    /// Runs a text of statements and commands; stops at the first that fails.
    pub(crate) async fn text(&mut self, text: &str) -> Result<Next, Stop> {
        let mut splitter = Splitter::default();
        let mut pieces = splitter.push(text);
        pieces.extend(splitter.finish().map_err(SqlError::new)?);
        for piece in pieces {
            if self.piece(&piece).await? == Next::Leave {
                return Ok(Next::Leave);
            }
        }
        Ok(Next::More)
    }

    /// Runs a script.
    pub(crate) async fn script(&mut self, mut script: Script) -> Result<Next, Stop> {
        loop {
            let piece = match self.interrupt.or(script.next()).await.ok_or(Stop::Interrupted)? {
                None => return Ok(Next::More),
                Some(piece) => piece?,
            };
            match self.piece(&piece).await {
                Ok(Next::More) => {}
                Err(Stop::Trouble(trouble)) => return Err(trouble.at(&script.place(piece.line)).into()),
                other => return other,
            }
        }
    }

    async fn piece(&mut self, piece: &Piece) -> Result<Next, Stop> {
        match piece.kind {
            Kind::Blank => Ok(Next::More),
            Kind::Statement => self.statement(piece.body()).await.map(|()| Next::More),
            Kind::Command => self.command(Meta::parse(piece.body())?).await,
        }
    }

    /// Runs one statement.
    async fn statement(&mut self, sql: &str) -> Result<(), Stop> {
        let started = Instant::now();
        let info = self.interrupt.or(self.session.plan(sql)).await.ok_or(Stop::Interrupted)??;
        let shown = self.show(info).await?;
        if shown == Shown::Done && self.settings.prompt {
            // The statement may have created or dropped a table.
            self.refresh();
        }
        self.tell(&shown, started.elapsed());
        Ok(())
    }

    async fn command(&mut self, command: Meta) -> Result<Next, Stop> {
        match command {
            Meta::Quit => return Ok(Next::Leave),
            Meta::Help => self.screen.answer(&meta::help())?,
            Meta::Format(None) => self.screen.answer(&format!("{:?}", self.settings.format).to_lowercase())?,
            Meta::Format(Some(format)) => self.settings.format = format,
            Meta::Expanded(set) => self.settings.expanded = set.unwrap_or(!self.settings.expanded),
            Meta::Timing(set) => self.settings.timing = set.unwrap_or(!self.settings.timing),
            Meta::MaxRows(None) => self.screen.answer(&self.settings.max_rows.to_string())?,
            Meta::MaxRows(Some(rows)) => self.settings.max_rows = rows,
            Meta::Refresh => self.refresh(),
            Meta::Include(path) => return self.include(&path).await,
            Meta::ConnectionInfo => {
                let text = describe::connection(self).await?;
                self.screen.answer(&text)?;
            }
            Meta::Tables => describe::tables(self).await?,
            Meta::Table(name) => describe::table(self, &name).await?,
            Meta::Schemas => describe::schemas(self).await?,
            Meta::Catalogs => describe::catalogs(self).await?,
        }
        Ok(Next::More)
    }

    async fn include(&mut self, path: &Path) -> Result<Next, Stop> {
        if self.depth == MAX_INCLUDE_DEPTH {
            return Err(SqlError::new(format!("files include files more than {MAX_INCLUDE_DEPTH} deep")).into());
        }
        self.depth += 1;
        let ended = Box::pin(self.script(Script::file(path))).await;
        self.depth -= 1;
        // `\\q` in a file ends only that file.
        ended.map(|_| Next::More)
    }
}
