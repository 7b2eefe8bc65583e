//! Where the artifacts of a test are.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    thread,
};

/// What Cargo puts into every target directory.
const TARGET_TAG: &str = "CACHEDIR.TAG";
/// A file name has at most 255 bytes, and more than this says nothing.
const LONGEST_NAME: usize = 180;

/// The value of `VMTEST_ARTIFACTS` by which nothing is kept.
pub const KEEP_NOTHING: &str = "none";

/// Where artifacts are to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// `vmtest` in the target directory in which the running binary is, else in that of the crate of the test; a program that
    /// is neither built there nor a test keeps none.
    InTarget,
    Below(PathBuf),
    Nothing,
}

impl Keeping {
    /// What the value of the setting means.
    pub(crate) fn of(value: String) -> Self {
        if value == KEEP_NOTHING { Self::Nothing } else { Self::Below(value.into()) }
    }

    /// Where the attempts of all tests of this process are, if they are kept.
    pub(crate) fn root(&self, crate_dir: Option<&Path>) -> Option<PathBuf> {
        let in_target = || {
            let exe = env::current_exe().ok();
            let target = exe.as_deref().and_then(target_of).or_else(|| Some(crate_dir?.join("target")));
            Some(target?.join("vmtest"))
        };
        let root = match self {
            Self::InTarget => in_target()?,
            Self::Below(dir) => dir.clone(),
            Self::Nothing => return None,
        };
        std::path::absolute(root).ok()
    }
}

/// The target directory in which a binary was built, also where it has been taken to in an archive.
fn target_of(exe: &Path) -> Option<PathBuf> {
    let tagged = exe.ancestors().skip(1).find(|dir| dir.join(TARGET_TAG).is_file());
    // `<target>/<profile>/deps/<binary>`, or beside `deps`: an archive has no tag.
    let of_deps = || {
        let dir = exe.parent()?;
        let profile = if dir.file_name() == Some(OsStr::new("deps")) { dir.parent()? } else { dir };
        profile.join("deps").is_dir().then(|| profile.parent()).flatten()
    };
    tagged.or_else(of_deps).map(Path::to_owned)
}

/// The name of the running binary as its author knows it, without the hash that Cargo adds.
pub(crate) fn binary() -> String {
    let exe = env::current_exe().unwrap_or_default();
    let stem = exe.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    without_hash(&stem).to_owned()
}

fn without_hash(stem: &str) -> &str {
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|c| c.is_ascii_hexdigit());
    stem.rsplit_once('-').filter(|(_, hash)| is_hash(hash)).map_or(stem, |(name, _)| name)
}

/// The whole name of the test that runs on the calling thread, with the case that another attribute may have added to
/// this path: libtest names its threads so, runners say it in a variable or as an argument.
pub(crate) fn full_name(path: &str) -> String {
    let is_it = |name: &String| name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let thread = thread::current().name().map(str::to_owned);
    let mut said = thread.into_iter().chain(env::var("NEXTEST_TEST_NAME").ok()).chain(env::args().skip(1));
    said.find(is_it).unwrap_or_else(|| path.to_owned())
}

/// The name by which a runner knows the test that runs on the calling thread, and asks for a cluster of this name.
pub(crate) fn runner_name(test: &str) -> String {
    let full = full_name(test);
    if full != test {
        return full;
    }
    let is_test = |name: &String| name != "main" && !name.starts_with("tokio-") && !name.starts_with("vmtest-");
    let thread = thread::current().name().map(str::to_owned).filter(is_test);
    let exact = || {
        let args: Vec<_> = env::args().skip(1).collect();
        let mut named = args.iter().filter(|arg| !arg.starts_with('-'));
        named.next().filter(|_| args.iter().any(|arg| arg == "--exact")).cloned()
    };
    // Of one that was asked for by several names, the first may be another test; it has a thread of its own then.
    thread.or_else(|| env::var("NEXTEST_TEST_NAME").ok()).or_else(exact).unwrap_or(full)
}

/// The directory of the profile with which the running binary was built, in its target directory.
pub(crate) fn profile() -> Option<String> {
    let exe = env::current_exe().ok()?;
    let deps = exe.ancestors().skip(1).find(|dir| dir.file_name() == Some(OsStr::new("deps")))?;
    Some(deps.parent()?.file_name()?.to_string_lossy().into_owned())
}

/// The package where it is not what the binary is called, which Cargo writes in two ways.
pub(super) fn other_than<'a>(package: Option<&'a str>, binary: &str) -> Option<&'a str> {
    package.filter(|name| name.replace('-', "_") != binary.replace('-', "_"))
}

/// The directory of all attempts of a test, below the root: without what an archive or a store of artifacts refuses. The
/// package is in it where it is not what the binary is called: two may have binaries and tests of the same names.
pub(crate) fn directory_of(package: Option<&str>, binary: &str, test: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let package = other_than(package, binary).map(|name| format!("{name}.")).unwrap_or_default();
    let name: String = format!("{package}{binary}.{}", test.replace("::", ".")).chars().map(plain).collect();
    name.chars().take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_target_directory_is_found_by_its_tag_or_its_shape() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("target/triple/debug/deps/web-0123456789abcdef");
        fs::create_dir_all(exe.parent().unwrap()).unwrap();
        assert_eq!(target_of(&exe).unwrap(), dir.path().join("target/triple"));
        fs::write(dir.path().join("target").join(TARGET_TAG), "").unwrap();
        assert_eq!(target_of(&exe).unwrap(), dir.path().join("target"));
        assert_eq!(target_of(Path::new("/usr/bin/tool")), None);
    }

    #[test]
    fn a_setting_names_a_directory_or_forbids_all() {
        let crate_dir = Some(Path::new("/crate"));
        assert_eq!(Keeping::of("/kept".into()).root(crate_dir).unwrap(), Path::new("/kept"));
        assert_eq!(Keeping::of("none".into()).root(crate_dir), None);
        assert!(Keeping::of("./none".into()).root(None).unwrap().ends_with("none"));
        assert!(Keeping::InTarget.root(crate_dir).unwrap().ends_with("vmtest"));
    }

    #[test]
    fn tests_have_names_that_every_store_takes() {
        assert_eq!(without_hash("web-0123456789abcdef"), "web");
        assert_eq!(without_hash("cargo-vmtest"), "cargo-vmtest");
        assert_eq!(directory_of(None, "web", "faults::late::case_1"), "web.faults.late.case_1");
        assert_eq!(directory_of(Some("my-web"), "my_web", "a b/../c"), "my_web.a_b_.._c");
        assert_eq!(directory_of(Some("web"), "it", "boots"), "web.it.boots");
        assert_eq!(directory_of(None, "web", &"x".repeat(300)).len(), LONGEST_NAME);
    }

    #[test]
    fn a_test_knows_its_name() {
        let path = "evidence::place::tests::a_test_knows_its_name";
        assert_eq!(full_name(path), path);
        assert_eq!(full_name("another"), "another");
        assert_eq!((runner_name(path), runner_name("another")), (path.to_owned(), path.to_owned()));
    }
}
