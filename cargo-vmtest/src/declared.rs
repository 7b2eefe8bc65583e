//! The tests that make clusters: found by building all test binaries and asking each for what its tests declare.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vmtest::harness::{BACKENDS, Declared, LIST, LISTED};

use super::binaries::{TestBinary, build};

/// The form of the list in files.
const VERSION: u32 = 1;

/// A test that makes a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Test {
    /// The name of its package.
    pub(crate) package: String,
    /// The name of its binary's target.
    pub(crate) target: String,
    /// Its binary's name for nextest.
    pub(crate) binary_id: String,
    /// Where its binary was built.
    pub(crate) binary: PathBuf,
    /// That of its package.
    pub(crate) dir: PathBuf,
    /// Whether it runs only when that is asked for.
    pub(crate) ignored: bool,
    /// What it declares.
    #[serde(flatten)]
    pub(crate) declared: Declared,
}

/// The backend that no test gets which does not name it.
pub(crate) const FAKE: &str = "fake";

impl Test {
    /// Whether this backend is one of those that it names, or of those that a test gets which names none.
    pub(crate) fn may_run_on(&self, backend: &str) -> bool {
        let named = &self.declared.backends;
        if named.is_empty() { backend != FAKE } else { named.iter().any(|name| name == backend) }
    }
}

/// # Errors
/// With the first of these names that is no backend's, and those that are.
pub(crate) fn check_backends(names: &[String]) -> Result<(), String> {
    match names.iter().find(|name| !BACKENDS.contains(&name.as_str())) {
        Some(unknown) => Err(format!("there is no backend `{unknown}`: there are {}", BACKENDS.join(", "))),
        None => Ok(()),
    }
}

/// The list as it is in files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct List {
    version: u32,
    pub(crate) tests: Vec<Test>,
}

impl From<Vec<Test>> for List {
    fn from(tests: Vec<Test>) -> Self {
        Self { version: VERSION, tests }
    }
}

/// Where the list comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// Take the tests from this file, which `cargo vmtest list --json` has printed, and build nothing.
    #[arg(long, value_name = "FILE")]
    pub(crate) tests: Option<PathBuf>,
    /// Arguments for `cargo test` that say what is built; without, `--workspace`.
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
}

impl Source {
    /// The tests, in the order of their names.
    ///
    /// # Errors
    /// That the file cannot be read, or that the tests cannot be built.
    pub(crate) fn list(&self) -> Result<Vec<Test>, String> {
        match &self.tests {
            Some(file) => read(file),
            None => build_and_ask(&self.args),
        }
    }
}

/// Reads a list.
///
/// # Errors
/// With the command that makes one.
pub(crate) fn read(file: &Path) -> Result<Vec<Test>, String> {
    let at = file.display();
    let text = fs::read(file).map_err(|e| format!("cannot read {at}: {e}"))?;
    let value: Value = serde_json::from_slice(&text)
        .map_err(|e| format!("{at} is no list of tests ({e}): make one with `cargo vmtest list --json`"))?;
    if value["version"] != VERSION {
        return Err(format!(
            "{at} is of another version of this command: make it again with `cargo vmtest list --json`"
        ));
    }
    let list: List = serde_json::from_value(value).map_err(|e| format!("{at}: {e}"))?;
    Ok(list.tests)
}

/// Builds all test binaries, and asks each for its tests.
///
/// # Errors
/// That the tests cannot be built.
pub(crate) fn build_and_ask(args: &[String]) -> Result<Vec<Test>, String> {
    let whole = ["--workspace".to_owned()];
    let binaries = build(if args.is_empty() { &whole } else { args })?;
    let mut tests = Vec::new();
    for binary in &binaries {
        tests.extend(tests_of(binary)?);
    }
    tests.sort_by(|a, b| (&a.binary_id, &a.declared.path).cmp(&(&b.binary_id, &b.declared.path)));
    Ok(tests)
}

/// Asks a binary for its tests.
fn tests_of(binary: &TestBinary) -> Result<Vec<Test>, String> {
    let run = |args: &[&str], list: bool| {
        let mut command = Command::new(&binary.path);
        command.args(args).current_dir(&binary.dir).stdin(Stdio::null()).stderr(Stdio::inherit());
        if list {
            command.env(LIST, "1");
        }
        let output = command.output().map_err(|e| format!("cannot run {}: {e}", binary.path.display()))?;
        if list && !output.status.success() {
            let shown = binary.path.display();
            return Err(format!("{shown} cannot say what its tests declare: it ended with {}", output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let listed = run(&["--list"], true)?;
    let declared: Vec<Declared> =
        listed.lines().filter_map(|line| serde_json::from_str(line.strip_prefix(LISTED)?).ok()).collect();
    if declared.is_empty() {
        return Ok(Vec::new());
    }
    let ignored = run(&["--list", "--ignored", "--format", "terse"], false)?;
    let ignored: BTreeSet<_> = ignored.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let is_ignored = |path: &str| ignored.iter().any(|name| is_or_is_below(name, path));
    let test = |declared: Declared| Test {
        package: binary.package.clone(),
        target: binary.target.clone(),
        binary_id: binary.id.clone(),
        binary: binary.path.clone(),
        dir: binary.dir.clone(),
        ignored: is_ignored(&declared.path),
        declared,
    };
    Ok(declared.into_iter().map(test).collect())
}

/// Whether this is the name of that test, or of one of the cases that another attribute has made of it.
pub(crate) fn is_or_is_below(name: &str, test: &str) -> bool {
    name.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    /// A test that takes one CPU and 256 MiB for each of its machines.
    pub(crate) fn test(binary_id: &str, path: &str, nodes: usize, backends: &[&str]) -> Test {
        let (package, target) = binary_id.split_once("::").unwrap_or((binary_id, binary_id));
        let count = u32::try_from(nodes).unwrap();
        Test {
            package: package.into(),
            target: target.into(),
            binary_id: binary_id.into(),
            binary: "/b".into(),
            dir: "/d".into(),
            ignored: false,
            declared: Declared {
                path: path.into(),
                file: "tests/t.rs".into(),
                line: 1,
                nodes,
                takes: vmtest::spec::Resources { memory: u64::from(count) << 28, cpus: count, disk: 0 },
                timeout: 120_000,
                backends: backends.iter().map(|&name| name.to_owned()).collect(),
                images: ["micro".into()].into(),
                requires: BTreeSet::new(),
                place: vmtest::spec::NetworkPlace::Own,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_a_file_and_others_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let tests = vec![examples::test("web::faults", "late", 2, &["qemu"])];
        fs::write(file.path(), serde_json::to_string(&List::from(tests.clone())).unwrap()).unwrap();
        assert_eq!(read(file.path()).unwrap(), tests);
        fs::write(file.path(), r#"{"version":99,"tests":[]}"#).unwrap();
        assert!(read(file.path()).unwrap_err().contains("is of another version"));
        fs::write(file.path(), "[profile.default]").unwrap();
        assert!(read(file.path()).unwrap_err().contains("make one with `cargo vmtest list --json`"));
    }

    #[test]
    fn cases_are_below_their_test() {
        assert!(is_or_is_below("a::b", "a::b") && is_or_is_below("a::b::case_1", "a::b"));
        assert!(!is_or_is_below("a::b_2", "a::b"));
    }
}
