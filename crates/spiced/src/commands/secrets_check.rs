//! `spiced secrets check`: each reference of the pod, the store that resolves it, and what is missing; never a value.
//!
//! The stores are queried as startup would query them. References of overridden settings are resolved too and marked as
//! unused; if they fail, startup is not affected.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write;

use serde_json::{Value, json};
use spiced_secrets::{FailureKind, Resolution, ResolveError, ResolveErrors, Unresolved};
use tls_core::{Origin, Secret};

use crate::args::{PodArgs, SecretsCheckArgs};
use crate::commands::{print, runtime};
use crate::config;
use crate::failure::Failure;

/// Exit code: a reference did not resolve.
const CONFIGURATION: u8 = 78;

/// Resolves the references and prints the report.
pub(crate) fn run(args: &SecretsCheckArgs) -> Result<(), Failure> {
    let runtime = runtime()?;
    let checked = runtime.block_on(check(&args.pod));
    runtime.shutdown_background();
    let (report, config) = match checked {
        Ok(checked) => checked,
        Err(failure) => (Report { rows: Vec::new(), errors: Vec::new() }, Err(failure)),
    };
    if args.json {
        let mut document = report.json();
        if let (Err(failure), true, Some(errors)) = (&config, report.is_good(), document["errors"].as_array_mut()) {
            let problem = |(problem, fix)| json!({ "place": null, "subject": null, "problem": problem, "fix": fix });
            errors.extend(failure.problems().into_iter().map(problem));
        }
        let text = format!("{document:#}\n");
        if !report.is_good() {
            return Err(Failure::Output { text, code: CONFIGURATION });
        }
        print(&text)?;
        return config;
    }
    if !report.is_good() {
        return Err(Failure::Output { text: report.text(), code: CONFIGURATION });
    }
    // All secrets resolve, but the pod may still be invalid.
    config?;
    print(&report.text())
}

/// Resolves every reference, and checks whether the pod is valid with the results.
async fn check(pod: &PodArgs) -> Result<(Report, Result<(), Failure>), Failure> {
    let layers = config::read(pod)?;
    let resolver = config::open(&layers).await?;
    let written = layers.references();
    let asked = RefCell::new(HashSet::new());
    let whole = RefCell::new(false);
    // A placeholder replaces a missing value, so that all other references are still resolved.
    let settled = layers.settle(async |values| {
        *whole.borrow_mut() |= !values.iter().any(|value| is_switch(&value.origin));
        let mut given = Vec::with_capacity(values.len());
        for value in values {
            asked.borrow_mut().insert(value.origin.clone());
            let one = resolver.resolve_all(std::slice::from_ref(value)).await;
            given.push(one.map_or_else(|_| Secret::from("true"), |mut one| one.swap_remove(0)));
        }
        Ok::<_, ResolveErrors>(given)
    });
    let config = match settled.await {
        Ok(_) => Ok(()),
        Err(why) => Err(config::failed(why)),
    };
    let asked = whole.into_inner().then(|| asked.into_inner());
    let of_stores = resolver.check(&[]).await.len();
    let rows = resolver.check(&written).await.into_iter().enumerate().map(|(at, answer)| Row {
        used: at < of_stores || asked.as_ref().is_none_or(|asked| asked.contains(&answer.origin)),
        answer,
    });
    Ok((Report { rows: rows.collect(), errors: resolver.declaration_errors().to_vec() }, config))
}

/// Returns whether a setting is resolved first because it determines which other settings apply.
fn is_switch(origin: &Origin) -> bool {
    matches!(origin, Origin::File { key, .. } if key == "runtime.tls.enabled" || key == "runtime.tls.self_signed")
}

/// The printed report.
struct Report {
    rows: Vec<Row>,
    /// Errors in the declarations of the stores.
    errors: Vec<ResolveError>,
}

struct Row {
    answer: Resolution,
    /// False if the setting is overridden, so that nothing depends on it.
    used: bool,
}

impl Row {
    fn outcome(&self) -> &'static str {
        match &self.answer.outcome {
            Ok(_) => "found",
            Err(Unresolved { kind: FailureKind::Missing, .. }) => "missing",
            Err(Unresolved { kind: FailureKind::Unreachable, .. }) => "unreachable",
        }
    }

    fn json(&self) -> Value {
        let Resolution { origin, reference, asked, outcome } = &self.answer;
        let line = match origin {
            Origin::File { line, .. } => Some(line),
            _ => None,
        };
        let why = outcome.as_ref().err();
        json!({
            "place": origin.to_string(),
            "line": line,
            "reference": reference.to_string(),
            "store": reference.store(),
            "asked": asked,
            "answered_by": outcome.as_ref().ok(),
            "outcome": self.outcome(),
            "used": self.used,
            "problem": why.map(|why| &why.problem),
            "fix": why.map(|why| &why.hint),
        })
    }
}

impl Report {
    fn is_good(&self) -> bool {
        self.errors.is_empty() && self.rows.iter().all(|row| !row.used || row.answer.outcome.is_ok())
    }

    fn count(&self, outcome: &str) -> usize {
        self.rows.iter().filter(|row| row.outcome() == outcome).count()
    }

    fn json(&self) -> Value {
        let errors = self.errors.iter().map(|error| {
            let ResolveError { origin, subject, problem, hint } = error;
            json!({ "place": origin.to_string(), "subject": subject, "problem": problem, "fix": hint })
        });
        json!({
            "references": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "errors": errors.collect::<Vec<_>>(),
            "found": self.count("found"),
            "missing": self.count("missing"),
            "unreachable": self.count("unreachable"),
        })
    }

    fn text(&self) -> String {
        let places: Vec<String> = self.rows.iter().map(|row| row.answer.origin.to_string()).collect();
        let references: Vec<String> = self.rows.iter().map(|row| row.answer.reference.to_string()).collect();
        let width = |texts: &[String]| texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        let (places_width, references_width) = (width(&places), width(&references));
        let mut out = String::new();
        let mut line = |text: String| {
            out.push_str(text.trim_end());
            out.push('\n');
        };
        for error in &self.errors {
            line(format!("{}: {}: {}", error.origin, error.subject, error.problem));
            if !error.hint.is_empty() {
                line(format!("    fix: {}", error.hint));
            }
        }
        for ((row, place), reference) in self.rows.iter().zip(&places).zip(&references) {
            let unused = if row.used { "" } else { " (not used: another setting overrides this one)" };
            let said = match &row.answer.outcome {
                Ok(store) => format!("found in {store}"),
                Err(why) => format!("{}: {}", row.outcome(), why.problem),
            };
            line(format!("{place:places_width$}  {reference:references_width$}  {said}{unused}"));
            if let Err(why) = &row.answer.outcome
                && row.used
                && !why.hint.is_empty()
            {
                line(format!("    fix: {}", why.hint));
            }
        }
        let _ = match self.rows.len() {
            0 => writeln!(out, "the pod contains no references"),
            _ => writeln!(
                out,
                "{} found, {} missing, {} unreachable",
                self.count("found"),
                self.count("missing"),
                self.count("unreachable")
            ),
        };
        out
    }
}
