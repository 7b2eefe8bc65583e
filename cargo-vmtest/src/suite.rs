//! `cargo vmtest test`.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use vmtest::__private::{SKIPPED, Skipped};

/// Runs the workspace's tests and passes on the runner's exit code. Says in the end which were skipped: what they say of it
/// themselves is among everything else, and nextest shows nothing of a test that passes.
pub(crate) fn run(nextest: bool, args: &[String]) -> Result<ExitCode, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    let skipped = tempfile::NamedTempFile::new().map_err(|e| format!("cannot make a temporary file: {e}"))?;
    let status = Command::new(cargo).args(runner).arg("--workspace").args(args).env(SKIPPED, skipped.path()).status();
    let status = status.map_err(|e| format!("cannot run cargo: {e}"))?;
    if let Some(summary) = summary(&read(skipped.path())?) {
        eprintln!("{summary}");
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
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
}
