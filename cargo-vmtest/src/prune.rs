//! `cargo vmtest prune`.

use std::process::ExitCode;

use serde::Serialize;
use vmtest::harness::{Abandoned, AbandonedRun, abandoned, prune};

use super::output;

/// The form of `--json`, specified in `docs/journal.md`.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    dry_run: bool,
    #[serde(flatten)]
    abandoned: &'a Abandoned,
}

/// Removes what killed runs left, or says what there is; fails when something stays that should not.
pub(crate) fn run(dry_run: bool, json: bool) -> Result<ExitCode, String> {
    let found = if dry_run { abandoned() } else { prune() }.map_err(|e| e.to_string())?;
    if json {
        let report = Report { version: VERSION, dry_run, abandoned: &found };
        output::line(serde_json::to_string_pretty(&report).expect("a report is plain data"));
    } else {
        found.runs.iter().filter(|run| run.left.is_empty()).for_each(|run| output::line(line(run, dry_run)));
        if found == Abandoned::default() {
            output::line("nothing is left of killed runs");
        }
    }
    let left = found.left();
    if left.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let what = if dry_run { "cannot be removed" } else { "could not be removed" };
    Err(format!("what killed runs left {what}:\n  - {}", left.join("\n  - ")))
}

fn line(run: &AbandonedRun, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let test = run.test.as_ref().map(|test| format!(" of `{test}`")).unwrap_or_default();
    let with = if run.outstanding.is_empty() { String::new() } else { format!(": {}", run.outstanding.join(", ")) };
    format!("{verb} {}{test}{with}", run.path.display())
}
