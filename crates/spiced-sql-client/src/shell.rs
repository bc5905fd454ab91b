//! Runs statements and commands one after the other, and prints their results.

use std::fmt::Write as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::FlightInfo;
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::describe;
use crate::error::SqlError;
use crate::format::Format;
use crate::interrupt::Interrupt;
use crate::meta::{self, Meta};
use crate::output::Screen;
use crate::print::{Layout, Shown, show};
use crate::script::Script;
use crate::session::Session;
use crate::splitter::{Kind, Piece, Splitter};
use crate::stop::Stop;

/// The maximum nesting depth of included files.
const MAX_INCLUDE_DEPTH: usize = 16;

/// The state of a prompt or a script.
pub(crate) struct Shell {
    pub(crate) session: Session,
    pub(crate) screen: Screen,
    pub(crate) settings: Settings,
    pub(crate) interrupt: Interrupt,
    catalog: watch::Sender<Arc<Catalog>>,
    depth: usize,
}

/// Settings that the commands of the prompt change.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) format: Format,
    pub(crate) expanded: bool,
    pub(crate) timing: bool,
    /// The maximum number of rows; 0 means all.
    pub(crate) max_rows: usize,
    /// Whether a user types the statements.
    pub(crate) prompt: bool,
}

/// Whether to continue after a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    More,
    Leave,
}

impl Shell {
    pub(crate) fn new(session: Session, screen: Screen, settings: Settings, interrupt: Interrupt) -> Self {
        Self { session, screen, settings, interrupt, catalog: watch::Sender::default(), depth: 0 }
    }

    /// Returns a watch on the tables for completion.
    pub(crate) fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    /// Reads the tables again in the background. If that fails, the known tables stay.
    pub(crate) fn refresh(&self) {
        let (mut session, catalog) = (self.session.clone(), self.catalog.clone());
        tokio::spawn(async move {
            if let Ok(info) = session.tables(None, None, true).await
                && let Ok(batches) = session.all(&info).await
            {
                catalog.send_replace(Arc::new(Catalog::read(&batches)));
            }
        });
    }

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

    /// Writes the result of `info`.
    pub(crate) async fn show(&mut self, info: FlightInfo) -> Result<Shown, Stop> {
        let announced =
            (!info.schema.is_empty()).then(|| info.clone().try_decode_schema().ok().map(Arc::new)).flatten();
        let mut rows = self.session.rows(&info);
        let layout = self.layout();
        let shown = {
            let mut work = pin!(show(&mut rows, announced, layout, self.screen.out()));
            let shown = self.interrupt.or(&mut work).await;
            if shown.is_none() {
                // Cancels before the call is dropped, so that the server learns which query to stop.
                self.session.cancel(info.clone()).await;
            }
            shown
        };
        match shown {
            None => {
                // The output so far consists of whole lines.
                self.screen.out().flush()?;
                Err(Stop::Interrupted)
            }
            Some(Ok(Shown::Rows { count, more: true })) => {
                self.session.cancel(info).await;
                Ok(Shown::Rows { count, more: true })
            }
            Some(shown) => shown,
        }
    }

    /// Returns the current output format.
    pub(crate) fn layout(&self) -> Layout {
        let Settings { format, expanded, max_rows, prompt, .. } = self.settings;
        let limited = prompt && format == Format::Table && max_rows > 0;
        Layout { format, expanded, limit: limited.then_some(max_rows) }
    }

    /// Reports how a statement ended. In a script, a query's result needs no report, but a change has no other output.
    fn tell(&mut self, shown: &Shown, took: Duration) {
        let mut text = match shown {
            Shown::Rows { count: 1, more: false } => "1 row".to_owned(),
            Shown::Rows { count, more: false } => format!("{count} rows"),
            Shown::Rows { count, more: true } => format!("the first {count} rows; \\maxrows 0 shows all"),
            Shown::Changed(1) => "1 row changed".to_owned(),
            Shown::Changed(count) => format!("{count} rows changed"),
            Shown::Done => "done".to_owned(),
        };
        if self.settings.timing {
            let _ = write!(text, " ({:.1} ms)", took.as_secs_f64() * 1000.0);
        }
        match shown {
            Shown::Changed(_) => self.screen.say(&text),
            _ => self.screen.aside(&text),
        }
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
