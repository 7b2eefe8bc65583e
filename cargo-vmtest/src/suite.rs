//! `cargo vmtest test`.

use std::{
    fs,
    path::Path,
    process::{ExitCode, Stdio},
};

use tempfile::NamedTempFile;
use vmtest::__private::{SKIPPED, Skipped};

use super::{
    binaries::pass_on,
    cargo::cargo,
    declared::{Source, Test},
    nextest_config,
};

/// What runs the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Runner {
    /// nextest where it is installed, else Cargo.
    Auto,
    /// `cargo nextest run`, and `cargo test --doc` after it when no tests were chosen.
    Nextest,
    /// `cargo test`.
    Cargo,
}

/// Arguments that Cargo and nextest understand alike, and that choose no tests within a package.
const ALIKE: &[&str] = &[
    "--workspace",
    "--no-fail-fast",
    "--release",
    "--locked",
    "--offline",
    "--frozen",
    "--all-features",
    "--no-default-features",
    "--ignore-rust-version",
];
/// Such as have a value.
const ALIKE_WITH_VALUE: &[&str] = &[
    "-p",
    "--package",
    "--exclude",
    "-F",
    "--features",
    "--target",
    "--target-dir",
    "--manifest-path",
    "--config",
    "-Z",
];
/// Those that say which packages.
const PACKAGES: &[&str] = &["-p", "--package", "--manifest-path"];

/// Runs the workspace's tests and passes on the runner's exit code. Says in the end which were skipped: what they say of it
/// themselves is among everything else, and nextest shows nothing of a test that passes.
pub(crate) fn run(runner: Runner, args: &[String]) -> Result<ExitCode, String> {
    let skipped = temporary()?;
    let run = |words: &[&str], args: &[String]| {
        let mut command = cargo();
        command.args(words).args(in_packages(args)).args(args).env(SKIPPED, skipped.path());
        pass_on(&mut command)
    };
    let code = match takes_nextest(runner)? {
        false => run(&["test"], args)?,
        true if !runs_all(args) => run(&["nextest", "run"], args)?,
        true => {
            let config = temporary()?;
            fs::write(config.path(), nextest_config::of_this_host(&declared(args)?)?)
                .map_err(|e| format!("cannot write {}: {e}", config.path().display()))?;
            let tool = format!("vmtest:{}", config.path().display());
            let code = run(&["nextest", "run", "--tool-config-file", &tool], args)?;
            if code == ExitCode::SUCCESS || args.iter().any(|arg| arg == "--no-fail-fast") {
                // nextest knows no tests in the documentation.
                let documented = run(&["test", "--doc"], args)?;
                if code == ExitCode::SUCCESS { documented } else { code }
            } else {
                code
            }
        }
    };
    if let Some(summary) = summary(&read(skipped.path())?) {
        eprintln!("{summary}");
    }
    Ok(code)
}

fn temporary() -> Result<NamedTempFile, String> {
    NamedTempFile::new().map_err(|e| format!("cannot make a temporary file: {e}"))
}

/// Whether nextest runs the tests; says so where nobody has asked for it.
fn takes_nextest(runner: Runner) -> Result<bool, String> {
    if runner == Runner::Cargo {
        return Ok(false);
    }
    let asked = cargo().args(["nextest", "--version"]).stderr(Stdio::null()).output();
    let version = asked.ok().filter(|asked| asked.status.success()).map(|asked| asked.stdout);
    match (version, runner) {
        (Some(_), Runner::Nextest) => Ok(true),
        (Some(version), _) => {
            let version = String::from_utf8_lossy(&version);
            let version = version.lines().next().unwrap_or_default();
            eprintln!("vmtest: {version} is installed and runs the tests; `--runner cargo` has Cargo run them");
            Ok(true)
        }
        (None, Runner::Nextest) => {
            Err("nextest is not installed: `cargo install --locked cargo-nextest`, or leave out `--runner nextest`"
                .into())
        }
        (None, _) => Ok(false),
    }
}

/// What says which packages are meant, where these arguments do not.
fn in_packages(args: &[String]) -> Option<&'static str> {
    let own = args.iter().take_while(|arg| *arg != "--");
    let named = |arg: &str| PACKAGES.contains(&arg.split('=').next().unwrap_or(arg)) || arg == "--workspace";
    (!own.into_iter().any(|arg| named(arg))).then_some("--workspace")
}

/// Whether these arguments leave it at all tests of their packages.
fn runs_all(args: &[String]) -> bool {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if ALIKE_WITH_VALUE.contains(&arg.as_str()) {
            if args.next().is_none() {
                return false;
            }
        } else if !ALIKE.contains(&arg.as_str())
            && !arg.split_once('=').is_some_and(|(name, _)| ALIKE_WITH_VALUE.contains(&name))
        {
            return false;
        }
    }
    true
}

/// The tests of these packages that make clusters.
fn declared(args: &[String]) -> Result<Vec<Test>, String> {
    let args = in_packages(args).map(str::to_owned).into_iter().chain(args.iter().cloned()).collect();
    Source { tests: None, args }.list()
}

fn read(list: &Path) -> Result<Vec<Skipped>, String> {
    let text = fs::read_to_string(list).map_err(|e| format!("cannot read {}: {e}", list.display()))?;
    let lines = text.lines().map(|line| serde_json::from_str(line).map_err(|e| format!("{}: {e}", list.display())));
    lines.collect()
}

fn summary(skipped: &[Skipped]) -> Option<String> {
    let tests = match skipped.len() {
        0 => return None,
        1 => "1 test was".to_owned(),
        many => format!("{many} tests were"),
    };
    let lines = skipped.iter().map(|Skipped { test, why }| format!("\n  {test}: {}", why.replace('\n', "\n  ")));
    Some(format!("vmtest: {tests} skipped, for what this host lacks:{}", lines.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_was_skipped_is_counted_and_named() {
        let skipped = |test: &str, why: &str| Skipped { test: test.to_owned(), why: why.to_owned() };
        assert_eq!(summary(&[]), None);
        let one = [skipped("boots", "no /dev/kvm")];
        assert_eq!(
            summary(&one).as_deref(),
            Some("vmtest: 1 test was skipped, for what this host lacks:\n  boots: no /dev/kvm")
        );
        let two = [skipped("a", "x:\n  - y"), skipped("b", "z")];
        let said = "vmtest: 2 tests were skipped, for what this host lacks:\n  a: x:\n    - y\n  b: z";
        assert_eq!(summary(&two).as_deref(), Some(said));
    }

    #[test]
    fn all_tests_run_unless_some_are_chosen() {
        for all in ["", "--no-fail-fast --release", "-p web --features=x", "--target-dir /t --workspace"] {
            assert!(runs_all(&args(all)), "{all}");
        }
        for some in ["boots", "--test web", "--lib", "--no-fail-fast -- --ignored", "-p", "-E test(boots)"] {
            assert!(!runs_all(&args(some)), "{some}");
        }
    }

    #[test]
    fn the_whole_workspace_is_meant_unless_packages_are_named() {
        for whole in ["", "boots", "--test web", "-- -p"] {
            assert_eq!(in_packages(&args(whole)), Some("--workspace"), "{whole}");
        }
        for named in ["-p web", "--package=web", "--workspace", "--manifest-path a/Cargo.toml"] {
            assert_eq!(in_packages(&args(named)), None, "{named}");
        }
    }
}
