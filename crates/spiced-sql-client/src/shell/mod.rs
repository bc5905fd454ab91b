//! The state of a prompt or a script: the connection, the settings and the screen.

pub(crate) mod catalog;
mod describe;
pub(crate) mod execute;
pub(crate) mod interrupt;
pub(crate) mod meta;

use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::FlightInfo;
use tokio::sync::watch;

use crate::connect::session::Session;
use crate::error::stop::Stop;
use crate::print::format::Format;
use crate::print::output::Screen;
use crate::print::{Layout, Shown, show};
use crate::shell::catalog::Catalog;
use crate::shell::interrupt::Interrupt;

/// The state of a prompt or a script.
pub(crate) struct Shell {
    pub(crate) session: Session,
    pub(crate) screen: Screen,
    pub(crate) settings: Settings,
    pub(crate) interrupt: Interrupt,
    catalog: watch::Sender<Arc<Catalog>>,
    /// How many files include the one that runs.
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
}
