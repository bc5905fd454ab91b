//! Checks the pages under `docs/`: every page is in the table of contents, and every link resolves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::tools::{Outcome, root};

pub fn run() -> Outcome {
    let docs = root().join("docs");
    let contents = docs.join("SUMMARY.md");
    let top = ["README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
    let mut pages: Vec<PathBuf> = top.map(|page| root().join(page)).into();
    let mut listed = BTreeSet::new();
    let mut wrong = Vec::new();
    collect(&docs, &mut pages)?;
    for page in &pages {
        let text = std::fs::read_to_string(page).map_err(|e| format!("{}: {e}", page.display()))?;
        let folder = page.parent().unwrap_or(&docs);
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { folder.join(file) };
            let shown = page.strip_prefix(root()).unwrap_or(page).display();
            let Ok(target) = target.canonicalize() else {
                wrong.push(format!("{shown}: nothing is at {link}"));
                continue;
            };
            if !anchor.is_empty() && target.extension().is_some_and(|e| e == "md") && !has_anchor(&target, anchor) {
                wrong.push(format!("{shown}: no heading makes the anchor of {link}"));
            }
            if *page == contents {
                listed.insert(target);
            }
        }
    }
    for page in pages.iter().filter(|page| page.starts_with(&docs) && **page != contents) {
        if !page.canonicalize().is_ok_and(|page| listed.contains(&page)) {
            wrong.push(format!("{} is not in docs/SUMMARY.md", page.strip_prefix(root()).unwrap_or(page).display()));
        }
    }
    if wrong.is_empty() {
        eprintln!("book: {} pages, every link leads somewhere", pages.len());
        return Ok(());
    }
    Err(format!("the book is not whole:\n  {}", wrong.join("\n  ")))
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) -> Outcome {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            collect(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

/// Returns the targets of `[text](target)` outside of code, except URLs.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece is between backticks.
        for prose in line.split('`').step_by(2) {
            let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            found.extend(targets.filter(|target| !target.contains("://") && !target.is_empty()));
        }
        // A link whose text is code: [`name`](target).
        let coded = line.split("`](").skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(coded.filter(|target| !target.contains("://")));
    }
    found
}

fn has_anchor(page: &Path, anchor: &str) -> bool {
    let text = std::fs::read_to_string(page).unwrap_or_default();
    let slug = |heading: &str| -> String {
        let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor)
}
