//! What is in the packages, and what their dependencies ask of whoever uses them.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn cargo(args: &[&str]) -> Output {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Command::new(cargo).current_dir(dir).args(args).arg("--offline").output().expect("cargo runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_crate_is_packaged_with_its_licences() {
    let target = tempfile::tempdir().expect("a temporary directory");
    let place = target.path().to_str().expect("it is UTF-8");
    let done = cargo(&["package", "--workspace", "--no-verify", "--allow-dirty", "--target-dir", place]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let packages = target.path().join("package").read_dir().expect("they are there").flatten();
    let packages: Vec<_> =
        packages.map(|entry| entry.path()).filter(|path| path.extension() == Some(OsStr::new("crate"))).collect();
    assert_eq!(packages.len(), 7, "{packages:?}");
    for package in packages {
        let tar = Command::new("tar").arg("tzvf").arg(&package).output().expect("tar runs");
        let files = text(&tar.stdout);
        let wanted = ["LICENSE-MIT", "LICENSE-APACHE", "Cargo.lock"].into_iter();
        let readme = (!files.contains("vmtest-tests")).then_some("README.md");
        for name in wanted.chain(readme) {
            let line = files.lines().find(|line| line.ends_with(&format!("/{name}")));
            let line = line.unwrap_or_else(|| panic!("{name} is not in {}", package.display()));
            assert!(line.starts_with('-'), "a package has no links to files outside of it: {line}");
        }
    }
}

/// Permissive: whoever links one of these owes no more than a notice. The same as in `deny.toml`.
fn is_permissive(licence: &str) -> bool {
    let deny = include_str!("../../deny.toml");
    // `OR` binds least; the old `/` means the same.
    licence.replace('/', " OR ").split(" OR ").any(|choice| {
        choice.split(" AND ").all(|name| deny.contains(&format!("\"{}\"", name.trim_matches(['(', ')', ' ']))))
    })
}

/// `1.89` and `1.89.0` as numbers that compare.
fn release(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().expect("a number"));
    (numbers.next().expect("the first"), numbers.next().unwrap_or(0))
}

#[test]
fn no_dependency_needs_a_newer_rust_or_another_licence() {
    assert!(is_permissive("(MIT OR Apache-2.0) AND Unicode-3.0") && is_permissive("Unlicense/MIT"));
    assert!(!is_permissive("GPL-2.0-only") && !is_permissive("MIT AND GPL-2.0-only"));
    let platform = "x86_64-unknown-linux-gnu";
    let metadata = cargo(&["metadata", "--format-version", "1", "--locked", "--filter-platform", platform]);
    assert!(metadata.status.success(), "{}", text(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("cargo's own JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let ours = packages.iter().find(|package| package["name"] == "vmtest").expect("it is there");
    let ours = release(ours["rust_version"].as_str().expect("it says which"));
    for package in packages {
        let newest = package["rust_version"].as_str().map_or((1, 0), release);
        assert!(newest <= ours, "{} needs Rust {newest:?}, and Cargo.toml promises {ours:?}", package["id"]);
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(is_permissive(licence), "{} has the licence {licence}", package["id"]);
    }
}
