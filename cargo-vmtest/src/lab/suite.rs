//! The suites of this repository that are made for the lab.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// A suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    /// Backends by cases.
    Conformance,
    /// What a user can do who is not root.
    Rootless,
}

/// A test binary.
pub(super) struct Built {
    pub(super) binary: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) package: PathBuf,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Conformance => "conformance",
            Self::Rootless => "rootless",
        }
    }

    /// Builds it with Cargo, in the workspace of the current directory.
    ///
    /// # Errors
    /// That it cannot be built.
    pub(super) fn build(self) -> Result<Built, String> {
        let name = self.name();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["test", "--workspace", "--test", name, "--no-run", "--message-format=json"]);
        let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("cannot run cargo: {e}"))?;
        if !output.status.success() {
            return Err(format!(
                "the {name} suite could not be built: run this in a clone of the repository of vmtest"
            ));
        }
        let messages = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let mut of_suite = messages.filter(|message: &Value| message["target"]["name"] == name);
        let found = of_suite.find_map(|message| {
            let binary = message["executable"].as_str()?.into();
            let manifest: PathBuf = message["manifest_path"].as_str()?.into();
            Some((binary, manifest.parent()?.to_owned()))
        });
        let (binary, package) = found.ok_or_else(|| format!("cargo has not said where the {name} suite is"))?;
        // One test at a time: each has all of the lab.
        Ok(Built { binary, args: vec!["--test-threads=1".to_owned()], package })
    }

    /// What must be able to run in the lab, of what was shipped there: a suite that passes has not passed over it.
    pub(super) fn requires(self, shipped: impl Fn(&str) -> bool) -> Option<String> {
        let optional = ["cloud-hypervisor", "firecracker"].into_iter().filter(|vmm| shipped(vmm));
        let all: Vec<_> = ["kvm", "qemu"].into_iter().chain(optional).collect();
        (self == Self::Conformance).then(|| all.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shipped_must_run() {
        assert_eq!(Suite::Conformance.requires(|_| false).as_deref(), Some("kvm,qemu"));
        assert_eq!(Suite::Conformance.requires(|vmm| vmm == "firecracker").as_deref(), Some("kvm,qemu,firecracker"));
        assert_eq!(Suite::Rootless.requires(|_| true), None);
    }
}
