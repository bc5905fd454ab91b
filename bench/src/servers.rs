//! The servers of a run, started as their users start them, and the figures that each takes part in.

mod alone;
mod nginx;
mod pyarrow;
mod spiced;

use std::path::Path;

use crate::args::{Args, Scale};
use crate::certificate::Certificate;
use crate::figures::{Figure, ROW};
use crate::load::{Load, Target, Version};
use crate::meter::Sample;
use crate::{Outcome, say};

use alone::Alone;
pub(crate) use alone::Work;
use nginx::Nginx;
use pyarrow::Pyarrow;

pub(crate) use spiced::{Spiced, WIDE};

/// The servers that the wanted figures need.
pub(crate) struct Field {
    certificate: Certificate,
    spiced: Vec<Spiced>,
    nginx: Option<Nginx>,
    pyarrow: Option<Pyarrow>,
    alone: Option<Alone>,
}

/// A server in one figure, over TLS or in plain text.
pub(crate) struct Contestant<'f> {
    /// Its name in the table; the same with and without TLS.
    pub(crate) who: &'static str,
    pub(crate) tls: bool,
    by: By<'f>,
}

enum By<'f> {
    Server(Target<'f>),
    /// The work alone, without a server; TLS makes no difference.
    Alone(&'f Alone, Work, usize),
}

impl Contestant<'_> {
    /// Takes the contestant's turn in a round of `figure`.
    pub(crate) async fn turn(&self, figure: &Figure, scale: Scale) -> Outcome<Sample> {
        match self.by {
            By::Server(target) => figure.load.run(target, scale.slice, scale.rows * ROW).await,
            By::Alone(alone, work, at_a_time) => alone.run(work, at_a_time, scale.slice).await,
        }
    }
}

impl Field {
    /// Starts the servers in the given directory and loads their data.
    pub(crate) async fn start(args: &Args, scale: Scale, figures: &[&Figure], folder: &Path) -> Outcome<Self> {
        let certificate = Certificate::make(folder)?;
        let flight = figures.iter().any(|figure| figure.is_flight());
        let small = figures.iter().any(|figure| figure.asks_sql());
        let nginx = figures.iter().any(|figure| !figure.is_flight() && !figure.asks_sql());

        let rows = if figures.iter().any(|figure| figure.is_large()) { scale.rows } else { 0 };
        let mut spiced = Vec::new();
        for (who, program) in [("spiced", Some(&args.spiced)), (spiced::AGAINST, args.against.as_ref())] {
            let Some(program) = program else { continue };
            for tls in [true, false] {
                let server = Spiced::start(who, program, tls.then_some(&certificate), folder)?;
                server.load(&certificate, rows, small).await?;
                spiced.push(server);
            }
        }
        let nginx = if nginx { Some(Nginx::start(&args.nginx, &certificate, folder)?) } else { None };
        let source = spiced.iter().find(|server| !server.tls).filter(|_| flight);
        let pyarrow = match source {
            Some(source) => Some(Pyarrow::start(&args.python, source.flight, &certificate, folder)?),
            None => None,
        };
        let alone = figures.iter().any(|figure| figure.alone().is_some());
        let alone = if alone { Some(Alone::start()?) } else { None };
        say("all servers serve");
        Ok(Self { certificate, spiced, nginx, pyarrow, alone })
    }

    /// Returns the contestants in `figure`, over TLS and in plain text.
    pub(crate) fn contestants(&self, figure: &Figure) -> Vec<Contestant<'_>> {
        let mut all = Vec::new();
        for tls in [true, false] {
            let trust = tls.then_some(&self.certificate);
            let mut enter = |who, process, address, command| {
                let target = Target { process, address, tls: trust, command };
                all.push(Contestant { who, tls, by: By::Server(target) });
            };
            for spiced in self.spiced.iter().filter(|spiced| spiced.tls == tls) {
                let address = if figure.is_flight() { spiced.flight } else { spiced.http };
                let command = match figure.load {
                    Load::DoGet { batch: 8_192, .. } => spiced::LARGE,
                    Load::DoPut => spiced::PUT,
                    _ => spiced::WIDE,
                };
                enter(spiced.who, &spiced.process, address, command);
            }
            match (figure.load, &self.nginx, &self.pyarrow) {
                (Load::DoGet { batch, .. }, _, Some(pyarrow)) => {
                    enter("pyarrow", &pyarrow.process, pyarrow.address(tls), pyarrow::rows(batch));
                }
                (Load::DoPut, _, Some(pyarrow)) => {
                    enter("pyarrow", &pyarrow.process, pyarrow.address(tls), spiced::PUT);
                }
                (Load::Handshake(_) | Load::KeepAlive { .. }, Some(nginx), _) if !figure.asks_sql() => {
                    let h2 = matches!(figure.load, Load::KeepAlive { version: Version::H2, .. });
                    enter("nginx", &nginx.process, nginx.address(tls, h2), "");
                }
                _ => {}
            }
            if let (Some((work, at_a_time)), Some(alone)) = (figure.alone(), &self.alone) {
                all.push(Contestant { who: work.name(), tls, by: By::Alone(alone, work, at_a_time) });
            }
        }
        all
    }

    /// Returns the servers among the contestants, over TLS.
    pub(crate) fn servers(&self, figure: &Figure) -> Vec<(&'static str, Target<'_>)> {
        let over_tls = self.contestants(figure).into_iter().filter(|contestant| contestant.tls);
        let servers = over_tls.filter_map(|contestant| match contestant.by {
            By::Server(target) => Some((contestant.who, target)),
            By::Alone(..) => None,
        });
        servers.collect()
    }

    /// Returns the versions of the peers.
    pub(crate) fn versions(&self) -> Vec<String> {
        let nginx = self.nginx.iter().map(|nginx| nginx.version.clone());
        nginx.chain(self.pyarrow.iter().map(|pyarrow| pyarrow.version.clone())).collect()
    }
}
