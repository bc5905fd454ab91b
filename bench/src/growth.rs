//! How cost grows: with connections, streams, the size of a result, and certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::args::{Args, Scale};
use crate::certificate::{Certificate, NAME};
use crate::figures::{FIGURES, Figure, ROW};
use crate::load::{Bare, Target, get};
use crate::meter::{Meter, Sample};
use crate::process::Process;
use crate::servers::{Field, Spiced, WIDE};
use crate::statistics::Median;
use crate::{Outcome, say};

/// A measurement along a quantity that grows tenfold or fourfold from point to point.
pub(crate) struct Curve {
    /// The name of its picture.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The quantity that grows.
    pub(crate) along: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// The points of one server.
pub(crate) struct Line {
    pub(crate) who: &'static str,
    pub(crate) points: Vec<(u64, Median)>,
}

impl Curve {
    fn of(name: &'static str, title: &'static str, along: &'static str, unit: &'static str) -> Self {
        Self { name, title, along, unit, lines: Vec::new() }
    }

    /// Adds a point to a server's line: the median of several rounds.
    fn enter(&mut self, who: &'static str, at: u64, values: &[f64]) {
        let Some(median) = Median::of(values.iter().copied()) else { return };
        match self.lines.iter_mut().find(|line| line.who == who) {
            Some(line) => line.points.push((at, median)),
            None => self.lines.push(Line { who, points: vec![(at, median)] }),
        }
    }
}

const CONNECTIONS: [u64; 4] = [10, 100, 1_000, 10_000];
const STREAMS: [u64; 4] = [1, 4, 16, 64];
const CERTIFICATES: [u64; 5] = [1, 10, 100, 1_000, 10_000];

/// The limit of open files, for the server and for the load generator.
const FILES: u64 = 65_536;

/// How many connections are opened, and how many requests are sent, concurrently.
const AT_A_TIME: usize = 16;

/// Memory that a server frees within this time after a connection's last request is not counted.
const SETTLED: Duration = Duration::from_secs(3);

/// Handshakes per round.
const HANDSHAKES: usize = 400;

/// Measures all curves.
pub(crate) async fn take(args: &Args, scale: Scale) -> Outcome<Vec<Curve>> {
    // The servers inherit the limit.
    let raised = rlimit::setrlimit(rlimit::Resource::NOFILE, FILES, FILES);
    let files = raised.map(|()| FILES).or_else(|_| rlimit::increase_nofile_limit(FILES)).map_err(|e| e.to_string())?;
    let folder = tempfile::tempdir().map_err(|e| format!("no folder for the run: {e}"))?;
    let mut curves = connections(args, scale, files, folder.path()).await?;
    curves.push(streams(args, scale, folder.path()).await?);
    curves.push(sizes(args, scale, folder.path()).await?);
    curves.extend(certificates(args, scale, folder.path()).await?);
    Ok(curves)
}

/// Creates a directory for a part of the run.
fn part(folder: &Path, name: &str) -> Outcome<PathBuf> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).map(|()| folder.clone()).map_err(|e| format!("{}: {e}", folder.display()))
}

fn figure(name: &str) -> Outcome<&'static Figure> {
    FIGURES.iter().find(|figure| figure.name == name).ok_or_else(|| format!("there is no {name}"))
}

/// Open connections to a server.
struct Held<'s> {
    process: &'s Process,
    open: Vec<Bare>,
}

impl<'s> Held<'s> {
    /// Opens `count` connections and sends one request on each.
    async fn open(target: Target<'s>, count: u64) -> Outcome<Self> {
        let config = target.tls.map(|certificate| certificate.client("http/1.1", false)).transpose()?;
        let (mut open, mut opening) = (Vec::new(), JoinSet::new());
        for begun in 0..count {
            if begun >= AT_A_TIME as u64 {
                open.push(joined(opening.join_next().await)?);
            }
            let (address, config) = (target.address, config.clone());
            opening.spawn(async move {
                let (mut bare, _) = Bare::open(address, config.as_ref(), NAME).await?;
                bare.ask().await.map(|()| bare)
            });
        }
        while !opening.is_empty() {
            open.push(joined(opening.join_next().await)?);
        }
        Ok(Self { process: target.process, open })
    }

    /// Sends requests on one connection after the other, for `slice`.
    async fn sweep(&mut self, slice: Duration) -> Outcome<Sample> {
        let meter = Meter::start(self.process)?;
        let end = Instant::now() + slice;
        let mut asking = JoinSet::new();
        let share = self.open.len().div_ceil(AT_A_TIME).max(1);
        while !self.open.is_empty() {
            let mut part = self.open.split_off(self.open.len().saturating_sub(share));
            asking.spawn(async move {
                let mut asked = 0;
                while Instant::now() < end {
                    let next = asked % part.len();
                    part[next].ask().await?;
                    asked += 1;
                }
                Ok((part, asked))
            });
        }
        let mut requests = 0;
        while !asking.is_empty() {
            let (part, asked): (Vec<Bare>, usize) = joined(asking.join_next().await)?;
            self.open.extend(part);
            requests += asked;
        }
        meter.stop(requests as f64).await
    }
}

fn joined<T>(task: Option<Result<Outcome<T>, tokio::task::JoinError>>) -> Outcome<T> {
    task.ok_or("no task is left")?.map_err(|e| e.to_string())?
}

