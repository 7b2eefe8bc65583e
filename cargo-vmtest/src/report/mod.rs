//! `cargo vmtest report`: what is kept of tests, as pages to read and as files for other programs.

mod complete;
mod history;
mod page;
mod summary;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;
use vmtest::evidence::{KEEP_NOTHING, Kept};

use super::{
    cargo::cargo,
    output::{line, print},
};
pub(crate) use complete::Expected;
use history::History;

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A page for each attempt, `report.html` in its directory, and `index.html` over all.
    Html,
    /// JUnit's XML on stdout: the newest attempt of each test.
    Junit,
    /// JSON on stdout: every attempt.
    Json,
    /// Markdown on stdout, for the summary of a CI run: the newest attempt of each test.
    Markdown,
}

/// Reports on the attempts in this directory, or on one. Fails if these are not the results that were expected.
pub(crate) fn run(dir: Option<PathBuf>, format: Format, expected: Option<&Expected>) -> Result<ExitCode, String> {
    let dir = dir.map_or_else(default_dir, Ok)?;
    let all = Kept::all(&dir);
    if all.is_empty() {
        let why = "run some tests, or give the directory of their artifacts";
        return Err(format!("nothing is kept in {}: {why}", dir.display()));
    }
    match format {
        Format::Html => pages(&dir, &all)?,
        Format::Junit => print(summary::junit(&summary::newest(&all))?),
        Format::Json => line(summary::json(&all)),
        Format::Markdown => print(summary::markdown(&summary::newest(&all))),
    }
    // What there is has been reported by then.
    expected.map_or(Ok(()), |expected| expected.check(&all))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows how long the phases of all runs take, and which tests fail now and then.
pub(crate) fn history(dir: Option<PathBuf>, format: Option<Format>) -> Result<ExitCode, String> {
    let dir = dir.map_or_else(default_dir, Ok)?;
    if !dir.is_dir() {
        return Err(format!(
            "there is no history in {}: run some tests, or give the directory of their artifacts",
            dir.display()
        ));
    }
    let history = History::open(&dir)?;
    match format {
        None => print(history.text()?),
        Some(Format::Json) => print(format_args!("{}\n", history.json()?)),
        Some(_) => return Err("the history is text, or JSON with `--format json`".to_owned()),
    }
    Ok(ExitCode::SUCCESS)
}

fn pages(dir: &Path, all: &[Kept]) -> Result<(), String> {
    for kept in all {
        write(&kept.dir.join("report.html"), &page::of_attempt(kept)?)?;
    }
    let made = match all {
        [one] if one.dir == dir => dir.join("report.html"),
        _ => {
            let index = dir.join("index.html");
            write(&index, &page::index(dir, all)?)?;
            index
        }
    };
    line(std::path::absolute(&made).unwrap_or(made).display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// Where tests keep their artifacts: as the setting says, else in the target directory of the current workspace.
fn default_dir() -> Result<PathBuf, String> {
    if let Some(set) = env::var_os("VMTEST_ARTIFACTS") {
        if set == KEEP_NOTHING {
            return Err(format!("VMTEST_ARTIFACTS says `{KEEP_NOTHING}`: give the directory of the artifacts"));
        }
        return Ok(set.into());
    }
    let metadata = cargo()
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .map_err(|e| format!("cannot ask cargo for the target directory: {e}"))?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout)
        .map_err(|_| "there is no workspace here: give the directory of the artifacts".to_owned())?;
    let target = metadata["target_directory"].as_str().unwrap_or("target");
    Ok(Path::new(target).join("vmtest"))
}
