//! nextest, run on the binary of the calling test.

use std::{env, fs, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What nextest needs to know of one test binary, so that it builds nothing.
#[derive(Debug)]
pub struct Nextest {
    files: TempDir,
}

impl Nextest {
    /// With these lines of a profile; `None` where nextest is not installed.
    ///
    /// # Panics
    /// When Cargo does not describe this workspace.
    pub fn new(profile: &str) -> Option<Self> {
        let version = Command::new("cargo-nextest").args(["nextest", "--version"]).output().ok()?;
        if !version.status.success() {
            return None;
        }
        let files = TempDir::new().expect("a temporary directory");
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let metadata = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--offline"])
            // What only other systems need was never downloaded.
            .args(["--filter-platform", &format!("{}-unknown-linux-gnu", env::consts::ARCH)])
            .output();
        let metadata = metadata.expect("cargo runs").stdout;
        fs::write(files.path().join("cargo.json"), &metadata).expect("written");
        let metadata: Value = serde_json::from_slice(&metadata).expect("cargo's own JSON");
        let ours = |package: &&Value| package["name"] == env!("CARGO_PKG_NAME");
        let package = metadata["packages"].as_array().and_then(|packages| packages.iter().find(ours));
        let id = package.expect("this package is one of the workspace")["id"].clone();
        let binary = env::current_exe().expect("a running test knows its binary");
        let binaries = json!({
            "rust-build-meta": {
                "target-directory": metadata["target_directory"],
                "base-output-directories": ["debug"],
                "non-test-binaries": {},
                "build-script-out-dirs": {},
                "linked-paths": [],
                "platforms": null,
                "target-platforms": [],
                "target-platform": null
            },
            "rust-binaries": {
                "vmtest-tests::this": {
                    "binary-id": "vmtest-tests::this",
                    "binary-name": "this",
                    "package-id": id,
                    "kind": "test",
                    "binary-path": binary,
                    "build-platform": "target"
                }
            }
        });
        fs::write(files.path().join("binaries.json"), binaries.to_string()).expect("written");
        fs::write(files.path().join("nextest.toml"), format!("[profile.default]\n{profile}\n")).expect("written");
        Some(Self { files })
    }

    /// Runs this one test, which is ignored otherwise.
    pub fn command(&self, test: &str) -> Command {
        let file = |name: &str| self.files.path().join(name);
        let mut command = Command::new("cargo-nextest");
        command.args(["nextest", "run", "--no-fail-fast", "--run-ignored", "only", "-E", &format!("test(={test})")]);
        command.arg("--cargo-metadata").arg(file("cargo.json"));
        command.arg("--binaries-metadata").arg(file("binaries.json"));
        command.arg("--config-file").arg(file("nextest.toml"));
        // Of the run that this is a part of, if nextest runs it too.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NEXTEST")) {
            command.env_remove(name);
        }
        command
    }
}
