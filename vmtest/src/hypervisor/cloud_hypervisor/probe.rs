//! Finds cloud-hypervisor on this host.

use std::path::{Path, PathBuf};

use super::release;
use crate::{
    error::{Error, Kind},
    hypervisor::{CLOUD_HYPERVISOR, Search, search::version},
    sys::landlock_version,
};

/// Where the project has its binaries.
const RELEASES: &str = "https://github.com/cloud-hypervisor/cloud-hypervisor/releases";
/// The oldest that is known to work: what came before has other words in its API, and other events.
const OLDEST: u32 = 45;
/// From this version on a tap without an address gets none.
const LEAVES_TAPS_ALONE: u32 = 49;
/// The version of Landlock's interface that cloud-hypervisor asks for; Linux has it since 6.2.
const LANDLOCK: u32 = 3;

/// What is known of cloud-hypervisor here.
#[derive(Debug)]
pub(super) struct ChvFacts {
    pub(super) program: PathBuf,
    pub(super) version: String,
    /// Whether the VMM leaves the address of a tap alone.
    pub(super) leaves_taps_alone: bool,
    /// Whether this kernel has the Landlock that the VMM asks for; it does not run with less.
    pub(super) landlock: bool,
}

/// Looks for cloud-hypervisor at the path that is set, else on PATH, else where it was fetched to, asks it for its version, and sees whether KVM works,
/// without which it runs nothing.
///
/// # Errors
/// [`Kind::Missing`] with what to do about it.
pub(super) fn probe(search: &Search) -> Result<ChvFacts, Error> {
    let missing = |why: String| Error::new(Kind::Missing, why);
    let program = search.program(CLOUD_HYPERVISOR, CLOUD_HYPERVISOR).ok_or_else(|| {
        missing(format!(
            "no {CLOUD_HYPERVISOR} on PATH: run `cargo vmtest install cloud-hypervisor`, which fetches v{}, or get it from \
             {RELEASES} and set VMTEST_CLOUD_HYPERVISOR to its path",
            release::VERSION
        ))
    })?;
    let (version, major) = check(&program)?;
    if !search.kvm().works() {
        return Err(missing(format!("cloud-hypervisor runs no guests here: {}", search.kvm())));
    }
    Ok(ChvFacts {
        program,
        version,
        leaves_taps_alone: major >= LEAVES_TAPS_ALONE,
        landlock: landlock_version().is_some_and(|version| version >= LANDLOCK),
    })
}

/// The version of this cloud-hypervisor, whole and its first number.
///
/// # Errors
/// [`Kind::Missing`] for another program, or one that is too old.
pub(in crate::hypervisor) fn check(program: &Path) -> Result<(String, u32), Error> {
    let missing = |why: String| Error::new(Kind::Missing, why);
    let version = version(program, CLOUD_HYPERVISOR, "cloud-hypervisor v")?;
    let major = major(&version).ok_or_else(|| missing(format!("{} has no version: {version}", program.display())))?;
    if major < OLDEST {
        return Err(missing(format!(
            "{} is cloud-hypervisor v{version}, and v{OLDEST}.0 is the oldest that works: get a newer one from {RELEASES}",
            program.display()
        )));
    }
    Ok((version, major))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::search::saying;

    /// What the probe finds of a program that says this of its version.
    fn probed(says: &str, kvm: bool) -> Result<ChvFacts, Error> {
        let (_program, search) = saying(CLOUD_HYPERVISOR, says, kvm);
        probe(&search)
    }

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        for (says, version, alone) in [
            ("cloud-hypervisor v45.0", "45.0", false),
            ("cloud-hypervisor v48.0", "48.0", false),
            ("cloud-hypervisor v49.0", "49.0", true),
            (
                "cloud-hypervisor v53.0-246-gae44c2971-dirty\nMigration Protocol Versions: 0",
                "53.0-246-gae44c2971-dirty",
                true,
            ),
        ] {
            let facts = probed(says, true).unwrap();
            assert_eq!((facts.version.as_str(), facts.leaves_taps_alone), (version, alone));
        }
        for (says, part) in [
            ("cloud-hypervisor v44.0", "is cloud-hypervisor v44.0, and v45.0 is the oldest that works"),
            ("cloud-hypervisor vnext", "has no version: next"),
            ("QEMU emulator version 7.2", "is no cloud-hypervisor that runs: it says `QEMU emulator version 7.2`"),
        ] {
            let error = probed(says, true).unwrap_err();
            assert_eq!(error.kind(), Kind::Missing);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
