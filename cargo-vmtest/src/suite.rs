//! `cargo vmtest test`.

use std::process::{Command, ExitCode};

/// Runs the workspace's tests and passes on the runner's exit code.
pub(crate) fn run(nextest: bool, args: &[String]) -> Result<ExitCode, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    let status = Command::new(cargo).args(runner).arg("--workspace").args(args).status();
    let status = status.map_err(|e| format!("cannot run cargo: {e}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
