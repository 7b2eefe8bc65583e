//! `cargo vmtest repro`.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use serde_json::Value;
use vmtest::evidence::{REPEATS, Started};

use super::binaries::{TestBinary, build, pass_on};

/// Settings that say where things are on this host, or what is done beside the test: those of now hold.
const OF_THIS_HOST: [&str; 5] = ["VMTEST_ARTIFACTS", "VMTEST_CACHE", "VMTEST_CACHE_LIMIT", "VMTEST_HOLD", "VMTEST_RUN"];
/// Settings that name a program, which may be elsewhere here.
const PROGRAMS: [&str; 3] = ["VMTEST_CLOUD_HYPERVISOR", "VMTEST_FIRECRACKER", "VMTEST_QEMU"];

/// Runs the test of the attempt in this directory again, as it was run. Builds it, with these arguments for Cargo too, unless
/// its binary is given.
pub(crate) fn run(dir: &Path, hold: bool, binary: Option<PathBuf>, args: &[String]) -> Result<ExitCode, String> {
    let started = Started::read(dir)?;
    let dir = std::path::absolute(dir).map_err(|e| format!("there is no current directory: {e}"))?;
    let binary = match binary {
        Some(path) => {
            let path = std::path::absolute(&path).unwrap_or(path);
            let dir = env::current_dir().map_err(|e| format!("there is no current directory: {e}"))?;
            TestBinary {
                package: started.package.clone().unwrap_or_default(),
                target: started.binary.clone(),
                id: started.binary.clone(),
                path,
                dir,
            }
        }
        None => built(&started, args)?,
    };
    check_that_it_is_there(&started, &binary)?;
    let mut command = binary.command();
    command.args([&started.runner_name, "--exact", "--include-ignored", "--nocapture"]);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_then)) {
        command.env_remove(name);
    }
    command.envs(settings(&started, backend(&dir), |program| Path::new(program).exists()));
    command.env(REPEATS, &dir);
    if started.package.is_none() {
        command.env_remove("CARGO_PKG_NAME");
    }
    if hold {
        command.env("VMTEST_HOLD", "failed");
    }
    pass_on(&mut command)
}

/// Builds the binary of the test.
fn built(started: &Started, args: &[String]) -> Result<TestBinary, String> {
    let package = started.package.iter().flat_map(|name| ["--package".to_owned(), name.clone()]);
    let profile = match started.profile.as_deref() {
        None | Some("debug") => vec![],
        Some(name) => vec!["--profile".to_owned(), name.to_owned()],
    };
    let all: Vec<_> = package.chain(profile).chain(started.target.clone()).chain(args.iter().cloned()).collect();
    let binaries = build(&all)?;
    let found: Vec<_> = binaries.iter().filter(|binary| file_name(&binary.path) == started.binary).collect();
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        [] => Err(format!(
            "there is no test binary `{}` any more among what `cargo test {}` builds: go to the workspace of the test, or give \
             its binary with --binary",
            started.binary,
            all.join(" ")
        )),
        _ => Err(format!("several packages have a test binary `{}`: say which with `-- --package ..`", started.binary)),
    }
}

/// The name of a binary without the hash that Cargo adds.
fn file_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|c| c.is_ascii_hexdigit());
    stem.rsplit_once('-').filter(|(_, hash)| is_hash(hash)).map_or(&*stem, |(name, _)| name).to_owned()
}

/// A runner that is asked for a test that is not there runs none, and calls that a success.
fn check_that_it_is_there(started: &Started, binary: &TestBinary) -> Result<(), String> {
    let mut list = Command::new(&binary.path);
    let list = list.args(["--list", "--format", "terse"]).current_dir(&binary.dir).stdin(Stdio::null()).output();
    let list = list.map_err(|e| format!("cannot run {}: {e}", binary.path.display()))?;
    let listed = String::from_utf8_lossy(&list.stdout);
    let tests: Vec<_> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    if tests.contains(&&*started.runner_name) {
        return Ok(());
    }
    let last = started.runner_name.rsplit("::").next().unwrap_or_default();
    let like: String = tests.iter().filter(|test| test.contains(last)).map(|test| format!("\n  {test}")).collect();
    let like = if like.is_empty() { String::new() } else { format!("; there are:{like}") };
    Err(format!("`{}` has no test `{}` any more{like}", binary.path.display(), started.runner_name))
}

/// The backend that ran it, if it came as far as that.
fn backend(dir: &Path) -> Option<String> {
    let plan: Value = serde_json::from_slice(&std::fs::read(dir.join("plan.json")).ok()?).ok()?;
    plan["backend"].as_str().map(str::to_owned)
}

/// Whether that setting is as it was then, and not as it is now.
fn is_of_then(name: &str) -> bool {
    name.starts_with("VMTEST_") && !OF_THIS_HOST.contains(&name) && !PROGRAMS.contains(&name)
}

/// The settings of then.
fn settings(started: &Started, backend: Option<String>, is_there: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let of_then = started.settings.iter().filter(|(name, value)| match name.as_str() {
        name if name.starts_with("VMTEST_INTERNAL_") => false,
        name if PROGRAMS.contains(&name) => is_there(value),
        name => is_of_then(name),
    });
    let mut settings: BTreeMap<_, _> = of_then.map(|(name, value)| (name.clone(), value.clone())).collect();
    settings.extend(backend.map(|backend| ("VMTEST_BACKEND".to_owned(), backend)));
    // One that is skipped reproduces nothing.
    settings.remove("VMTEST_ON_MISSING");
    settings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_those_of_then_and_places_those_of_now() {
        let of_then = json!({
            "VMTEST_BACKEND": "auto", "VMTEST_RUN": "/r", "VMTEST_CACHE": "/c", "VMTEST_TIMEOUT_SCALE": "2", "VMTEST_HOLD": "always",
            "VMTEST_QEMU": "/opt/qemu", "VMTEST_FIRECRACKER": "/gone", "VMTEST_INTERNAL_CRASH_AT": "x", "VMTEST_ON_MISSING": "skip",
        });
        let started = json!({
            "format": 1, "vmtest": "1", "test": "t", "runner_name": "t", "binary": "b", "package": null, "target": [], "profile": null,
            "pid": 1, "unix_time": 1.0, "settings": of_then, "runner_attempt": null, "cache": "/c",
            "host": {"kernel": "6", "arch": "x", "cpus": 1, "memory": 1},
        });
        let started = serde_json::from_value(started).unwrap();
        let settings = settings(&started, Some("qemu".to_owned()), |path| path == "/opt/qemu");
        let settings: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(settings, ["VMTEST_BACKEND=qemu", "VMTEST_QEMU=/opt/qemu", "VMTEST_TIMEOUT_SCALE=2"]);
    }

    #[test]
    fn hashes_are_no_part_of_names() {
        assert_eq!(file_name(Path::new("/t/debug/deps/web-0123456789abcdef")), "web");
        assert_eq!(file_name(Path::new("/t/debug/deps/cargo-vmtest")), "cargo-vmtest");
    }
}
