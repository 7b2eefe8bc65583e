//! Whether the results of several machines are those of all tests, each once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use vmtest::evidence::Kept;

use super::super::declared::{Test, is_or_is_below};

/// Checks the attempts of some machines, which have run these tests together.
///
/// # Errors
/// With the tests of which there is no attempt, and those that several machines have run on one backend.
pub(super) fn check(tests: &[Test], all: &[Kept]) -> Result<(), String> {
    let mut problems: Vec<_> = lost(tests, all).map(|test| format!("{test} has not run anywhere")).collect();
    problems.extend(doubled(all));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("the results are not whole:\n  - {}", problems.join("\n  - ")))
    }
}

fn lost<'a>(tests: &'a [Test], all: &'a [Kept]) -> impl Iterator<Item = String> + 'a {
    let has_run = |test: &Test| {
        let of_binary = |kept: &&Kept| {
            let same_package = kept.package.as_ref().is_none_or(|package| *package == test.package);
            same_package && plain(&kept.binary) == plain(&test.target)
        };
        all.iter().filter(of_binary).any(|kept| is_or_is_below(&kept.test, &test.declared.path))
    };
    let lost = tests.iter().filter(move |test| !test.ignored && !has_run(test));
    lost.map(|test| format!("{}/{}", test.target, test.declared.path))
}

fn doubled(all: &[Kept]) -> Vec<String> {
    let mut roots: BTreeMap<_, BTreeSet<&Path>> = BTreeMap::new();
    for kept in all {
        roots.entry((kept.suite(), &kept.test, &kept.backend)).or_default().insert(kept.root());
    }
    let several = roots.into_iter().filter(|(_, roots)| roots.len() > 1);
    let said = several.map(|((suite, test, _), roots)| {
        let roots: Vec<_> = roots.into_iter().map(|root| root.display().to_string()).collect();
        format!("{suite} {test} has run more than once: in {}", roots.join(" and in "))
    });
    said.collect()
}

/// Cargo writes names of targets and of files in two ways.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::super::declared::examples::test;
    use super::*;

    fn attempt(root: &Path, test: &str) {
        let dir = root.join(test.replace("::", ".")).join("1");
        fs::create_dir_all(&dir).unwrap();
        let started = json!({"test": test, "binary": "my_it", "package": "web", "unix_time": 1});
        fs::write(dir.join("started.json"), started.to_string()).unwrap();
        fs::write(dir.join("plan.json"), r#"{"backend":"fake"}"#).unwrap();
    }

    #[test]
    fn what_is_lost_and_what_is_doubled_is_named() {
        let mut ignored = test("web::my-it", "by_hand", 1, &[]);
        ignored.ignored = true;
        let tests = [test("web::my-it", "a", 1, &[]), test("web::my-it", "b", 1, &[]), ignored];
        let dir = tempfile::tempdir().unwrap();
        attempt(&dir.path().join("shard-1"), "a");
        let problems = check(&tests, &Kept::all(dir.path())).unwrap_err();
        assert_eq!(problems, "the results are not whole:\n  - my-it/b has not run anywhere");
        attempt(&dir.path().join("shard-2"), "b::case_1");
        attempt(&dir.path().join("shard-2"), "b::case_2");
        check(&tests, &Kept::all(dir.path())).unwrap();
        attempt(&dir.path().join("shard-2"), "a");
        let problems = check(&tests, &Kept::all(dir.path())).unwrap_err();
        assert!(
            problems.contains("web::my_it a has run more than once: in ") && problems.contains("shard-2"),
            "{problems}"
        );
    }
}