/// Measures the memory of an idle connection after one request, and the CPU for a request on one of many connections.
async fn connections(args: &Args, scale: Scale, files: u64, folder: &Path) -> Outcome<Vec<Curve>> {
    let figure = figure("health-h1")?;
    let along = "open TLS connections";
    let mut memory = Curve::of("memory", "Memory for each idle connection", along, "KiB");
    let mut cpu = Curve::of("connections", "CPU for `/health` over HTTP/1.1, on one connection", along, "µs");
    // spiced reserves a third of its file descriptors for its other endpoints.
    let most = (files.saturating_sub(256) * 2 / 3 / 100 * 100).max(100);
    let mut counts: Vec<u64> = CONNECTIONS.iter().map(|count| (*count).min(most)).collect();
    counts.dedup();
    for count in counts {
        say(&format!("{count} connections"));
        // Each count has its own servers: memory that an earlier count has left allocated would not be counted.
        let field = Field::start(args, scale, &[figure], &part(folder, &format!("connections-{count}"))?).await?;
        for (who, target) in field.servers(figure) {
            let before = target.process.resident()?;
            let mut held = Held::open(target, count).await?;
            tokio::time::sleep(SETTLED).await;
            let more = target.process.resident()?.saturating_sub(before);
            // With few connections, the memory that all connections share dominates.
            if count > CONNECTIONS[0] {
                memory.enter(who, count, &[more as f64 / 1024.0 / count as f64]);
            }
            let mut costs = Vec::new();
            for _ in 0..scale.rounds {
                costs.push(held.sweep(scale.slice).await?.cost() * 1e6);
            }
            cpu.enter(who, count, &costs);
        }
    }
    Ok(vec![memory, cpu])
}

/// Measures the CPU for a gigabyte by DoGet over TLS, with several streams on one connection.
async fn streams(args: &Args, scale: Scale, folder: &Path) -> Outcome<Curve> {
    let figure = figure("doget-64k")?;
    // 100 MB for each of up to 64 streams is enough.
    let scale = Scale { rows: scale.rows.min(100_000_000 / ROW), ..scale };
    let field = Field::start(args, scale, &[figure], &part(folder, "streams")?).await?;
    let servers = field.servers(figure);
    let title = "CPU for a GB by DoGet over TLS, each stream the whole table";
    let mut curve = Curve::of("streams", title, "streams of one connection at once", "s");
    for count in STREAMS {
        say(&format!("{count} streams"));
        let mut costs = vec![Vec::new(); servers.len()];
        for _ in 0..scale.rounds {
            for ((_, target), costs) in servers.iter().zip(&mut costs) {
                costs.push(get(*target, count, scale.rows * ROW).await?.cost());
            }
        }
        for ((who, _), costs) in servers.iter().zip(&costs) {
            curve.enter(who, count, costs);
        }
    }
    Ok(curve)
}

/// Measures the CPU for a gigabyte by DoGet, for results from a megabyte to ten times the table.
async fn sizes(args: &Args, scale: Scale, folder: &Path) -> Outcome<Curve> {
    let folder = part(folder, "sizes")?;
    let certificate = Certificate::make(&folder)?;
    let mut servers = Vec::new();
    for who in ["TLS", "plain"] {
        let server = Spiced::start(who, &args.spiced, (who == "TLS").then_some(&certificate), &folder)?;
        server.load(&certificate, scale.rows, false).await?;
        servers.push(server);
    }
    let mut curve = Curve::of("size", "CPU for a GB by DoGet", "bytes of the answer", "s");
    let (table, mut rows) = (scale.rows, 1_000_000 / ROW);
    while rows <= table * 10 {
        say(&format!("an answer of {} MB", rows * ROW / 1_000_000));
        let (command, answered) = if rows <= table {
            (format!("{WIDE} LIMIT {rows}"), rows)
        } else {
            let times = rows / table;
            (vec![WIDE; usize::try_from(times).unwrap_or(1)].join(" UNION ALL "), times * table)
        };
        // Small results are measured together, because CPU time has a resolution of a hundredth of a second.
        let streams = (table / 2 / rows).clamp(1, 64);
        for server in &servers {
            let tls = server.tls.then_some(&certificate);
            let target = Target { process: &server.process, address: server.flight, tls, command: &command };
            let mut costs = Vec::new();
            for _ in 0..scale.rounds {
                costs.push(get(target, streams, answered * ROW).await?.cost());
            }
            curve.enter(server.who, answered * ROW, &costs);
        }
        rows *= 10;
    }
    Ok(curve)
}

/// Measures the CPU for a handshake, and the time to start, with many certificates.
async fn certificates(args: &Args, scale: Scale, folder: &Path) -> Outcome<[Curve; 2]> {
    let along = "certificates, each with its own name";
    let title = "CPU for a full handshake and `/health`, each for another name";
    let mut handshake = Curve::of("certificates", title, along, "µs");
    let mut start = Curve::of("start", "Time from process start to ready", along, "ms");
    for count in CERTIFICATES {
        say(&format!("{count} certificates"));
        let folder = part(folder, &format!("certificates-{count}"))?;
        let certificate = Certificate::make(&folder)?;
        let mut names: Vec<String> = (1..count).map(|n| format!("host-{n}.bench")).collect();
        let more = certificate.more(&names, &folder)?;
        names.push(NAME.to_owned());
        let config = certificate.client("http/1.1", false)?;
        let (mut costs, mut times) = (Vec::new(), Vec::new());
        for _ in 0..scale.rounds {
            let began = Instant::now();
            let server = Spiced::start_with("spiced", &args.spiced, Some(&certificate), &more, &folder)?;
            server.ready(&certificate).await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            let meter = Meter::start(&server.process)?;
            for turn in 0..HANDSHAKES {
                let name = &names[turn * 7919 % names.len()];
                let (mut bare, _) = Bare::open(server.http, Some(&config), name).await?;
                bare.ask().await?;
                bare.close().await?;
            }
            costs.push(meter.stop(HANDSHAKES as f64).await?.cost() * 1e6);
        }
        handshake.enter("spiced", count, &costs);
        start.enter("spiced", count, &times);
    }
    Ok([handshake, start])
}
