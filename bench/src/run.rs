//! Runs the benchmark: starts the servers, takes the rounds, writes the results.

use std::fs;

use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::args::Args;
use crate::figures::{FIGURES, Figure};
use crate::machine::Machine;
use crate::meter::Sample;
use crate::report::{self, Row};
use crate::servers::{Contestant, Field};
use crate::{Outcome, growth, plot, say};

/// Runs what the command line asks for.
pub(crate) fn run(args: &Args) -> Outcome {
    if args.growth {
        return grow(args);
    }
    let figures: Vec<&Figure> = FIGURES.iter().filter(|figure| figure.is_wanted(&args.only)).collect();
    if figures.is_empty() {
        let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
        return Err(format!("no figure is called {:?}; there are {}", args.only, names.join(", ")));
    }
    let (rows, machine, versions) = runtime()?.block_on(take(args, &figures))?;

    let json = json!({
        "machine": machine.json(), "versions": versions, "quick": args.quick,
        "figures": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    let file = args.out.join("figures.json");
    let written = fs::create_dir_all(&args.out).and_then(|()| fs::write(&file, format!("{json:#}\n")));
    written.map_err(|e| format!("{}: {e}", file.display()))?;
    report::print(&rows)?;
    say(&format!("every round is in {}", file.display()));
    if let Some(page) = &args.page {
        let text = report::page(&rows, &machine, &versions, args.scale());
        fs::write(page, text).map_err(|e| format!("{}: {e}", page.display()))?;
        say(&format!("wrote {}", page.display()));
    }
    Ok(())
}

/// Creates a single-threaded runtime: the load never uses more than one core.
fn runtime() -> Outcome<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())
}

/// Measures and draws the curves.
fn grow(args: &Args) -> Outcome {
    let (machine, scale) = (Machine::look(&args.spiced), args.scale());
    let curves = runtime()?.block_on(growth::take(args, scale))?;
    let page = args.page.clone().unwrap_or_else(|| args.out.join("growth.md"));
    let folder = page.with_extension("");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for curve in &curves {
        plot::draw(curve, &folder.join(curve.name).with_extension("svg"))?;
    }
    let beside = folder.file_name().unwrap_or_default().to_string_lossy();
    let text = plot::page(&curves, &machine, scale, &beside);
    fs::write(&page, text).map_err(|e| format!("{}: {e}", page.display()))?;
    say(&format!("wrote {} and the pictures beside it", page.display()));
    Ok(())
}

async fn take(args: &Args, figures: &[&'static Figure]) -> Outcome<(Vec<Row>, Machine, Vec<String>)> {
    let scale = args.scale();
    let mut machine = Machine::look(&args.spiced);
    let folder = tempfile::tempdir().map_err(|e| format!("no folder for the run: {e}"))?;
    let field = Field::start(args, scale, figures, folder.path()).await?;
    let contests: Vec<(&Figure, Vec<Contestant<'_>>)> =
        figures.iter().map(|figure| (*figure, field.contestants(figure))).collect();
    let mut rows: Vec<Row> = contests.iter().flat_map(|(figure, contestants)| Row::of(figure, contestants)).collect();
    // Round 0 warms up caches, pools and plans, and is not counted.
    for round in 0..=scale.rounds {
        say(&format!("round {round} of {}", scale.rounds));
        for (figure, contestants) in &contests {
            // The order alternates, so that no server always runs after the same one.
            let mut turns: Vec<&Contestant<'_>> = contestants.iter().collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for contestant in turns {
                let sample = contestant.turn(figure, scale).await;
                let sample: Sample = sample.map_err(|e| format!("{} of {}: {e}", figure.name, contestant.who))?;
                if round > 0 {
                    report::enter(&mut rows, figure, contestant, sample);
                }
            }
        }
    }
    machine.look_again();
    Ok((rows, machine, field.versions()))
}
