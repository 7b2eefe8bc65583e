//! nextest, run on the binary of the calling test.

use std::{env, fs, path::Path, process::Command};

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
        Self::named(profile, env!("CARGO_PKG_NAME"), "this")
    }

    /// The same for the binary of a test of this package, by its own name: nextest takes no filter with another.
    ///
    /// # Panics
    /// When Cargo does not describe this workspace, or it has no such package.
    pub fn named(profile: &str, package: &str, target: &str) -> Option<Self> {
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
        let ours = |other: &&Value| other["name"] == package;
        let found = metadata["packages"].as_array().and_then(|packages| packages.iter().find(ours));
        let id = found.expect("this package is one of the workspace")["id"].clone();
        let binary = env::current_exe().expect("a running test knows its binary");
        let binary_id = format!("{package}::{target}");
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
                &binary_id: {
                    "binary-id": binary_id,
                    "binary-name": target,
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
        let test = format!("test(={test})");
        self.call(&["run", "--no-fail-fast", "--run-ignored", "only", "-E", &test])
    }

    /// Runs the tests of this filterset that are not ignored.
    pub fn all(&self, filter: &str) -> Command {
        self.call(&["run", "--no-fail-fast", "-E", filter])
    }

    /// Shows in which groups the tests are, with those that are ignored.
    pub fn show_groups(&self) -> Command {
        self.call(&["show-config", "test-groups", "--run-ignored", "all"])
    }

    /// Keeps what a run stores, such as JUnit's XML, below this directory.
    ///
    /// # Panics
    /// When the configuration cannot be written.
    pub fn stored_in(&self, command: Command, dir: &Path) -> Command {
        let config = self.files.path().join("nextest.toml");
        let text = fs::read_to_string(&config).expect("it was written");
        fs::write(config, format!("store.dir = {:?}\n{text}", dir.display().to_string())).expect("written");
        command
    }

    fn call(&self, args: &[&str]) -> Command {
        let file = |name: &str| self.files.path().join(name);
        let mut command = Command::new("cargo-nextest");
        command.arg("nextest").args(args);
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
