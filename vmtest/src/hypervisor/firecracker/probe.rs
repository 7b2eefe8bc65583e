//! Finds Firecracker on this host.

use std::path::PathBuf;

use crate::{
    error::{Error, Kind},
    hypervisor::{
        FIRECRACKER, Search,
        search::{number, version},
    },
};

/// Where the project has its binaries.
const RELEASES: &str = "https://github.com/firecracker-microvm/firecracker/releases";
/// The oldest whose arguments and API are known to be those that are used here.
const OLDEST: (u32, u32) = (1, 10);
/// From this version on devices can be on a PCI bus, where they are faster than by memory-mapped registers alone.
const HAS_PCI: (u32, u32) = (1, 13);

/// What is known of Firecracker here.
#[derive(Debug)]
pub(super) struct FirecrackerFacts {
    pub(super) program: PathBuf,
    pub(super) version: String,
    /// Whether devices can be on a PCI bus.
    pub(super) has_pci: bool,
}

/// Looks for Firecracker at the path that is set, else on PATH, asks it for its version, and sees whether KVM works,
/// without which it runs nothing.
///
/// # Errors
/// [`Kind::Missing`] with what to do about it.
pub(super) fn probe(search: &Search) -> Result<FirecrackerFacts, Error> {
    let missing = |why: String| Error::new(Kind::Missing, why);
    let program = search.program(FIRECRACKER, FIRECRACKER).ok_or_else(|| {
        missing(format!("no {FIRECRACKER} on PATH: get it from {RELEASES}, or set VMTEST_FIRECRACKER to its path"))
    })?;
    let version = version(&program, "Firecracker", "Firecracker v")?;
    let number = number(&version).ok_or_else(|| missing(format!("{} has no version: {version}", program.display())))?;
    if number < OLDEST {
        let (major, minor) = OLDEST;
        return Err(missing(format!(
            "{} is Firecracker v{version}, and v{major}.{minor}.0 is the oldest that works: get a newer one from {RELEASES}",
            program.display()
        )));
    }
    if !search.kvm().works() {
        return Err(missing(format!("Firecracker runs no guests here: {}", search.kvm())));
    }
    Ok(FirecrackerFacts { program, version, has_pci: number >= HAS_PCI })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::search::saying;

    /// What the probe finds of a program that says this of its version.
    fn probed(says: &str) -> Result<FirecrackerFacts, Error> {
        let (_program, search) = saying(FIRECRACKER, says, true);
        probe(&search)
    }

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        for (says, version, has_pci) in [
            ("Firecracker v1.10.0", "1.10.0", false),
            ("Firecracker v1.12.1", "1.12.1", false),
            ("Firecracker v1.13.0", "1.13.0", true),
            ("Firecracker v1.16.1\n\n2026-01-01T00:00:00 [anonymous-instance:main] exiting", "1.16.1", true),
            ("Firecracker v2.0.0-dev", "2.0.0-dev", true),
        ] {
            let facts = probed(says).unwrap();
            assert_eq!((facts.version.as_str(), facts.has_pci), (version, has_pci));
        }
        for (says, part) in [
            ("Firecracker v1.9.1", "is Firecracker v1.9.1, and v1.10.0 is the oldest that works"),
            ("Firecracker vnext", "has no version: next"),
            ("cloud-hypervisor v54.0", "is no Firecracker that runs: it says `cloud-hypervisor v54.0`"),
        ] {
            let error = probed(says).unwrap_err();
            assert_eq!(error.kind(), Kind::Missing);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
