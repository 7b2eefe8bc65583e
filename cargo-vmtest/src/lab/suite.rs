//! The conformance suite of this repository, built for the lab.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Without the backends that run anywhere, and one case at a time: each has all of the lab.
const ARGS: &[&str] = &["--skip", "fake::", "--test-threads=1"];

/// A test binary.
pub(super) struct Suite {
    pub(super) binary: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) package: PathBuf,
}

/// Builds the suite with Cargo, in the workspace of the current directory.
///
/// # Errors
/// That it cannot be built.
pub(super) fn build() -> Result<Suite, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "-p", "vmtest-tests", "--test", "conformance", "--no-run", "--message-format=json"]);
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err("the conformance suite could not be built: run this in a clone of the repository of vmtest".into());
    }
    let messages = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let found = messages.filter(|message: &Value| message["target"]["name"] == "conformance").find_map(|message| {
        let binary = message["executable"].as_str()?.into();
        let manifest: PathBuf = message["manifest_path"].as_str()?.into();
        Some((binary, manifest.parent()?.to_owned()))
    });
    let (binary, package) = found.ok_or("cargo has not said where the conformance suite is")?;
    let args = ARGS.iter().map(|&arg| arg.to_owned()).collect();
    Ok(Suite { binary, args, package })
}
