//! Test binaries, as Cargo builds them.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use serde_json::Value;

/// A binary with tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestBinary {
    /// The name of its target.
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    /// The directory of its package.
    pub(crate) dir: PathBuf,
}

/// Builds the test binaries that these arguments of `cargo test` ask for.
pub(crate) fn build(args: &[String]) -> Result<Vec<TestBinary>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(args);
    let mut build = build.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot run cargo: {e}"))?;
    let lines = BufReader::new(build.stdout.take().expect("it was asked for")).lines();
    let binaries = lines.map_while(Result::ok).filter_map(|line| binary(&line)).collect();
    let status = build.wait().map_err(|e| format!("cannot wait for cargo: {e}"))?;
    if !status.success() {
        return Err(format!("the tests cannot be built: cargo ended with {status}"));
    }
    Ok(binaries)
}

/// Of a message of Cargo: a test binary.
fn binary(message: &str) -> Option<TestBinary> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["profile"]["test"] != true {
        return None;
    }
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let target = message["target"]["name"].as_str()?.to_owned();
    Some(TestBinary { target, path: message["executable"].as_str()?.into(), dir })
}

/// Runs this and passes on its exit code; that of a signal as a shell does.
pub(crate) fn pass_on(command: &mut Command) -> Result<ExitCode, String> {
    let program = Path::new(command.get_program()).display().to_string();
    let status = command.status().map_err(|e| format!("cannot run {program}: {e}"))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_cargo_says_only_test_binaries_count() {
        let message = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{{"name":"t"}},"profile":{{"test":{test}}},"executable":"/w/t-1"}}"#
            )
        };
        let wanted = TestBinary { target: "t".into(), path: "/w/t-1".into(), dir: "/w/p".into() };
        assert_eq!(binary(&message(true)), Some(wanted));
        assert_eq!(binary(&message(false)), None);
        assert_eq!(binary("{\"reason\":\"build-finished\",\"success\":true}"), None);
    }
}
