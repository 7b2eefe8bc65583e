//! Whether the results of several machines are those of all tests, each once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use vmtest::evidence::Kept;

use super::super::declared::{self, Test, check_backends, is_or_is_below};

/// The tests that some machines have run together.
#[derive(Debug)]
pub(crate) struct Expected {
    tests: Vec<Test>,
    /// The backends of these machines, if they are known.
    backends: Vec<String>,
}

impl Expected {
    /// Reads the list of the tests.
    ///
    /// # Errors
    /// Those of [`declared::read`], or that there is no such backend.
    pub(crate) fn read(list: &Path, backends: Vec<String>) -> Result<Self, String> {
        check_backends(&backends)?;
        Ok(Self { tests: declared::read(list)?, backends })
    }

    /// Checks the attempts of the machines.
    ///
    /// # Errors
    /// With the tests of which there is no attempt, at all or on one of the backends, and those that several machines have
    /// run on one backend.
    pub(super) fn check(&self, all: &[Kept]) -> Result<(), String> {
        let expected = self.tests.iter().filter(|test| !test.ignored);
        let mut problems: Vec<_> = expected.flat_map(|test| self.lost(test, all)).collect();
        problems.extend(doubled(all));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(format!("the results are not whole:\n  - {}", problems.join("\n  - ")))
        }
    }

    fn lost(&self, test: &Test, all: &[Kept]) -> Vec<String> {
        let of_binary = |kept: &&Kept| {
            let same_package = kept.package.as_ref().is_none_or(|package| *package == test.package);
            same_package && plain(&kept.binary) == plain(&test.target)
        };
        let of_test = all.iter().filter(of_binary).filter(|kept| is_or_is_below(&kept.test, &test.declared.path));
        let has_run_on: BTreeSet<_> = of_test.map(|kept| kept.backend.as_deref()).collect();
        let name = format!("{}/{}", test.target, test.declared.path);
        if has_run_on.is_empty() {
            return vec![format!("{name} has not run anywhere")];
        }
        let wanted = self.backends.iter().filter(|backend| test.may_run_on(backend));
        let lost = wanted.filter(|backend| !has_run_on.contains(&Some(backend.as_str())));
        lost.map(|backend| format!("{name} has not run on {backend}")).collect()
    }
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
        attempt_on(root, test, "fake");
    }

    fn attempt_on(root: &Path, test: &str, backend: &str) {
        let dir = root.join(test.replace("::", ".")).join("1");
        fs::create_dir_all(&dir).unwrap();
        let started = json!({"test": test, "binary": "my_it", "package": "web", "unix_time": 1});
        fs::write(dir.join("started.json"), started.to_string()).unwrap();
        fs::write(dir.join("plan.json"), json!({ "backend": backend }).to_string()).unwrap();
    }

    #[test]
    fn what_is_lost_and_what_is_doubled_is_named() {
        let mut ignored = test("web::my-it", "by_hand", 1, &[]);
        ignored.ignored = true;
        let tests = vec![test("web::my-it", "a", 1, &[]), test("web::my-it", "b", 1, &[]), ignored];
        let expected = Expected { tests, backends: Vec::new() };
        let check = |all: &[Kept]| expected.check(all);
        let dir = tempfile::tempdir().unwrap();
        attempt(&dir.path().join("shard-1"), "a");
        let problems = check(&Kept::all(dir.path())).unwrap_err();
        assert_eq!(problems, "the results are not whole:\n  - my-it/b has not run anywhere");
        attempt(&dir.path().join("shard-2"), "b::case_1");
        attempt(&dir.path().join("shard-2"), "b::case_2");
        check(&Kept::all(dir.path())).unwrap();
        attempt(&dir.path().join("shard-2"), "a");
        let problems = check(&Kept::all(dir.path())).unwrap_err();
        assert!(
            problems.contains("web::my_it a has run more than once: in ") && problems.contains("shard-2"),
            "{problems}"
        );
    }

    #[test]
    fn a_test_runs_on_each_backend_that_there_is() {
        let tests = vec![test("web::my-it", "a", 1, &["qemu", "fake"]), test("web::my-it", "b", 1, &[])];
        let backends = ["qemu", "fake"].map(str::to_owned).to_vec();
        let expected = Expected { tests, backends };
        let dir = tempfile::tempdir().unwrap();
        attempt_on(&dir.path().join("shard-1"), "a", "fake");
        attempt_on(&dir.path().join("shard-2"), "b", "qemu");
        let problems = expected.check(&Kept::all(dir.path())).unwrap_err();
        assert_eq!(problems, "the results are not whole:\n  - my-it/a has not run on qemu");
        attempt_on(&dir.path().join("shard-2"), "a", "qemu");
        expected.check(&Kept::all(dir.path())).unwrap();
    }
}
