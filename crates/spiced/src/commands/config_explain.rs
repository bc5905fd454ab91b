//! `spiced config explain`: each effective value, its origin, the values it overrides, and why.

use std::fmt::Write;

use serde_json::json;
use spiced_config::{Explained, Explanation, SettingsError};

use crate::args::ExplainArgs;
use crate::commands::{print, runtime};
use crate::config;
use crate::failure::Failure;

/// Explains as much as possible, then fails if the server would fail to start.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let outcome = runtime()?.block_on(async {
        let layers = config::read(&args.pod)?;
        let resolver = config::open(&layers).await?;
        let resolve = async |values: &[_]| resolver.resolve_all(values).await;
        let settled = layers.clone().settle(&resolve).await;
        let mut explanation = match layers.explain(&resolve).await {
            Ok(explanation) => explanation,
            // Report every error that startup would report, not only the one that prevents an explanation.
            Err(why) => return Err(settled.map_or_else(config::failed, |_| config::failed(why))),
        };
        if let Err(SettingsError::Config(error) | SettingsError::Both(error, _)) = &settled {
            let refused: Vec<_> = error.0.iter().filter_map(|problem| problem.origin.clone()).collect();
            explanation.mask(&refused);
        }
        Ok((explanation, settled.map(|_| ()).map_err(config::failed)))
    });
    let (explanation, outcome) = match outcome {
        Ok((explanation, outcome)) => (explanation, outcome),
        Err(failure) => (Explanation { settings: Vec::new(), warnings: Vec::new() }, Err(failure)),
    };
    if args.json {
        let mut document = json!(explanation);
        if let Err(failure) = &outcome {
            let problem = |(message, fix)| json!({ "message": message, "fix": fix });
            document["errors"] = failure.problems().into_iter().map(problem).collect();
        }
        print(&format!("{document:#}\n"))?;
    } else if !explanation.settings.is_empty() {
        print(&text(&explanation))?;
    }
    outcome
}

fn text(explanation: &Explanation) -> String {
    let longest = |of: fn(&Explained) -> &str, most: usize| {
        explanation.settings.iter().map(|s| of(s).chars().count()).filter(|n| *n <= most).max().unwrap_or(0)
    };
    let (keys, values) = (longest(|s| &s.key, 50), longest(|s| &s.value, 40));
    let mut out = String::new();
    for Explained { key, value, origin, why, beat } in &explanation.settings {
        let _ = writeln!(out, "{key:keys$}  {value:values$}  {origin}");
        if let Some(why) = why {
            let _ = writeln!(out, "    {why}");
        }
        for lost in beat {
            let _ = writeln!(out, "    overrides {} from {}: {}", lost.value, lost.origin, lost.why);
        }
    }
    for warning in &explanation.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}
