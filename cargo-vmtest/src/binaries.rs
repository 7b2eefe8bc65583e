//! Test binaries, as Cargo builds them.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use serde_json::Value;

use super::cargo::cargo;

/// A binary with tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestBinary {
    /// The name of its package.
    pub(crate) package: String,
    /// The name of its target.
    pub(crate) target: String,
    /// Its name for nextest.
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    /// The directory of its package.
    pub(crate) dir: PathBuf,
}

impl TestBinary {
    /// Its program, in the place and with the variables with which Cargo starts it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.dir).env("CARGO_MANIFEST_DIR", &self.dir).env("CARGO_PKG_NAME", &self.package);
        command
    }
}

/// Builds the test binaries that these arguments of `cargo test` ask for.
pub(crate) fn build(args: &[String]) -> Result<Vec<TestBinary>, String> {
    let mut build = cargo();
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
    let package = package_of(message["package_id"].as_str()?)?;
    let target = message["target"]["name"].as_str()?.to_owned();
    let id = match message["target"]["kind"][0].as_str()? {
        "test" => format!("{package}::{target}"),
        other @ ("bin" | "example" | "bench") => format!("{package}::{other}/{target}"),
        // It runs only where the compiler's own libraries are found.
        "proc-macro" => return None,
        // All kinds of libraries.
        _ => package.clone(),
    };
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    Some(TestBinary { package, target, id, path: message["executable"].as_str()?.into(), dir })
}

/// The name in a package's id: `path+file:///w/name#0.1.0`, or `path+file:///w/dir#name@0.1.0`.
fn package_of(id: &str) -> Option<String> {
    let Some((source, fragment)) = id.rsplit_once('#') else {
        // As Cargo wrote it before 1.77: `name 0.1.0 (path+file:///w/name)`.
        return id.split(' ').next().map(str::to_owned);
    };
    let name = match fragment.split_once('@') {
        Some((name, _)) => name,
        None if fragment.starts_with(|c: char| c.is_ascii_digit()) => {
            source.trim_end_matches('/').rsplit('/').next()?
        }
        None => fragment,
    };
    Some(name.to_owned())
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
    fn packages_have_names_in_every_form_of_their_ids() {
        for (id, name) in [
            ("path+file:///w/web#0.1.0", "web"),
            ("path+file:///w/tests#web-tests@0.1.0", "web-tests"),
            ("git+https://host/web?branch=main#web@0.1.0", "web"),
            ("web 0.1.0 (path+file:///w/web)", "web"),
        ] {
            assert_eq!(package_of(id).as_deref(), Some(name), "{id}");
        }
    }

    #[test]
    fn of_what_cargo_says_only_test_binaries_count() {
        let message = |test: bool, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/p#0.1.0","manifest_path":"/w/p/Cargo.toml","target":{{"name":"t","kind":["{kind}"]}},"profile":{{"test":{test}}},"executable":"/w/t-1"}}"#
            )
        };
        let id = |kind: &str| binary(&message(true, kind)).map(|binary| binary.id);
        assert_eq!(id("test").as_deref(), Some("p::t"));
        assert_eq!(id("example").as_deref(), Some("p::example/t"));
        assert_eq!(id("lib").as_deref(), Some("p"));
        assert_eq!([id("proc-macro"), binary(&message(false, "test")).map(|binary| binary.id)], [None, None]);
        assert_eq!(binary("{\"reason\":\"build-finished\",\"success\":true}"), None);
    }
}
