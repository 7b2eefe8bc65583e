//! `cargo vmtest up`.

use std::process::{Command, ExitCode};

use vmtest::harness::UP;

use super::{
    binaries::pass_on,
    declared::{Test, build_and_ask},
};

/// Makes the cluster that a test declares and holds it in place of running the body.
pub(crate) fn run(name: &str, args: &[String]) -> Result<ExitCode, String> {
    let tests = build_and_ask(args)?;
    let test = choose(&tests, name)?;
    let mut command = Command::new(&test.binary);
    command.args([&test.declared.path, "--exact", "--include-ignored", "--nocapture"]).current_dir(&test.dir);
    command.env(UP, "1").env_remove("VMTEST_HOLD").env("CARGO_MANIFEST_DIR", &test.dir).env_remove("CARGO_PKG_NAME");
    pass_on(&mut command)
}

/// By its path, its end or a part of it, where that is clear; behind the name of its binary's target and a slash, too.
fn choose<'a>(tests: &'a [Test], name: &str) -> Result<&'a Test, String> {
    let (target, path) = name.split_once('/').map_or((None, name), |(target, path)| (Some(target), path));
    let of_target: Vec<_> = tests.iter().filter(|test| target.is_none_or(|target| test.target == target)).collect();
    let list = |tests: &[&Test]| {
        tests.iter().map(|test| format!("\n  {}/{}", test.target, test.declared.path)).collect::<String>()
    };
    let end = format!("::{path}");
    let ways: [&dyn Fn(&Test) -> bool; 3] =
        [&|test| test.declared.path == path, &|test| test.declared.path.ends_with(&end), &|test| {
            test.declared.path.contains(path)
        }];
    for way in ways {
        match of_target.iter().copied().filter(|test| way(test)).collect::<Vec<_>>().as_slice() {
            [] => {}
            [only] => return Ok(only),
            several => return Err(format!("`{name}` can be:{}", list(several))),
        }
    }
    let all = list(&tests.iter().collect::<Vec<_>>());
    Err(if all.is_empty() {
        format!("there is no test `{name}`, and none at all with `#[vm_test]`")
    } else {
        format!("there is no test `{name}` with `#[vm_test]`; there are:{all}")
    })
}

#[cfg(test)]
mod tests {
    use super::super::declared::examples::test;
    use super::*;

    fn some() -> Vec<Test> {
        [("endings", "victims::panics"), ("endings", "fails"), ("signals", "fails"), ("signals", "fails_late")]
            .map(|(target, path)| test(&format!("web::{target}"), path, 1, &[]))
            .into()
    }

    fn chosen(name: &str) -> Result<String, String> {
        choose(&some(), name).map(|test| format!("{}/{}", test.target, test.declared.path))
    }

    #[test]
    fn tests_are_found_by_whatever_is_clear() {
        assert_eq!(chosen("panics").unwrap(), "endings/victims::panics");
        assert_eq!(chosen("signals/fails").unwrap(), "signals/fails");
        assert_eq!(chosen("late").unwrap(), "signals/fails_late");
        assert_eq!(chosen("fails").unwrap_err(), "`fails` can be:\n  endings/fails\n  signals/fails");
        assert!(chosen("elects").unwrap_err().contains("there are:\n  endings/victims::panics"));
        assert!(choose(&[], "x").unwrap_err().contains("none at all"));
    }
}
