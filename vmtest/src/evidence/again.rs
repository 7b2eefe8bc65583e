//! The lines that run a test again.

use std::{env, path::Path};

use super::place;
use crate::spec::ClusterSpec;

/// Settings that say where something is on a host, or what is done beside a test.
pub(super) const PLACES: [&str; 3] = ["VMTEST_RUN", "VMTEST_CACHE", "VMTEST_ARTIFACTS"];

/// A command that runs this test again, as it was run: with the same settings, and without those that say where files are.
pub(super) fn by_cargo(spec: &ClusterSpec, test: &str) -> String {
    let settings = env::vars().filter(|(name, _)| {
        name.starts_with("VMTEST_") && !name.starts_with("VMTEST_INTERNAL_") && !PLACES.contains(&name.as_str())
    });
    let settings: String = settings.map(|(name, value)| format!("{name}={} ", word(&value))).collect();
    let package = env::var("CARGO_PKG_NAME").map(|name| format!(" -p {name}")).unwrap_or_default();
    let target: String = target(&spec.base, &place::binary()).iter().map(|option| format!(" {option}")).collect();
    let ignored = env::args().any(|arg| matches!(arg.as_str(), "--ignored" | "--include-ignored"));
    let ignored = if ignored { " --include-ignored" } else { "" };
    format!("{settings}cargo test{package}{target} -- --exact {}{ignored}", word(&place::runner_name(test)))
}

/// The command that runs the test of the attempt in this directory again, and says what is otherwise now.
pub(super) fn by_repro(dir: &Path) -> String {
    format!("cargo vmtest repro {}", word(&dir.display().to_string()))
}

/// What of a crate a test binary was made from, as options of Cargo.
pub(super) fn target(base: &Path, binary: &str) -> Vec<String> {
    let tests = base.join("tests");
    if tests.join(format!("{binary}.rs")).is_file() || tests.join(binary).join("main.rs").is_file() {
        vec!["--test".to_owned(), binary.to_owned()]
    } else if base.join("src/lib.rs").is_file() {
        vec!["--lib".to_owned()]
    } else {
        Vec::new()
    }
}

fn word(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_this_very_test() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR"));
        let spec = ClusterSpec { base: base.to_owned(), ..ClusterSpec::new("t") };
        let this = "evidence::again::tests::the_line_names_this_very_test";
        let line = by_cargo(&spec, "the name of a cluster in code");
        assert!(line.contains(&format!(" --lib -- --exact {this}")), "{line}");
        assert_eq!(target(&base.join("../tests"), "rootless"), ["--test", "rootless"]);
        assert_eq!(target(&base.join("../tests"), "conformance"), ["--test", "conformance"]);
        assert_eq!(by_repro(Path::new("/a b/1")), "cargo vmtest repro '/a b/1'");
    }
}
