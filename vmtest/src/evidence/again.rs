//! The line that runs a test again.

use std::{env, path::Path};

use super::place;
use crate::spec::ClusterSpec;

/// A command that runs this test again, as it was run: with the same settings, and without those that say where files are.
pub(super) fn line(spec: &ClusterSpec, test: &str) -> String {
    let settings = env::vars().filter(|(name, _)| {
        name.starts_with("VMTEST_")
            && !name.starts_with("VMTEST_INTERNAL_")
            && !["VMTEST_RUN", "VMTEST_CACHE", "VMTEST_ARTIFACTS"].contains(&name.as_str())
    });
    let settings: String = settings.map(|(name, value)| format!("{name}={} ", word(&value))).collect();
    let package = env::var("CARGO_PKG_NAME").map(|name| format!(" -p {name}")).unwrap_or_default();
    let binary = place::binary();
    let ignored = env::args().any(|arg| matches!(arg.as_str(), "--ignored" | "--include-ignored"));
    let ignored = if ignored { " --include-ignored" } else { "" };
    format!("{settings}cargo test{package}{} -- --exact {}{ignored}", target(&spec.base, &binary), word(test))
}

/// What of a crate a test binary was made from.
fn target(base: &Path, binary: &str) -> String {
    let tests = base.join("tests");
    if tests.join(format!("{binary}.rs")).is_file() || tests.join(binary).join("main.rs").is_file() {
        format!(" --test {binary}")
    } else if base.join("src/lib.rs").is_file() {
        " --lib".to_owned()
    } else {
        String::new()
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
        let line = line(&spec, "a::test");
        assert!(line.contains(" --lib -- --exact a::test"), "{line}");
        assert_eq!(target(&base.join("../tests"), "endings"), " --test endings");
        assert_eq!(target(&base.join("../tests"), "conformance"), " --test conformance");
    }
}
