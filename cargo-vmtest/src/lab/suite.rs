//! The suites of this repository that are made for the lab.

use std::path::PathBuf;

use super::super::binaries::build;

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
        let args = ["--workspace", "--test", name].map(str::to_owned);
        let binaries = build(&args).map_err(|why| {
            format!("the {name} suite could not be built: run this in a clone of the repository of vmtest ({why})")
        })?;
        let found = binaries.into_iter().find(|binary| binary.target == name);
        let found = found.ok_or_else(|| format!("cargo has not said where the {name} suite is"))?;
        // One test at a time: each has all of the lab.
        Ok(Built { binary: found.path, args: vec!["--test-threads=1".to_owned()], package: found.dir })
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
